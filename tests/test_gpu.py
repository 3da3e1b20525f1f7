import copy

import pytest
import torch

import nas
from nas.config import LatencyConfig
from nas.latency.backends import backend_for
from nas.latency.reference import batch_of_noise
from tests.helpers import relative_difference
from tests.searching import small_search

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_a_search_on_cuda_trains_measures_and_exports(tmp_path):
    run = small_search(tmp_path, device="cuda", **{"train.epochs": 8})
    assert run.trials["state"].tolist() == ["completed"] * 4
    assert (run.trials["latency_ms"] > 0).all()
    assert run.trials["accuracy"].max() > 0.3
    assert (run.path / "models" / str(run.front["trial"][0]) / "model.onnx").exists()


def test_ray_gives_each_trial_its_share_of_the_gpu(tmp_path):
    run = small_search(tmp_path, device="cuda", **{"trials.executor": "ray", "trials.gpus": 0.5})
    assert run.trials["state"].tolist() == ["completed"] * 4


def test_latency_on_cuda_is_that_of_a_finished_batch():
    network = nas.build(nas.load_space("tiny").sample(0), num_classes=10, input_shape=(3, 32, 32), form="deploy")
    small = nas.measure(network, LatencyConfig(device="cuda", batch_size=1))
    large = nas.measure(network, LatencyConfig(device="cuda", batch_size=8192))
    assert large.median_ms > small.median_ms > 0
    assert (small.backend, small.clock, small.device) == ("torch", "CUDA events", torch.cuda.get_device_name())


WAYS = [
    LatencyConfig(backend="torch", cuda_graphs=graphs, flush_l2=flush)
    for graphs in (True, False)
    for flush in (True, False)
] + [LatencyConfig(backend=name) for name in ("torch_compile", "onnxruntime", "tensorrt")]


@pytest.mark.parametrize("config", WAYS, ids=lambda way: f"{way.backend} {way.cuda_graphs:d} {way.flush_l2:d}")
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_runtime_computes_the_network_on_cuda(config, batch_size):
    try:
        _, backend = backend_for(config, "cuda:0")
    except ValueError as missing:
        pytest.skip(str(missing))
    network = nas.build(nas.load_space("mobile").sample(3), num_classes=10, input_shape=(3, 32, 32), form="deploy")
    images = batch_of_noise((3, 32, 32), batch_size, "cpu")
    with torch.no_grad():
        expected = network(images)
    with backend.prepare(copy.deepcopy(network).cuda(), images.cuda(), config) as ready:
        ways = [ready, *ready.rivals]
        assert all(relative_difference(expected, torch.from_numpy(way.run())) < 1e-4 for way in ways)
        assert min(way.time_once() for way in ways) > 0
    measured = nas.measure(network, config, input_shape=(3, 32, 32), device="cuda")
    assert measured.median_ms > 0 and measured.device == torch.cuda.get_device_name()


def test_int8_is_not_torchs_on_cuda_either():
    network = nas.build(nas.load_space("tiny").sample(0), num_classes=10, input_shape=(3, 32, 32), form="deploy")
    with pytest.raises(ValueError, match=r"^latency\.dtype=int8 is not allowed with torch; allowed with: .*$"):
        nas.measure(network, LatencyConfig(dtype="int8"), device="cuda")

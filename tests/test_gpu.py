import pytest
import torch

import nas
from nas.config import LatencyConfig
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

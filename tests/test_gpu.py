import copy
import dataclasses
import json
import math

import pytest
import torch
from torch import nn

import nas
from nas import train
from nas.config import LatencyConfig
from nas.data import Augmentation, load_data
from nas.deploy import load_deployed
from nas.latency.backends import backend_for
from nas.latency.reference import batch_of_noise
from nas.networks.fusing import fuse
from nas.training import graphs, loop
from nas.training.checkpoint import Checkpoint, Progress
from nas.training.evaluation import evaluate
from nas.training.loop import Training
from nas.training.precision import training_dtype
from tests.helpers import relative_difference
from tests.searching import events_of, quick_latency, small_search
from tests.stripes import DEEP, TINY, never, stripe_bytes, stripe_data, stripe_job

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


# --- training


def cuda_job(data, **recipe):
    """A job whose images are on the GPU."""
    return dataclasses.replace(stripe_job(data, **recipe), device="cuda").on_device()


def needs(precision):
    if precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip("this GPU has no bf16")


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16", "auto"])
def test_a_network_learns_on_cuda(precision):
    needs(precision)
    job = cuda_job(stripe_data(192), epochs=6, batch_size=16, precision=precision)
    model, seen = job.build(TINY), set()
    convolution = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    hook = convolution.register_forward_hook(lambda _, args, output: seen.add(output.dtype))
    training = Training(model, job.data, job.recipe(TINY), 0, never)
    losses = [epoch.loss for epoch in training.epochs()]
    hook.remove()
    assert seen == {training_dtype(precision, "cuda")}
    assert losses[-1] < losses[0]
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32, torch.int64}
    assert {value.device.type for value in model.state_dict().values()} == {"cuda"}
    assert evaluate(fuse(training.shipped), job.data, job.data.validation) > 0.9


def test_every_option_works_on_cuda():
    everything = {
        "epochs": 3,
        "batch_size": 32,
        "optimizer": "sgd",
        "schedule": "one_cycle",
        "grad_clip": 1.0,
        "ema": 0.9,
        "class_weights": True,
        "cutout": 0.25,
        "randaugment": 9,
        "mixup": 0.4,
        "dropout": 0.2,
        "drop_path": 0.3,
    }
    job = cuda_job(stripe_bytes(96, Augmentation(1, True)), **everything)
    job = dataclasses.replace(job, teacher=job.build(TINY).eval().requires_grad_(False))
    model = job.build(DEEP)
    before = torch.cuda.get_rng_state(), torch.get_rng_state()
    training = Training(model, job.data, job.recipe(DEEP), 0, never, job.teacher)
    assert all(math.isfinite(epoch.loss) for epoch in training.epochs())
    assert torch.equal(torch.cuda.get_rng_state(), before[0]) and torch.equal(torch.get_rng_state(), before[1])
    images = job.data.normalize(job.data.validation.x)
    with torch.no_grad():
        assert relative_difference(training.shipped(images), fuse(training.shipped)(images)) < 1e-3


@pytest.mark.parametrize("precision", ["float32", "fp16"])
def test_a_training_is_continued_on_cuda(tmp_path, precision):
    job = cuda_job(stripe_data(96), epochs=4, batch_size=16, ema=0.9, precision=precision)
    recipe = job.recipe(TINY)
    identity = job.identity(TINY)
    file = Checkpoint(tmp_path / "x.safetensors")
    undisturbed = Training(job.build(TINY), job.data, recipe, 0, never)
    losses = []
    for epoch in undisturbed.epochs():
        losses.append(epoch.loss)
        if epoch.number == 2:
            file.save(undisturbed, identity, Progress(1.0, 0.0, epoch.loss))
    torch.manual_seed(9)
    continued = Training(dataclasses.replace(job, seed=1).build(TINY), job.data, recipe, 0, never)
    assert file.restore(continued, identity) == Progress(1.0, 0.0, losses[1])
    # cuDNN may add up in another order each time.
    assert [epoch.loss for epoch in continued.epochs()] == pytest.approx(losses[2:], rel=0.05)
    assert {value.device.type for value in continued.shipped.state_dict().values()} == {"cuda"}


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_graph_trains_as_the_loop_does_without(monkeypatch, precision):
    needs(precision)
    replays = []

    class Counted(graphs.Graphed):
        def __call__(self, x, y):
            replays.append(x.shape)
            return super().__call__(x, y)

    monkeypatch.setattr(graphs, "Graphed", Counted)
    monkeypatch.setattr(graphs, "WORTH_IT", math.inf)  # however slow it is, and whatever it computes: see below
    monkeypatch.setattr(graphs, "SAME", math.inf)
    recipe = {"epochs": 3, "batch_size": 16, "optimizer": "sgd", "learning_rate": 0.02, "ema": 0.9}
    job = cuda_job(stripe_data(96, Augmentation(1, True)), **recipe, precision=precision)
    trained = {}
    for name, worth in (("graph", 0), ("plain", 10**9)):
        monkeypatch.setattr(loop, "WORTH_A_GRAPH", worth)
        model = job.build(TINY)
        training = Training(model, job.data, job.recipe(TINY), 0, never)
        trained[name] = model, training.shipped, [epoch.loss for epoch in training.epochs()]
        if name == "graph":  # tried: its gradient once and its time; then every step of three epochs
            assert len(replays) == 1 + graphs.REPEATS + 18
    assert len(replays) == 1 + graphs.REPEATS + 18
    tolerance = 1e-3 if precision == "float32" else 0.03
    assert trained["graph"][2] == pytest.approx(trained["plain"][2], rel=tolerance)
    for with_it, without in zip(trained["graph"][:2], trained["plain"][:2], strict=True):
        for (name, a), (_, b) in zip(with_it.state_dict().items(), without.state_dict().items(), strict=True):
            assert torch.allclose(a, b, rtol=10 * tolerance, atol=10 * tolerance), name
            assert a.is_floating_point() or torch.equal(a, b), name


def test_what_draws_at_random_is_not_captured(monkeypatch):
    monkeypatch.setattr(loop, "WORTH_A_GRAPH", 0)
    monkeypatch.setattr(loop, "faster", lambda *args: pytest.fail("a graph would draw the same every time"))
    for more in ({"dropout": 0.5}, {"drop_path": 0.5}, {"mixup": 0.5}, {"precision": "fp16"}):
        job = cuda_job(stripe_data(32), epochs=1, batch_size=16, **more)
        list(Training(job.build(DEEP), job.data, job.recipe(DEEP), 0, never).epochs())


def test_the_command_trains_on_cuda(tmp_path):
    out = tmp_path / "out"
    words = ["arch=tiny", "device=cuda", "train.epochs=10", "threads=1", "latency.tolerance=1", f"out={out}"]
    with quick_latency(tmp_path):
        assert train.main(words) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["latency_ms"] > 0 and metrics["train_s"] > 0 and metrics["test_accuracy"] > 0.3
    assert metrics["latency"]["measured_in"]["device"] == torch.cuda.get_device_name()
    data = load_data("digits", "unused", 0.25, 0)
    arch = nas.load_architecture(out / "architecture.json")
    network, _ = load_deployed(arch, out / "model.safetensors", 10, (1, 8, 8))
    assert evaluate(network.eval(), data, data.test) == pytest.approx(metrics["test_accuracy"], abs=0.01)


# --- a share of the GPU


@pytest.mark.parametrize(("gpus", "wanted"), [(0.25, [0.25]), (1.0, [])])
def test_a_worker_keeps_to_its_share_of_the_memory(tmp_path, monkeypatch, gpus, wanted):
    from nas.pipeline import Known
    from nas.tune.judging import Assignment, trained
    from nas.tune.trainable import ArchitectureTrainable

    shares = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", shares.append)
    assignment = Assignment(0, TINY.to_dict(), TINY.arch_id, Known(), (1,))
    worker = ArchitectureTrainable.__new__(ArchitectureTrainable)
    job = dataclasses.replace(stripe_job(stripe_data(32)), device="cuda")
    worker.setup({"assignments": (assignment,)}, trained, job, str(tmp_path), "mark", 1, gpus, None, [], [])
    worker.cleanup()
    assert shares == wanted


def test_four_trials_share_the_gpu(tmp_path):
    quarters = {"trials.executor": "ray", "trials.gpus": 0.25, "trials.concurrent": 4, "train.epochs": 4}
    run = small_search(tmp_path, device="cuda", budget=8, **quarters)
    assert run.trials["state"].tolist() == ["completed"] * 8
    story = [(event["event"], event["trial"]) for event in events_of(run)]
    first_end = next(i for i, (kind, _) in enumerate(story) if kind == "ended")
    assert sum(kind == "proposed" for kind, _ in story[:first_end]) >= 4

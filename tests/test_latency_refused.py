"""What `measure` refuses, and what it leaves as it was; the reference network."""

import dataclasses
import random

import numpy as np
import pytest
import torch
from torch import nn

from nas.config import LatencyConfig
from nas.cores import cores
from nas.latency.measure import Variant, measure, measure_interleaved
from nas.latency.reference import REFERENCE_SHAPE, reference_network
from tests.lanes import is_free

pytestmark = pytest.mark.usefixtures("one_thread")
SHAPE = (3, 8, 8)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))


# --- bad input


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"batch_size": 0}, "latency.batch_size=0"),
        ({"batch_size": -1}, "latency.batch_size=-1"),
        ({"threads": 0}, "latency.threads=0"),
        ({"threads": 1024}, f"latency.threads=1024 is not allowed; allowed: 1 to {cores()}, the cores here"),
        ({"tolerance": 0.0}, "latency.tolerance=0"),
        ({"tolerance": -0.1}, "latency.tolerance=-0.1"),
        ({"tolerance": float("nan")}, "latency.tolerance=nan"),
        ({"limit_s": 0.0}, "latency.limit_s=0"),
        ({"backend": "abacus"}, "latency.backend=abacus"),
        ({"dtype": "float16"}, "latency.dtype=float16"),
        ({"memory_format": "sparse"}, "latency.memory_format=sparse"),
        ({"device": "tpu"}, "device=tpu"),
        ({"backend": "torch", "dtype": "int8"}, "latency.dtype=int8"),
        ({"backend": "tensorrt"}, "latency.backend=tensorrt"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused_in_one_line(lane, settings, part):
    with pytest.raises(ValueError) as refused:
        measure(network(), LatencyConfig(**settings), input_shape=SHAPE, lane=lane)
    assert part in str(refused.value) and "\n" not in str(refused.value)
    assert is_free(lane.folder)


@pytest.mark.parametrize(
    "shape", [None, (), (3, 8), (0, 8, 8), (3, 8, -8), (3, 8, 8.0), (1, 3, 8, 8), "3x8x8"], ids=str
)
def test_a_shape_that_cannot_be_is_refused(lane, shape):
    with pytest.raises(ValueError, match=r"input_shape=.*allowed: \(C, H, W\), all positive"):
        measure(network(), LatencyConfig(), input_shape=shape, lane=lane)


@pytest.mark.parametrize("backend", ["torch", "onnxruntime"])
def test_a_shape_that_does_not_fit_is_refused_in_one_line(lane, backend):
    with pytest.raises(ValueError) as refused:
        measure(network(), LatencyConfig(backend=backend), input_shape=(3, 9, 9), lane=lane)
    assert "\n" not in str(refused.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_gpu_that_is_not_there_is_refused(lane, device):
    with pytest.raises(ValueError, match=f"device={device} is not allowed: there are 0 CUDA devices"):
        measure(network(), LatencyConfig(), input_shape=SHAPE, device=device, lane=lane)


def test_what_differs_in_threads_or_tolerance_is_not_interleaved(lane):
    one, other = (Variant(network(), LatencyConfig(tolerance=each), SHAPE) for each in (0.1, 0.2))
    with pytest.raises(ValueError, match="one number of threads, one tolerance and one limit"):
        measure_interleaved([one, other], lane=lane)


# --- what stays as it was


@pytest.mark.parametrize("backend", ["torch", "onnxruntime"])
@pytest.mark.parametrize("training", [True, False])
def test_nothing_but_time_is_spent(lane, quick, backend, training):
    model = network().train(training)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    states = torch.random.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    threads = torch.get_num_threads()
    measure(model, dataclasses.replace(quick, backend=backend, batch_size=4), input_shape=SHAPE, lane=lane)
    assert torch.get_num_threads() == threads
    assert torch.equal(states[0], torch.random.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all() and states[2] == random.getstate()
    after = model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(module.training is training for module in model.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


class Watching(nn.Module):
    """Notes how it is called, on the class: a copy is measured."""

    seen: set = set()  # noqa: RUF012

    def forward(self, x):
        how = (tuple(x.shape), x.dtype, torch.get_num_threads(), self.training, torch.is_grad_enabled())
        type(self).seen.add((*how, bool((x == 0).any()), bool(x.std() > 0.5)))
        return x.mean((2, 3))


@pytest.mark.skipif(cores() < 2, reason="needs two cores")
def test_the_network_is_timed_as_asked(lane, quick):
    Watching.seen = set()
    measure(
        Watching(), dataclasses.replace(quick, backend="torch", batch_size=5, threads=2), input_shape=SHAPE, lane=lane
    )
    assert Watching.seen == {((5, *SHAPE), torch.float32, 2, False, False, False, True)}


def test_the_reference_network_is_the_same_for_ever():
    """Changing it makes all remembered readings of it worthless."""
    state = torch.random.get_rng_state()
    first, second = reference_network(), reference_network()
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert sum(parameter.numel() for parameter in first.parameters()) == 30_666
    with torch.no_grad():
        logits = first(torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, *REFERENCE_SHAPE))
    assert torch.isfinite(logits).all() and not first.training

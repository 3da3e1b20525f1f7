"""Measuring latency: warm-up, rounds of repeats until two rounds agree, median and spread."""

from __future__ import annotations

import copy
import statistics
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from nas.latency.backends import Run, latency_backend

WARM_UP_S = 0.03
ROUND_S = 0.05
FEWEST_REPEATS = 10  # of a round and of the warm-up
MOST_ROUNDS = 12
AGREEMENT = 0.03  # relative difference of two rounds' medians


@dataclass(frozen=True)
class LatencyMeasurement:
    """Latency of one batch.

    Attributes:
        samples_ms: every repeat of the last two rounds, in ms.
        agreed: whether those two rounds' medians agreed before the rounds were used up.
        backend: the runtime.
        batch_size: images of the batch.
        threads: CPU threads.
        device: where it ran.
    """

    samples_ms: tuple[float, ...]
    agreed: bool
    backend: str
    batch_size: int
    threads: int
    device: str

    @property
    def median_ms(self) -> float:
        """Median latency, ms."""
        return statistics.median(self.samples_ms)

    @property
    def iqr_ms(self) -> float:
        """Interquartile range of the latency, ms."""
        low, high = np.percentile(self.samples_ms, [25, 75])
        return float(high - low)


def measure(
    network: nn.Module,
    input_shape: tuple[int, int, int],
    *,
    backend: str = "torch",
    batch_size: int = 1,
    threads: int = 1,
    device: str = "cpu",
) -> LatencyMeasurement:
    """Measures the latency of a network in eval mode, as it stands: pass the deploy form. It is not changed.

    Args:
        network: takes (N, C, H, W).
        input_shape: (C, H, W).
        backend: a name in `LATENCY_BACKENDS`.
        batch_size: images of a batch.
        threads: CPU threads of the runtime.
        device: "cpu" or "cuda".

    Raises:
        ValueError: an unknown backend or device, or sizes that are not positive.
    """
    runtime = latency_backend(backend)
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device=cuda is not allowed: no CUDA device is available; allowed: cpu")
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device={device} is not allowed; allowed: cpu, cuda")
    sizes = (batch_size, threads, *input_shape)
    if len(sizes) != 5 or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise ValueError(f"batch_size={batch_size}, threads={threads}, input_shape={input_shape}: all must be positive")
    timed = copy.deepcopy(network).to(device).eval()
    # Noise, not zeros: zeros make denormals and sparse short cuts look like speed.
    dtype = next((parameter.dtype for parameter in network.parameters()), torch.float32)
    batch = torch.randn(batch_size, *input_shape, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    with runtime.ready(timed, batch, threads) as run:
        samples, agreed = _rounds(run)
    return LatencyMeasurement(tuple(samples), agreed, backend, batch_size, threads, device)


def _rounds(run: Run) -> tuple[list[float], bool]:
    """Samples of the last two rounds, in ms, and whether their medians agree."""
    _repeat(run, WARM_UP_S)
    before, after = _repeat(run, ROUND_S), _repeat(run, ROUND_S)
    for _ in range(MOST_ROUNDS - 2):
        if _agree(before, after):
            break
        before, after = after, _repeat(run, ROUND_S)
    return before + after, _agree(before, after)


def _agree(before: list[float], after: list[float]) -> bool:
    return abs(statistics.median(after) / statistics.median(before) - 1) <= AGREEMENT


def _repeat(run: Run, at_least_s: float) -> list[float]:
    samples: list[float] = []
    end = time.perf_counter() + at_least_s
    while len(samples) < FEWEST_REPEATS or time.perf_counter() < end:
        start = time.perf_counter_ns()
        run()
        samples.append((time.perf_counter_ns() - start) / 1e6)
    return samples

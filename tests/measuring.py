"""Measurements that nobody made: what tests script instead of a clock."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

from torch import nn

from nas.config import LatencyConfig
from nas.latency import meter
from nas.latency.conditions import Instrument, timed_device
from nas.latency.measure import Variant
from nas.latency.measurement import LatencyMeasurement
from nas.latency.sampling import Samples


def measurement(median_ms: float, config: LatencyConfig | None = None, **more: Any) -> LatencyMeasurement:
    """A measurement without spread."""
    config = config or LatencyConfig()
    made: dict[str, Any] = {
        "samples": Samples(((median_ms,),) * 6),
        "reference": Samples(((0.5,),) * 6),
        "scale": 1.0,
        "doubt": "",
        "backend": "onnxruntime",
        "version": "0",
        "device": timed_device(config, "cpu"),
        "dtype": config.dtype,
        "memory_format": "contiguous",
        "batch_size": config.batch_size,
        "threads": config.threads,
        "input_shape": (1, 8, 8),
        "clock": "perf_counter",
        "prepare_s": 0.25,
        "measure_s": 0.125,
        "load": 0.0,
    }
    return LatencyMeasurement(**{**made, **more})


class Scripted:
    """A node that a `Meter` may measure with.

    Attributes:
        asked: the networks, in order.
        calls: how many of them at a time.
    """

    def __init__(self, latency_ms: Callable[[nn.Module], float], **more: Any) -> None:
        """`latency_ms` says what a network takes; `more` is what else a measurement says."""
        self._latency_ms, self._more = latency_ms, more
        self.asked: list[nn.Module] = []
        self.calls: list[int] = []

    def measure(self, variants: list[Variant], *, device: str) -> list[LatencyMeasurement]:
        """Their latencies."""
        self.calls.append(len(variants))
        self.asked += [each.network for each in variants]
        return [measurement(self._latency_ms(each.network), each.config, **self._more) for each in variants]

    def instrument(self, config: LatencyConfig, device: str) -> Instrument:
        """What is measured with."""
        return Instrument(f"a machine with {device}", config.backend)


@contextlib.contextmanager
def instead_of_a_clock(node: Scripted) -> Iterator[None]:
    """What this process would measure, a scripted node says."""

    def measure(variants: list[Variant], *, device: str, **_lane: Any) -> list[LatencyMeasurement]:
        return node.measure(variants, device=device)

    with patch.object(meter, "measure_interleaved", measure):
        yield

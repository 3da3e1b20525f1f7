"""A measured latency, with all that it depends on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from nas.latency.sampling import Samples

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class LatencyMeasurement:
    """The latency of one batch.

    Attributes:
        samples: every repeat, by rounds.
        reference: those of the reference network, timed in between; none where a table was read.
        scale: by what the clocked times are multiplied to be those at the device's usual speed: the reference's usual
            time over its time meanwhile. 1 where nothing is usual yet, or the machine is far off.
        doubt: why the median is not to be relied on; empty where it is stable.
        backend: the runtime.
        version: the runtime's.
        device: what it ran on (`nas.latency.machine.fingerprint`).
        dtype: of weights and activations.
        memory_format: how the batch lay in memory.
        batch_size: images of the batch.
        threads: CPU threads.
        input_shape: (C, H, W).
        clock: what timed it.
        prepare_s: seconds that exporting, compiling and loading took; not part of any repeat.
        measure_s: seconds that the device was kept quiet.
        load: cores that others kept busy meanwhile, on average; None where it cannot be told.
    """

    samples: Samples
    reference: Samples | None
    scale: float
    doubt: str
    backend: str
    version: str
    device: str
    dtype: str
    memory_format: str
    batch_size: int
    threads: int
    input_shape: Shape
    clock: str
    prepare_s: float
    measure_s: float
    load: float | None

    @property
    def stable(self) -> bool:
        """Whether the interval is within the tolerance, on a machine that was quiet and did not drift."""
        return not self.doubt

    @property
    def samples_ms(self) -> tuple[float, ...]:
        """Every repeat at the device's usual speed, ms; as clocked they are in `samples`."""
        return tuple(self.scale * value for value in self.samples.all_ms)

    @property
    def median_ms(self) -> float:
        """Median latency at the device's usual speed, ms."""
        return self.scale * self.samples.median_ms

    @property
    def iqr_ms(self) -> float:
        """Interquartile range of the latency, ms."""
        return self.scale * self.samples.iqr_ms

    @property
    def interval_ms(self) -> tuple[float, float]:
        """95 % confidence interval of the median, ms."""
        low, high = self.samples.interval_ms
        return self.scale * low, self.scale * high

    @property
    def reference_ms(self) -> float | None:
        """Median of the reference network within the same rounds, as clocked, ms."""
        return self.reference.median_ms if self.reference else None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready words, every sample included."""
        low, high = self.interval_ms
        return {
            "median_ms": self.median_ms,
            "iqr_ms": self.iqr_ms,
            "low_ms": low,
            "high_ms": high,
            "reference_ms": self.reference_ms,
            "stable": self.stable,
            **asdict(self),
        }

"""What is known of a deploy form's cost: its latency as a reading, its parameters and multiply-adds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Reading:
    """The latency of a deploy form, as it is known.

    Attributes:
        median_ms: median latency of one batch.
        iqr_ms: interquartile range of the latency; 0 where it is predicted.
        low_ms: lower end of the median's interval: 95 % where measured, 90 % where predicted.
        high_ms: its upper end.
        source: "measured", "remembered" (measured in an earlier run or trial) or "predicted".
        doubt: why it is not to be relied on; empty where it is.
        reference_ms: what the reference network took meanwhile; None where nothing was measured.
        scale: by what the clocked times were multiplied to be those at the device's usual speed.
        merges: names of the convolutions of each merger that the network had.
    """

    median_ms: float
    iqr_ms: float
    low_ms: float
    high_ms: float
    source: str = "measured"
    doubt: str = ""
    reference_ms: float | None = None
    scale: float = 1.0
    merges: tuple[tuple[str, ...], ...] = ()


def reading_from_dict(words: dict[str, Any]) -> Reading:
    """The reading that `dataclasses.asdict` made words of, JSON's lists included.

    Raises:
        TypeError: other words.
    """
    return Reading(**{**words, "merges": tuple(tuple(segment) for segment in words.get("merges", ()))})


@dataclass(frozen=True)
class Cost:
    """What the deploy form of an architecture costs.

    Attributes:
        params: number of parameters.
        macs: multiply-adds of one image.
        latency: of one batch.
    """

    params: int
    macs: int
    latency: Reading

    def by_name(self) -> dict[str, float]:
        """The figures by the names of objectives, constraints and columns."""
        return {
            "params": self.params,
            "macs": self.macs,
            "latency_ms": self.latency.median_ms,
            "latency_iqr_ms": self.latency.iqr_ms,
            "latency_low_ms": self.latency.low_ms,
            "latency_high_ms": self.latency.high_ms,
        }

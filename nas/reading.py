"""What is known of a deploy form's cost: its latency as a reading, its parameters, multiply-adds and peak memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from nas.bounded import shown

MOST = 2**63 - 1  # what columns of tables hold
_WORDS = ("source", "doubt")

NUMBER_BYTES = {"float32": 4, "int8": 1}  # of a weight or an activation, by `latency.dtype`


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
        ValueError: values of other types.
    """
    if not isinstance(words, dict):
        raise TypeError(f"latency: {shown(words)} is not allowed; allowed: a mapping")
    for name, raw in words.items():
        if name in _WORDS:
            word_of(name, raw)
        elif name != "merges" and not (raw is None and name == "reference_ms"):
            number_of(name, raw)
    median_ms = words.get("median_ms")
    if not (median_ms is None or math.isfinite(median_ms)):
        raise ValueError(f"median_ms: {median_ms} is not allowed; allowed: a finite number")
    merges = words.get("merges", ())
    if not _lists(merges) or not all(_lists(names) and all(type(each) is str for each in names) for names in merges):
        raise ValueError(f"merges: {shown(merges)} is not allowed; allowed: lists of names")
    return Reading(**{**words, "merges": tuple(map(tuple, merges))})


def is_number(raw: Any) -> bool:
    """Whether this is a number that fits into 64 bits; infinity and NaN do."""
    return type(raw) is float or (type(raw) is int and -MOST <= raw <= MOST)


def number_of(name: str, raw: Any) -> float:
    """A number that JSON holds under a name.

    Raises:
        ValueError: something else.
    """
    if not is_number(raw):
        raise ValueError(f"{name}: {shown(raw)} is not allowed; allowed: a number")
    return raw


def count_of(name: str, raw: Any) -> int:
    """A whole number from 0 on that JSON holds under a name.

    Raises:
        ValueError: something else, or more than fits into 64 bits.
    """
    if type(raw) is not int or not 0 <= raw <= MOST:
        raise ValueError(f"{name}: {shown(raw)} is not allowed; allowed: a whole number from 0 on")
    return raw


def word_of(name: str, raw: Any) -> str:
    """The text that JSON holds under a name.

    Raises:
        ValueError: something else.
    """
    if type(raw) is not str:
        raise ValueError(f"{name}: {shown(raw)} is not allowed; allowed: text")
    return raw


def _lists(raw: Any) -> bool:
    return type(raw) in (list, tuple)


class Footprint(NamedTuple):
    """What a network keeps in memory while eager PyTorch runs it in eval mode.

    Attributes:
        weights: numbers of the kernels of convolutions and linear layers.
        other_bytes: of all other parameters and of buffers, which int8 leaves as they are.
        activations: the most numbers of one image, its own included, that are in memory at once.
    """

    weights: int
    other_bytes: int
    activations: int

    def peak_mb(self, batch_size: int, dtype: str) -> float:
        """The most memory at once in MB (10^6 bytes), with weights and activations of a dtype (`NUMBER_BYTES`)."""
        return (NUMBER_BYTES[dtype] * (self.weights + batch_size * self.activations) + self.other_bytes) / 1e6


class Size(NamedTuple):
    """What a deploy form costs on any device.

    Attributes:
        params: number of parameters.
        macs: multiply-adds of one image.
        peak_memory_mb: most memory at once for one batch, in MB; see `Footprint`.
    """

    params: int
    macs: int
    peak_memory_mb: float


@dataclass(frozen=True)
class Cost:
    """What the deploy form of an architecture costs.

    Attributes:
        params: number of parameters.
        macs: multiply-adds of one image.
        latency: of one batch.
        peak_memory_mb: most memory at once for one batch, in MB; None in runs of versions that did not count it.
    """

    params: int
    macs: int
    latency: Reading
    peak_memory_mb: float | None = None

    def by_name(self) -> dict[str, float]:
        """The figures by the names of objectives, constraints and columns."""
        memory = {} if self.peak_memory_mb is None else {"peak_memory_mb": self.peak_memory_mb}
        return {
            "params": self.params,
            "macs": self.macs,
            **memory,
            "latency_ms": self.latency.median_ms,
            "latency_iqr_ms": self.latency.iqr_ms,
            "latency_low_ms": self.latency.low_ms,
            "latency_high_ms": self.latency.high_ms,
        }


def cost_at(size: Size, latency: Reading) -> Cost:
    """The cost of a deploy form of a size that takes so long."""
    return Cost(size.params, size.macs, latency, size.peak_memory_mb)

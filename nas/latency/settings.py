"""What the commands of `python -m nas.latency` take. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from nas.config import LatencyConfig, LimitsConfig, SourceConfig
from nas.config_fields import key


@dataclass(frozen=True)
class TargetConfig(SourceConfig):
    """What `nas.latency` measures for: images (their shape and classes), and how networks run."""

    input: str | None = key(None, "shape of the images instead of a data set's, e.g. 3x32x32")
    classes: int = key(10, "classes, where `input` is given", low=1, high=1_000_000)
    merge: str = key(
        "macs", "how runs of linear convolutions are merged", options=("none", "macs", "params", "all", "latency")
    )
    seed: int = key(0, "seed of sampling", low=0, high=2**31 - 1)
    latency: LatencyConfig = field(default_factory=LatencyConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)


@dataclass(frozen=True)
class CalibrateConfig(TargetConfig):
    """`python -m nas.latency calibrate`: how a device is calibrated."""

    space: str = key("mobile", "search space whose networks are measured")
    networks: int = key(300, "networks that are measured to fit the predictor", low=5, high=100_000)
    held_out: int = key(60, "networks more, measured twice, to judge it", low=5, high=100_000)
    out: str | None = key(None, "calibration file; default: runs/.latency/calibration-SPACE.json")


@dataclass(frozen=True)
class LayersConfig(TargetConfig):
    """`python -m nas.latency layers`: of which networks the layers are measured one by one."""

    space: str = key("tiny", "search space whose networks' layers are measured")
    networks: int = key(20, "networks whose layers are measured, each layer once", low=1, high=100_000)
    out: str = key("layers.csv", "table for latency.backend=table; a file of that name is replaced")


@dataclass(frozen=True)
class MeasureConfig(TargetConfig):
    """`python -m nas.latency measure`: which network is measured."""

    arch: str | None = key(None, "architecture.json, a network of zoo/, or a space of which a sample is taken")
    backends: list[str] = key([], "runtimes; default: all that are installed")

"""Every setting of a search, with type, default, unit and meaning: the one source of truth.

The command line, YAML files, `nas.run_search(...)` and `--help` all read these dataclasses; the reading
itself is in `nas.command_line`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


def _key(default: Any, meaning: str, unit: str = "", **limits: Any) -> Any:
    """A field with its help and its limits: `low`, `high` (numbers), `above` (exclusive) or `options` (words)."""
    metadata = {"meaning": meaning, "unit": unit, **limits}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class TrainConfig:
    """How each network is trained."""

    epochs: int = _key(16, "epochs of a full training", low=1, high=100_000)
    batch_size: int = _key(64, "images of a training step", low=2, high=1_000_000)
    optimizer: str = _key("adamw", "optimizer", options=("adamw", "sgd"))
    learning_rate: float = _key(0.01, "peak of the cosine schedule", above=0, high=100)
    momentum: float = _key(0.9, "Nesterov momentum of sgd", low=0, high=0.9999)
    weight_decay: float = _key(0.02, "weight decay; never on norms and biases", low=0, high=10)
    label_smoothing: float = _key(0.1, "label smoothing", low=0, high=0.9)
    warmup_epochs: float = _key(1.0, "epochs of linear warm-up, at most half of all", low=0, high=100_000)
    augment: bool = _key(True, "random shifts and flips, as suits the data set")


@dataclass(frozen=True)
class LatencyConfig:
    """How the latency of a fused network is measured."""

    backend: str = _key(
        "auto",
        "runtime that is timed; auto: onnxruntime on the CPU, torch on CUDA",
        options=("auto", "torch", "torch_compile", "onnxruntime", "openvino", "executorch", "tensorrt", "table"),
    )
    device: str = _key(
        "auto", "where latencies are measured; auto: where networks are trained", options=("auto", "cpu", "cuda")
    )
    batch_size: int = _key(1, "images of a batch", low=1, high=100_000)
    threads: int = _key(1, "CPU threads of the runtime, at most the machine's cores", low=1, high=1024)
    dtype: str = _key("float32", "int8: statically quantized, accuracy included", options=("float32", "int8"))
    memory_format: str = _key("auto", "of torch; auto: the faster one", options=("auto", "contiguous", "channels_last"))
    tolerance: float = _key(0.02, "half the 95 % interval over the median that is good enough", above=0, high=1)
    limit_s: float = _key(
        3.0, "longest time of a measurement; what is not good enough then is flagged", "s", above=0, high=3600
    )
    cuda_graphs: bool = _key(True, "torch on CUDA: replay a graph")
    flush_l2: bool = _key(False, "CUDA: empty the L2 cache between repeats")
    table: str | None = _key(None, "for backend=table: latencies of another device, by layer (CSV)")
    calibration: str | None = _key(None, "file of `nas.latency calibrate`, to predict what need not be measured")


@dataclass(frozen=True)
class ConstraintsConfig:
    """Upper limits; what breaks one is never trained."""

    latency_ms: float | None = _key(None, "highest latency of the fused network", "ms", above=0)
    params: float | None = _key(None, "most parameters of the fused network", above=0)
    macs: float | None = _key(None, "most multiply-adds of the fused network", above=0)


@dataclass(frozen=True)
class TrialsConfig:
    """How trials share the machine."""

    concurrent: int | None = _key(None, "trials at a time; default: as many as fit", low=1, high=10_000)
    cpus: float = _key(1.0, "CPU cores of a trial", above=0, high=10_000)
    gpus: float | None = _key(None, "GPUs of a trial; default: 1 with device=cuda, else 0", low=0, high=64)
    timeout: str | None = _key(None, "longest time of a trial, e.g. 90s or 10m; a longer one fails", "time")
    executor: str = _key("ray", "ray, or inline: one by one in this process", options=("ray", "inline"))


@dataclass(frozen=True)
class RayConfig:
    """Which Ray runs the trials."""

    address: str | None = _key(None, "address of a running cluster; default: one is started here")
    dashboard: bool | None = _key(None, "start the dashboard; default: in an interactive terminal")


@dataclass(frozen=True)
class SearchConfig:
    """A search: what is searched, on which data, for what, and with which means."""

    space: str = _key("mobile", "search space: a shipped one's name or the path of a YAML file")
    budget: int = _key(100, "trials that are trained", "trials", low=1, high=10_000_000)
    data: str = _key("digits", "data set's name, a folder with one folder of images a class, or an .npz file")
    data_root: str = _key("~/.cache/nas-data/images", "where torchvision data sets lie, or are downloaded to")
    val_share: float = _key(0.25, "share of the training images that is held out for validation", low=0.01, high=0.9)
    run: str | None = _key(None, "name of the run; default: a time stamp")
    runs_dir: str = _key("runs", "folder of all runs")
    seed: int = _key(0, "seed of sampling, splitting and training", low=0, high=2**31 - 1)
    time_budget: str | None = _key(None, "time after which no trial is begun or waited for, e.g. 2h, 30m", "time")
    resume: bool = _key(False, "continue the run of this name")
    device: str = _key("auto", "where networks are trained and timed", options=("auto", "cpu", "cuda"))
    objectives: list[str] = _key(["error", "latency_ms"], "two or more of error, latency_ms, macs, params")
    merge: str = _key(
        "macs",
        "merge runs of linear convolutions where that saves macs (params may rise), params or measured latency; "
        "or all that can be, or none",
        options=("none", "macs", "params", "all", "latency"),
    )
    weights: str | None = _key(None, "file of weights to start from (torchvision's, ours), for a space of one network")
    sampler: str = _key("tpe", "who proposes architectures: tpe, nsga2 or random")
    scheduler: str = _key("full", "full: every trial trains all its epochs", options=("full",))
    train: TrainConfig = field(default_factory=TrainConfig)
    latency: LatencyConfig = field(default_factory=LatencyConfig)
    constraints: ConstraintsConfig = field(default_factory=ConstraintsConfig)
    trials: TrialsConfig = field(default_factory=TrialsConfig)
    ray: RayConfig = field(default_factory=RayConfig)


@dataclass(frozen=True)
class TargetConfig:
    """What `nas.latency` measures for: images, and how networks run."""

    data: str = _key("digits", "data set whose images' shape and classes count, see nas.search")
    data_root: str = _key("~/.cache/nas-data/images", "where torchvision data sets lie, or are downloaded to")
    input: str | None = _key(None, "shape of the images instead of a data set's, e.g. 3x32x32")
    classes: int = _key(10, "classes, where `input` is given", low=1, high=1_000_000)
    merge: str = _key(
        "macs", "how runs of linear convolutions are merged", options=("none", "macs", "params", "all", "latency")
    )
    seed: int = _key(0, "seed of sampling", low=0, high=2**31 - 1)
    latency: LatencyConfig = field(default_factory=LatencyConfig)


@dataclass(frozen=True)
class CalibrateConfig(TargetConfig):
    """`python -m nas.latency calibrate`: how a device is calibrated."""

    space: str = _key("mobile", "search space whose networks are measured")
    networks: int = _key(300, "networks that are measured to fit the predictor", low=5, high=100_000)
    held_out: int = _key(60, "networks more, measured twice, to judge it", low=5, high=100_000)
    out: str | None = _key(None, "calibration file; default: runs/.latency/calibration-SPACE.json")


@dataclass(frozen=True)
class LayersConfig(TargetConfig):
    """`python -m nas.latency layers`: of which networks the layers are measured one by one."""

    space: str = _key("tiny", "search space whose networks' layers are measured")
    networks: int = _key(20, "networks whose layers are measured, each layer once", low=1, high=100_000)
    out: str = _key("layers.csv", "table for latency.backend=table; a file of that name is replaced")


@dataclass(frozen=True)
class MeasureConfig(TargetConfig):
    """`python -m nas.latency measure`: which network is measured."""

    arch: str | None = _key(None, "architecture.json, a network of zoo/, or a space of which a sample is taken")
    backends: list[str] = _key([], "runtimes; default: all that are installed")


def leaves(config: Any, prefix: str = "") -> dict[str, tuple[dataclasses.Field[Any], Any]]:
    """Every setting by its dotted key: its field and its value."""
    found: dict[str, tuple[dataclasses.Field[Any], Any]] = {}
    for each in dataclasses.fields(config):
        value = getattr(config, each.name)
        if dataclasses.is_dataclass(value):
            found |= leaves(value, f"{prefix}{each.name}.")
        else:
            found[prefix + each.name] = (each, value)
    return found


def validate(config: Any, prefix: str = "") -> None:
    """Holds every setting against its limits; `prefix` is that of its keys in a message.

    Raises:
        ValueError: a value out of range; the message names key, value and what is allowed.
    """
    for key, (each, value) in leaves(config, prefix).items():
        allowed = allowed_values(each)
        if value is None or allowed is None:
            continue
        limits = each.metadata
        if "options" in limits:
            fine = value in limits["options"]
        else:
            low, high, above = (
                limits.get("low", float("-inf")),
                limits.get("high", float("inf")),
                limits.get("above"),
            )
            fine = low <= value <= high and (above is None or value > above)
        if not fine:
            raise ValueError(f"{key}={value} is not allowed; allowed: {allowed}")


def allowed_values(each: dataclasses.Field[Any]) -> str | None:
    """The limits of a setting in words, or None where it has none."""
    limits = each.metadata
    if "options" in limits:
        return "one of " + ", ".join(limits["options"])
    if "above" in limits:
        return f"above {limits['above']}" + (f", at most {limits['high']:,}" if "high" in limits else "")
    if "low" in limits:
        return f"{limits['low']:,} to {limits['high']:,}"
    return None


def user_path(key: str, text: str | Path) -> Path:
    """The path that a person wrote, `~` resolved.

    Raises:
        ValueError: the home of an unknown user, or nothing at all.
    """
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{key}={text} is not allowed: {error}") from None
    if not str(text):
        raise ValueError(f"{key} is empty; allowed: a path")
    return path


def first_line(error: Exception) -> str:
    """The first line of an error's text, or its type where it has none; without the path, which the reader is told."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).splitlines() or [type(error).__name__])[0]


def seconds(key: str, text: str | None) -> float | None:
    """The seconds of a duration such as `90s`, `10m`, `2h`, `1d` or `45` (seconds).

    Raises:
        ValueError: anything else, or not above 0.
    """
    if text is None:
        return None
    units = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    number, unit = (text[:-1], units[text[-1]]) if text and text[-1] in units else (text, 1.0)
    try:
        value = float(number) * unit
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ValueError(f"{key}={text} is not allowed; allowed: a time such as 90s, 10m, 2h or 1d")
    return value

"""Every setting of a search, with type, default, unit and meaning: the one source of truth.

The command line, YAML files, `nas.run_search(...)` and `--help` all read these dataclasses; the reading
itself is in `nas.command_line`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from nas.config_fields import key
from nas.recipes import TrainOverrides


@dataclass(frozen=True)
class DataConfig:
    """How images are read; its keys stand beside the key `data`, which is the data set's name."""

    image_size: int | None = key(
        None,
        "side that all images of a data set are resized to, their ratio not kept; default: as they are; those of a "
        "folder: the most common size, at most 224x224",
        "pixels",
        low=1,
        high=4096,
    )
    workers: int | None = key(
        None,
        "processes that read images which do not fit into memory; default: on the CPU none, since its cores train; "
        "4 for a GPU",
        low=0,
        high=256,
    )
    resident_gb: float = key(4.0, "larger data sets are read from disk anew in every epoch", "GB", low=0, high=100_000)


@dataclass(frozen=True)
class LatencyConfig:
    """How the latency of a fused network is measured."""

    backend: str = key(
        "auto",
        "runtime that is timed; auto: onnxruntime on the CPU, torch on CUDA",
        options=("auto", "torch", "torch_compile", "onnxruntime", "openvino", "executorch", "tensorrt", "table"),
    )
    device: str = key(
        "auto", "where latencies are measured; auto: where networks are trained", options=("auto", "cpu", "cuda")
    )
    batch_size: int = key(1, "images of a batch", low=1, high=100_000)
    threads: int = key(1, "CPU threads of the runtime, at most the machine's cores", low=1, high=1024)
    dtype: str = key("float32", "int8: statically quantized, accuracy included", options=("float32", "int8"))
    memory_format: str = key("auto", "of torch; auto: the faster one", options=("auto", "contiguous", "channels_last"))
    tolerance: float = key(0.02, "half the 95 % interval over the median that is good enough", above=0, high=1)
    limit_s: float = key(
        3.0, "longest time of a measurement; what is not good enough then is flagged", "s", above=0, high=3600
    )
    cuda_graphs: bool = key(True, "torch on CUDA: replay a graph")
    flush_l2: bool = key(False, "CUDA: empty the L2 cache between repeats")
    table: str | None = key(None, "for backend=table: latencies of another device, by layer (CSV)")
    calibration: str | None = key(None, "file of `nas.latency calibrate`, to predict what need not be measured")


@dataclass(frozen=True)
class ConstraintsConfig:
    """Upper limits; what breaks one is never trained."""

    latency_ms: float | None = key(None, "highest latency of the fused network", "ms", above=0)
    params: float | None = key(None, "most parameters of the fused network", above=0)
    macs: float | None = key(None, "most multiply-adds of the fused network", above=0)
    peak_memory_mb: float | None = key(
        None, "most memory of the fused network at once, for a batch of latency.batch_size", "MB", above=0
    )


@dataclass(frozen=True)
class LimitsConfig:
    """What is refused before anything of it is built: files of other people may ask for more than memory holds."""

    params: int = key(
        1_000_000_000, "most parameters that a network may have, fused or while it trains", low=1, high=10**15
    )
    depth: int = key(1000, "most blocks that a network may have", "blocks", low=1, high=100_000)


@dataclass(frozen=True)
class TrialsConfig:
    """How trials share the machine."""

    concurrent: int | None = key(None, "trials at a time; default: as many as fit", low=1, high=10_000)
    cpus: float = key(1.0, "CPU cores of a trial", above=0, high=10_000)
    gpus: float | None = key(None, "GPUs of a trial; default: 1 with device=cuda, else 0", low=0, high=64)
    timeout: str | None = key(None, "longest time of a trial, e.g. 90s or 10m; a longer one fails", "time")
    retries: int = key(
        1,
        "times that a trial (or a call of several) whose worker was lost continues from its last checkpoint",
        low=0,
        high=1000,
    )
    per_call: int = key(
        1,
        "trials that a worker is given at a time; more than one pays where a trial takes less than some tenths of a "
        "second, and all of them are proposed at once",
        "trials",
        low=1,
        high=10_000,
    )
    executor: str = key("ray", "ray, or inline: one by one in this process", options=("ray", "inline"))


@dataclass(frozen=True)
class AshaConfig:
    """Of `scheduler=mo_asha`: short trainings of all trials, longer ones of the best."""

    reduction: int = key(
        3, "a rung has so many times the epochs of the one before, for one in so many", low=2, high=100
    )
    rungs: int = key(3, "trainings of a trial that gets all its epochs, each from the beginning", low=2, high=20)


@dataclass(frozen=True)
class StopConfig:
    """When a search ends before its budget is used up."""

    hypervolume_patience: int | None = key(
        None, "trials in a row that may leave the front's hypervolume as it was", "trials", low=1, high=10_000_000
    )


@dataclass(frozen=True)
class RayConfig:
    """Which Ray runs the trials."""

    address: str | None = key(None, "address of a running cluster; default: one is started here")
    dashboard: bool | None = key(None, "start Ray's dashboard, on 127.0.0.1; default: in an interactive terminal")


@dataclass(frozen=True)
class SourceConfig:
    """Which images."""

    data: str = key(
        "digits", "data set's name, a folder (one folder of images a class, or that in train/ val/ test/), or an .npz"
    )
    data_root: str = key("~/.cache/nas-data/images", "where torchvision data sets lie, or are downloaded to")
    data_options: DataConfig = field(default_factory=DataConfig, metadata={"key": "data"})
    plugins: list[str] = key([], "modules that are imported first, and may add to the registries (data sets, blocks)")


@dataclass(frozen=True)
class JobConfig(SourceConfig):
    """What single trainings and searches have in common."""

    val_share: float = key(0.25, "share of the training images that is held out for validation", low=0.01, high=0.9)
    metric: str = key(
        "accuracy", "what accuracy and error are taken of", options=("accuracy", "balanced_accuracy", "macro_f1")
    )
    seed: int = key(0, "seed of sampling, splitting and training", low=0, high=2**31 - 1)
    device: str = key("auto", "where networks are trained and timed", options=("auto", "cpu", "cuda"))
    merge: str = key(
        "macs",
        "merge runs of linear convolutions where that saves macs (params may rise), params or measured latency; "
        "or all that can be, or none",
        options=("none", "macs", "params", "all", "latency"),
    )
    weights: str | None = key(None, "file of weights to start from (torchvision's, ours), for a space of one network")
    train: TrainOverrides = field(default_factory=TrainOverrides)
    latency: LatencyConfig = field(default_factory=LatencyConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)


@dataclass(frozen=True)
class TrainCommandConfig(JobConfig):
    """`python -m nas.train`: which network is trained, and where it is left."""

    arch: str | None = key(
        None,
        "architecture.json, a network of zoo/, RUN:TRIAL of a run, or a space of which a sample is taken (by seed)",
    )
    out: str | None = key(None, "folder of the trained network; default: runs/train-NAME-DATA-SEED")
    threads: int | None = key(None, "CPU threads; default: all cores", low=1, high=1024)


@dataclass(frozen=True)
class SearchConfig(JobConfig):
    """A search: what is searched, on which data, for what, and with which means."""

    space: str = key("mobile", "search space: a shipped one's name or the path of a YAML file")
    budget: int = key(100, "trials that are trained", "trials", low=1, high=10_000_000)
    budget_epochs: int | None = key(
        None, "epochs of all trainings together, after which none is begun", "epochs", low=1, high=10_000_000_000
    )
    run: str | None = key(None, "name of the run; default: a time stamp")
    runs_dir: str = key("runs", "folder of all runs")
    time_budget: str | None = key(None, "time after which no trial is begun or waited for, e.g. 2h, 30m", "time")
    resume: bool = key(False, "continue the run of this name")
    log: list[str] = key(
        [],
        "where else each trial's metrics go: tensorboard (event files in runs/NAME/tensorboard), mlflow (one MLflow "
        "run a search, at MLFLOW_TRACKING_URI)",
    )
    objectives: list[str] = key(
        ["error", "latency_ms"], "two or more of error, latency_ms, macs, params, peak_memory_mb"
    )
    sampler: str = key(
        "exact_cost",
        "who proposes architectures: exact_cost (costs are known beforehand, it learns only the error), or Optuna's "
        "tpe, nsga2, nsga3, gp, random or qmc",
    )
    warm_start: list[str] = key(
        [], "earlier runs on the same data (names or paths), whose accuracies the sampler learns from"
    )
    zoo_first: bool = key(False, "judge first the published networks that the space contains")
    scheduler: str = key(
        "full",
        "full: every trial trains all its epochs; mo_asha: all train a few, the best of them more",
        options=("full", "mo_asha"),
    )
    mo_asha: AshaConfig = field(default_factory=AshaConfig)
    stop: StopConfig = field(default_factory=StopConfig)
    constraints: ConstraintsConfig = field(default_factory=ConstraintsConfig)
    trials: TrialsConfig = field(default_factory=TrialsConfig)
    ray: RayConfig = field(default_factory=RayConfig)


@dataclass(frozen=True)
class TableConfig:
    """Latencies of single layers."""

    table: str | None = key(None, "latencies of layers (CSV of `nas.latency layers`), for each layer's share")


@dataclass(frozen=True)
class DescribeConfig:
    """`python -m nas.describe`: which network is shown, for which images."""

    arch: str | None = key(
        None,
        "architecture.json or the folder of an exported model, a network of zoo/, RUN:TRIAL of a run, or a space of "
        "which a sample is taken (by seed)",
    )
    input: str | None = key(
        None, "shape of the images; default: as the run, the model or the file in zoo/ says, else 3x224x224"
    )
    classes: int | None = key(None, "number of logits; default: likewise, else 1000", low=1, high=1_000_000)
    merge: str | None = key(
        None,
        "merge runs of linear convolutions of the deploy form where that saves macs or params, all that can be, or "
        "none; default: as the trial was merged, else none",
        options=("none", "macs", "params", "all"),
    )
    seed: int = key(0, "seed of the sample", low=0, high=2**31 - 1)
    csv: str | None = key(None, "file for the table, with every figure of both forms; one of that name is replaced")
    plugins: list[str] = key([], "modules that are imported first, and may add blocks")
    latency: TableConfig = field(default_factory=TableConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)


def image_shape(text: str) -> tuple[int, int, int]:
    """The (C, H, W) that a person wrote as CxHxW.

    Raises:
        ValueError: anything else.
    """
    sizes = text.lower().split("x")
    if len(sizes) != 3 or not all(re.fullmatch("[1-9][0-9]{0,4}", size) for size in sizes):
        raise ValueError(f"input={text} is not allowed; allowed: CxHxW, e.g. 3x32x32, each at most 99999")
    channels, height, width = map(int, sizes)
    return channels, height, width


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


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type where it has none; without the path, which the reader is told."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).splitlines() or [type(error).__name__])[0]


def one_line(error: BaseException, longest: int = 500) -> str:
    """An error's whole text in one line, for those that say what matters below the first one."""
    return " ".join(str(error).split())[:longest] or type(error).__name__


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

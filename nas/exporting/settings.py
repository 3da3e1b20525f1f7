"""What `python -m nas.export` takes. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from nas.config import LimitsConfig
from nas.config_fields import key

FORMAT_NAMES = ("onnx", "pt2", "safetensors", "onnx_int8", "openvino", "executorch")


@dataclass(frozen=True)
class FinalConfig:
    """A longer training of what was chosen, on training and validation images together, before it is exported."""

    epochs: int | None = key(
        None, "epochs; default: what the search trained is exported", "epochs", low=1, high=100_000
    )
    seeds: int = key(
        3, "such trainings: mean and spread of their test accuracy are told, the first is exported", low=1, high=100
    )


@dataclass(frozen=True)
class ExportConfig:
    """`python -m nas.export`: which networks of a run become which files."""

    run: str = key("latest", "name or folder of a run")
    runs_dir: str = key("runs", "folder of all runs")
    trial: str = key("best", "best, knee or fastest of the front, all of it, or a trial's number")
    out: str | None = key(None, "folder of the files; default: RUN/exports/TRIAL. With trial=all, one in it for each")
    formats: list[str] = key(["onnx", "pt2", "safetensors"], f"of {', '.join(FORMAT_NAMES)}")
    threads: int | None = key(None, "CPU threads of final trainings; default: all cores", low=1, high=1024)
    plugins: list[str] = key([], "modules that are imported first: those of the run")
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    final: FinalConfig = field(default_factory=FinalConfig)

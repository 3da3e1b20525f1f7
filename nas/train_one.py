"""Training one architecture: through the same spine as a trial of a search, its files left in a folder."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import nn

from nas.architecture import Architecture
from nas.config import TrainCommandConfig, user_path
from nas.deploy import Model, export_model
from nas.job import Job, make_job
from nas.latency.meter import Meter
from nas.networks.merging import MergePlan
from nas.pipeline import Known, judge
from nas.plugins import import_plugins
from nas.trained import architecture_named
from nas.training.allocator import keep_freed_memory
from nas.training.checkpoint import Checkpoint
from nas.trial import EpochEnded, Event, Proposed, TrialRecord, TrialState, records_of

# What is printed of metrics.json, and how.
TOLD = {
    "val_accuracy": ".4f",
    "test_accuracy": ".4f",
    "train_s": ".1f",
    "params": ",",
    "macs": ",",
    "latency_ms": ".4f",
}


class TrainingFailed(RuntimeError):
    """The training ended without a network; the message says why."""


@dataclasses.dataclass
class _Kept:
    """What the trial kept: the trained network, its fused and merged form, and how that was merged."""

    networks: tuple[nn.Module, nn.Module, MergePlan] | None = None

    def __call__(self, trained: nn.Module, deployed: nn.Module, merges: MergePlan) -> None:
        self.networks = (trained, deployed, merges)


def train_one(config: TrainCommandConfig, verbose: bool = True) -> dict[str, Any]:
    """Trains the architecture of a configuration, evaluates the fused network on test data, and writes its files.

    Args:
        config: what is trained, on which data, how, and where its files go.
        verbose: show progress, and print the figures.

    Returns:
        What metrics.json holds.

    Raises:
        ValueError: bad input; nothing has been written then.
        TrainingFailed: the loss is not finite, or what else ends a trial without a network.
    """
    import_plugins(config.plugins)
    if config.arch is None:
        raise ValueError("arch is missing; allowed: architecture.json, zoo/NAME, RUN:TRIAL or a search space")
    arch = architecture_named(config.arch, config.seed)
    job = make_job(config)
    job.build(arch)  # refuses what cannot be, before anything is written
    out = _out(config, job)
    keep_freed_memory()
    before = torch.get_num_threads()
    torch.set_num_threads(config.threads or os.cpu_count() or 1)
    try:
        return _trained(arch, job.on_device(), out, Console(quiet=not verbose))
    finally:
        torch.set_num_threads(before)


def _trained(arch: Architecture, job: Job, out: Path, console: Console) -> dict[str, Any]:
    meter, kept = job.meter(), _Kept()
    where = job.conditions(meter.instrument())
    counts = ", ".join(f"{len(getattr(job.data, part)):,} {part}" for part in ("train", "validation", "test"))
    shape = "x".join(map(str, job.data.input_shape))
    console.print(f"data {job.data.name}: {job.data.num_classes} classes, {shape}; {counts} images", highlight=False)
    record = _judged(arch, job, meter, kept, Checkpoint(out / "checkpoint.safetensors", _every), console)
    if record.state is not TrialState.COMPLETED or kept.networks is None:
        raise TrainingFailed(f"the training {record.state.value}: {record.reason}")
    trained, deployed, merges = kept.networks
    with meter.lane.working():
        accuracy = job.judged(deployed, job.data.test.to(job.device), meter.lane.breathe)
    metrics = job.metrics(dataclasses.replace(record, test_accuracy=accuracy), where)
    deployed = deployed.cpu()
    model = Model(arch, deployed, job.shipped(deployed), merges, job.data, metrics, trained)
    export_model(model, out)
    if job.metric != "accuracy":
        console.print(f"accuracy below is the {job.metric.replace('_', ' ')}", highlight=False)
    for name, digits in TOLD.items():
        console.print(f"{name:14} {metrics[name]:{digits}}", highlight=False)
    console.print(f"Files: {out}  (model.onnx, model.safetensors, train.safetensors, metrics.json)", highlight=False)
    return metrics


def _judged(
    arch: Architecture, job: Job, meter: Meter, kept: _Kept, checkpoint: Checkpoint, console: Console
) -> TrialRecord:
    """The record of the one trial, its epochs shown as they go by."""
    epochs = job.recipe(arch).epochs
    columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TextColumn("epochs"))
    times = (TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[doing]}"))
    events: list[Event] = [Proposed(0, arch.to_dict(), arch.arch_id, arch.deploy_id, {})]
    with Progress(*columns, *times, console=console, disable=not console.is_terminal or console.quiet) as bar:
        task = bar.add_task("training", total=epochs, doing="measuring")
        for event in judge(0, arch, job, Known(), kept, meter, checkpoint):
            events.append(event)
            if isinstance(event, EpochEnded):
                bar.update(task, completed=event.epochs, doing=f"loss {event.loss:.4f}")
                if not bar.disable:
                    continue
                console.print(f"epoch {event.epochs} of {epochs}: loss {event.loss:.4f}", highlight=False)
    (record,) = records_of(events)
    return record


def _every(epochs: int) -> range:
    """One training alone is written down after every epoch."""
    return range(1, epochs)


def _out(config: TrainCommandConfig, job: Job) -> Path:
    """The folder that the files go to.

    Raises:
        ValueError: it holds something else than an unfinished training, or cannot be made.
    """
    assert config.arch is not None
    name = f"train-{Path(config.arch).stem}-{Path(job.data.name).stem}-{config.seed}".replace(":", "-")
    out = user_path("out", config.out or Path("runs") / name).absolute()
    allowed = {"checkpoint.safetensors"}
    try:
        if out.exists() and {each.name for each in out.iterdir() if not each.name.endswith(".tmp")} - allowed:
            raise ValueError(
                f"out={out} exists and is not empty; allowed: a new folder, or one of an unfinished training"
            )
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"out={out} cannot be made: {error}") from None
    return out

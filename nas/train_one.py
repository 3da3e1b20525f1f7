"""Training one architecture: through the same spine as a trial of a search, its files left in a folder."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import nn

from nas.architecture import Architecture
from nas.command_line import Failed
from nas.config import TrainCommandConfig, first_line, user_path
from nas.cores import cores
from nas.deploy import Model, write_model
from nas.job import Job, check_recipe, make_job
from nas.latency.meter import Meter
from nas.networks.merging import MergePlan
from nas.pipeline import Known, judge
from nas.plugins import import_plugins
from nas.trained import architecture_named, with_anchored_teacher
from nas.training.allocator import keep_freed_memory
from nas.training.checkpoint import Checkpoint
from nas.training.failures import Diverged
from nas.trial import EpochEnded, Event, Proposed, TrialRecord, TrialState, records_of

# What is printed of metrics.json, and how.
TOLD = {
    "val_accuracy": ".4f",
    "test_accuracy": ".4f",
    "train_s": ".1f",
    "params": ",",
    "macs": ",",
    "peak_memory_mb": ".4g",
    "latency_ms": ".4f",
}


CHECKPOINT, METRICS = "checkpoint.safetensors", "metrics.json"


class TrainingFailed(Failed):
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
    if config.latency.calibration:
        raise ValueError(f"latency.calibration={config.latency.calibration} is not allowed: the network is measured")
    arch = architecture_named(config.arch, config.seed)
    config = dataclasses.replace(config, train=with_anchored_teacher(config.train))
    job = make_job(config)
    job.build(arch)  # refuses what cannot be, before anything is written
    check_recipe(job.recipe(arch), job.data, job.device)
    out = _out(config, arch, job)
    keep_freed_memory()
    before = torch.get_num_threads()
    torch.set_num_threads(config.threads or cores())
    try:
        return _trained(
            arch, job.on_device(), out, Console(quiet=not verbose, markup=False, soft_wrap=True, highlight=False)
        )
    finally:
        torch.set_num_threads(before)


def _trained(arch: Architecture, job: Job, out: Path, console: Console) -> dict[str, Any]:
    meter, kept, checkpoint = job.meter(), _Kept(), Checkpoint(out / CHECKPOINT, _every)
    where = job.conditions(meter.instrument())
    console.print(job.data.summary())
    try:
        record = _judged(arch, job, meter, kept, checkpoint, console)
    except KeyboardInterrupt:
        if checkpoint.identity() is not None:
            console.print(f"The same command goes on where this training was: {checkpoint.file}")
        raise
    if record.reason.startswith("diverged"):
        checkpoint.discard()  # it would diverge again
    if record.state is not TrialState.COMPLETED or kept.networks is None:
        raise TrainingFailed(f"the training {record.state.value}: {record.reason}")
    trained, deployed, merges = kept.networks
    with meter.lane.working():
        try:
            test = job.data.test.to(job.device)
            accuracy = job.judged(deployed, test, meter.lane.breathe) if len(test) else None
        except Diverged as error:
            raise TrainingFailed(f"the training {error}") from None
    metrics = job.metrics(dataclasses.replace(record, test_accuracy=accuracy), where)
    deployed = deployed.cpu()
    _write(Model(arch, deployed, job.shipped(deployed), merges, job.data, metrics, trained), out)
    checkpoint.discard()
    if job.metric != "accuracy":
        console.print(f"accuracy below is the {job.metric.replace('_', ' ')}")
    for name, digits in TOLD.items():
        if metrics[name] is not None:
            console.print(f"{name:14} {metrics[name]:{digits}}")
    console.print(f"Files: {out}  (model.onnx, model.safetensors, train.safetensors, metrics.json)")
    return metrics


def _write(model: Model, out: Path) -> None:
    """Leaves a model's files in `out`, metrics.json last; what was trained is kept even where ONNX fails.

    Raises:
        TrainingFailed: the ONNX file could not be made, or is not the network.
    """
    draft = out / ".model.tmp"  # within, since `out` itself may be a mounted disk or a link
    shutil.rmtree(draft, ignore_errors=True)
    try:
        write_model(model, draft)
    except Exception as error:  # whatever an exporter or a runtime raises
        (draft / "model.onnx").unlink(missing_ok=True)
        raise TrainingFailed(
            f"the network was trained, and is in {out}, but not as ONNX: {first_line(error)}"
        ) from None
    finally:
        if draft.exists():
            for file in sorted(draft.iterdir(), key=lambda file: file.name == METRICS):
                file.replace(out / file.name)
            draft.rmdir()


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
                console.print(f"epoch {event.epochs} of {epochs}: loss {event.loss:.4f}")
    (record,) = records_of(events)
    return record


def _every(epochs: int) -> range:
    """One training alone is written down after every epoch."""
    return range(1, epochs)


def _out(config: TrainCommandConfig, arch: Architecture, job: Job) -> Path:
    """The folder that the files go to, which is not made yet.

    Raises:
        ValueError: it holds something else than this training, unfinished, or cannot be written to.
    """
    assert config.arch is not None
    name = arch.arch_id if Path(config.arch).stem == "architecture" else Path(config.arch).stem
    default = f"train-{name}-{Path(job.data.name).stem}-{config.seed}".replace(":", "-")
    out = user_path("out", config.out or Path("runs") / default).resolve()
    try:
        held = {each.name for each in out.iterdir()} if out.exists() else set()
        home = next(folder for folder in (out, *out.parents) if folder.exists())
    except OSError as error:
        raise ValueError(f"out={out} cannot be made: {first_line(error)}") from None
    if not (home.is_dir() and os.access(home, os.W_OK)):
        raise ValueError(f"out={out}: {home} is not a folder that can be written to")
    if held - {CHECKPOINT, ".model.tmp"}:
        raise ValueError(f"out={out} is not empty; allowed: a new folder, or that of an unfinished training")
    begun, now = Checkpoint(out / CHECKPOINT).identity(), job.identity(arch)
    if begun is not None and begun != now:
        differing = ", ".join(_differing(begun, now))
        raise ValueError(
            f"out={out} holds an unfinished training with other settings ({differing}); allowed: those, or a new folder"
        )
    return out


def _differing(begun: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs between two identities, by name."""
    recipes = [each.get("recipe", {}) for each in (begun, now)]
    names = [name for name in now if name != "recipe" and begun.get(name) != now[name]]
    return names + [f"train.{name}" for name in recipes[1] if recipes[0].get(name) != recipes[1][name]]

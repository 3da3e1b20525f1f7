"""The spine: one architecture in, events out.

    build the deploy form -> plan its mergers -> price it -> stop here if it breaks a constraint
      -> build the train form -> train -> fuse -> merge by the plan -> evaluate what ships

The cost is read from the deploy form before there is anything to train, and the accuracy from the deploy form
after training: what is reported is what is shipped. This module knows neither Ray nor files.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from nas.architecture import Architecture
from nas.config import LatencyConfig, TrainConfig, first_line
from nas.cost import count
from nas.data import ImageData
from nas.latency.measure import measure
from nas.latency.memory import RememberedLatency
from nas.networks.builder import build
from nas.networks.fusing import fuse
from nas.networks.merging import MergePlan, apply_merges, merge_plan
from nas.networks.weights import load_weights
from nas.objectives import Constraint
from nas.training import Diverged, TimedOut, deadline, evaluate, train
from nas.trial import Cost, Ended, EpochEnded, Event, Priced, Rung, Started, TrialState


@dataclass(frozen=True)
class Job:
    """What all trials of a search have in common.

    Attributes:
        data: the images.
        train: the recipe.
        latency: how latency is measured.
        constraints: upper limits on costs.
        device: "cpu" or "cuda".
        seed: of the search; with an architecture's id it decides the seed of its training.
        merge: what runs of linear convolutions are merged to save (`MERGE_COSTS`).
        timeout_s: longest time of a trial, seconds.
        weights: file of weights that trainings start from.
    """

    data: ImageData
    train: TrainConfig
    latency: LatencyConfig
    constraints: tuple[Constraint, ...]
    device: str
    seed: int
    merge: str
    timeout_s: float | None = None
    weights: Path | None = None

    def build(self, arch: Architecture) -> nn.Module:
        """The train form of an architecture for this job's images, on its device, as its training begins.

        Raises:
            ValueError: `weights` does not fit.
        """
        torch.manual_seed(training_seed(self.seed, arch))
        network = build(arch, num_classes=self.data.num_classes, input_shape=self.data.input_shape, form="train")
        if self.weights is not None:
            load_weights(network, self.weights)
        return network.to(self.device)

    def on_device(self) -> Job:
        """The same job with the images that trials use on its device; test images stay where they are."""
        train, validation = self.data.train.to(self.device), self.data.validation.to(self.device)
        return replace(self, data=replace(self.data, train=train, validation=validation))


def judge(
    trial: int,
    arch: Architecture,
    job: Job,
    remembered: RememberedLatency | None,
    keep: Callable[[nn.Module, MergePlan], None],
) -> Generator[Event, None, None]:
    """Judges one architecture; the last event is always an `Ended`.

    Args:
        trial: the trial's number.
        arch: what to judge.
        job: data, recipe and limits.
        remembered: the latency of this deploy form, if it was measured before.
        keep: is given the fused network when it has been evaluated, and how it was merged.
    """
    try:
        yield from _judge(trial, arch, job, remembered, keep)
    except (Diverged, TimedOut) as error:
        yield Ended(trial, TrialState.FAILED, str(error))
    except Exception as error:  # one trial's error must not end the search: it is recorded, with its reason
        yield Ended(trial, TrialState.FAILED, f"{type(error).__name__}: {first_line(error)}")


def _judge(
    trial: int,
    arch: Architecture,
    job: Job,
    remembered: RememberedLatency | None,
    keep: Callable[[nn.Module, MergePlan], None],
) -> Generator[Event, None, None]:
    check_time = deadline(job.timeout_s)
    shipped, merges = deploy_form(arch, job)
    cost = price(shipped, job, remembered)
    yield Priced(trial, cost.params, cost.macs, cost.latency_ms, cost.latency_iqr_ms, remembered is not None)
    broken = broken_constraint(cost, job.constraints)
    if broken:
        yield Ended(trial, TrialState.INFEASIBLE, broken)
        return

    network = job.build(arch)
    yield Started(trial, sum(parameter.numel() for parameter in network.parameters()))
    start, loss, epochs = time.perf_counter(), float("nan"), 0
    try:
        for epoch in train(network, job.data, job.train, training_seed(job.seed, arch), check_time):
            loss, epochs = epoch.loss, epoch.number
            yield EpochEnded(trial, epochs, loss)
    except (Diverged, TimedOut) as error:
        yield Ended(trial, TrialState.FAILED, str(error), None, epochs, time.perf_counter() - start)
        return
    train_s = time.perf_counter() - start

    deployed = apply_merges(fuse(network), merges)
    accuracy = evaluate(deployed, job.data, job.data.validation)
    yield Rung(trial, epochs, accuracy, loss)
    keep(deployed, merges)
    yield Ended(trial, TrialState.COMPLETED, "", accuracy, epochs, train_s)


def deploy_form(arch: Architecture, job: Job) -> tuple[nn.Module, MergePlan]:
    """What will ship of an architecture, built directly, and how it is merged: nothing needs to be trained for it."""
    data = job.data
    deployed = build(arch, num_classes=data.num_classes, input_shape=data.input_shape, form="deploy")
    merges = merge_plan(deployed, job.merge)
    return apply_merges(deployed, merges), merges


def price(deployed: nn.Module, job: Job, remembered: RememberedLatency | None) -> Cost:
    """The cost of what ships."""
    params, macs = count(deployed, job.data.input_shape)
    latency = remembered or measure_latency(deployed, job)
    return Cost(params, macs, latency.median_ms, latency.iqr_ms)


def measure_latency(deployed: nn.Module, job: Job) -> RememberedLatency:
    """The latency of a fused network as the job wants it measured."""
    measured = measure(
        deployed,
        job.data.input_shape,
        backend=job.latency.backend,
        batch_size=job.latency.batch_size,
        threads=job.latency.threads,
        device=job.device,
    )
    return RememberedLatency(measured.median_ms, measured.iqr_ms)


def broken_constraint(cost: Cost, constraints: tuple[Constraint, ...]) -> str | None:
    """The first constraint that a cost breaks, in one line, or None."""
    costs = cost.by_name()
    return next((broken for each in constraints if (broken := each.broken_by(costs))), None)


def training_seed(seed: int, arch: Architecture) -> int:
    """The seed of an architecture's training: the same in every run of one search seed, whatever its number."""
    return (seed * 1_000_003 + int(arch.arch_id, 16)) % 2**31

"""The spine: one architecture in, events out.

    build the deploy form -> plan its mergers -> price it (remembered, predicted, measured)
      -> stop here if it breaks a constraint
      -> build the train form -> train -> fuse -> merge by the plan -> quantize, if asked -> evaluate what ships

The cost is read from the deploy form before there is anything to train, and the accuracy from the deploy form
after training: what is reported is what is shipped. This module knows neither Ray nor files.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from nas.architecture import Architecture
from nas.config import LatencyConfig, first_line
from nas.cost import count
from nas.data import ImageData
from nas.latency.conditions import Conditions, Instrument, conditions
from nas.latency.lane import Lane
from nas.latency.machine import device_named, lane_of
from nas.latency.meter import MeasuringNode, Merged, Meter, reading_of
from nas.networks.builder import build
from nas.networks.fusing import fuse
from nas.networks.merging import MergePlan, apply_merges
from nas.networks.quantized import quantize
from nas.networks.weights import load_weights
from nas.objectives import Constraint
from nas.reading import Cost, Reading, reading_from_dict
from nas.recipes import TrainConfig, TrainOverrides, make_recipe
from nas.training import Diverged, TimedOut, deadline, evaluate, train
from nas.trial import Ended, EpochEnded, Event, Priced, Rung, Started, TrialState

CALIBRATION_IMAGES = 256  # of the training data, for a quantized network's scales

Keep = Callable[[nn.Module, MergePlan], None]
Events = Generator[Event, None, None]


@dataclass(frozen=True)
class Job:
    """What all trials of a search have in common.

    Attributes:
        data: the images.
        train: what is given of the recipe.
        latency: how latency is measured.
        constraints: upper limits on costs.
        device: "cpu" or "cuda": where networks are trained.
        seed: of the search; with an architecture's id it decides the seed of its training.
        merge: what runs of linear convolutions are merged to save (`MERGE_COSTS`, or latency).
        timeout_s: longest time of a trial, seconds.
        weights: file of weights that trainings start from.
        timed_device: fingerprint of the device that latencies are of; None takes any.
    """

    data: ImageData
    train: TrainOverrides
    latency: LatencyConfig
    constraints: tuple[Constraint, ...]
    device: str
    seed: int
    merge: str
    timeout_s: float | None = None
    weights: Path | None = None
    timed_device: str | None = None

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

    def recipe(self, arch: Architecture) -> TrainConfig:
        """How an architecture is trained."""
        return make_recipe(self.data.kind, dict(arch.train), self.train)

    def on_device(self) -> Job:
        """The same job with the images that trials use on its device; test images stay where they are."""
        train, validation = self.data.train.to(self.device), self.data.validation.to(self.device)
        return replace(self, data=replace(self.data, train=train, validation=validation))

    def meter(self, node: MeasuringNode | None = None) -> Meter:
        """What measures for this job in this process, which takes part in the lanes of the devices that it loads.

        Args:
            node: measures instead of this machine; a table is read here all the same.

        Raises:
            ValueError: this machine is to measure on a device that it lacks.
        """
        node = None if self.latency.backend == "table" else node
        asked = self.device if self.latency.device == "auto" else self.latency.device
        lane = Lane("cpu", *([lane_of(device_named("cuda"))] if self.device == "cuda" else []))
        device = asked if node else device_named(asked)
        return Meter(self.latency, self.data.input_shape, device, lane, node, self.timed_device)

    def conditions(self, using: Instrument) -> Conditions:
        """Under which latencies of this job are measured."""
        return conditions(self.latency, using, self.data.input_shape, self.data.num_classes, self.merge)

    def shipped(self, deployed: nn.Module) -> nn.Module:
        """What runs on the device instead of a fused and merged network: itself, or its quantized form."""
        if self.latency.dtype != "int8":
            return deployed
        # From all over the training data, which may be in the order of its classes.
        every = max(1, len(self.data.train.x) // CALIBRATION_IMAGES)
        images = self.data.normalize(self.data.train.x[::every][:CALIBRATION_IMAGES])
        return quantize(deployed, images, self.latency.threads)


@dataclass(frozen=True)
class Known:
    """What is known of an architecture's latency before it is measured.

    Attributes:
        remembered: measured earlier, of the same deploy form in the same conditions.
        predicted: from other networks' measurements.
    """

    remembered: Reading | None = None
    predicted: Reading | None = None


def known_from_dict(words: dict[str, Any]) -> Known:
    """What `dataclasses.asdict` made words of."""
    return Known(**{name: None if each is None else reading_from_dict(each) for name, each in words.items()})


def judge(trial: int, arch: Architecture, job: Job, known: Known, keep: Keep, meter: Meter) -> Events:
    """Judges one architecture; the last event is always an `Ended`.

    While it works it is in the lanes of its devices, and between two events it is not.

    Args:
        trial: the trial's number.
        arch: what to judge.
        job: data, recipe and limits.
        known: what is known of its latency.
        keep: is given the fused network when it has been evaluated, and how it was merged.
        meter: measures for the job in this process.
    """
    settle = torch.cuda.synchronize if job.device == "cuda" else None
    events = _judge(trial, arch, job, known, keep, meter)
    while True:
        try:
            with meter.lane.working(settle):
                event = next(events)
        except StopIteration:
            return
        except (Diverged, TimedOut) as error:
            event = Ended(trial, TrialState.FAILED, str(error))
        except Exception as error:  # one trial's error must not end the search: it is recorded, with its reason
            event = Ended(trial, TrialState.FAILED, f"{type(error).__name__}: {first_line(error)}")
        yield event


def _judge(trial: int, arch: Architecture, job: Job, known: Known, keep: Keep, meter: Meter) -> Events:
    lane = meter.lane
    check_time = deadline(job.timeout_s, lambda: lane.waited_s)
    cost, shipped, spent_s = price(arch, job, known, meter)
    yield Priced(trial, cost.params, cost.macs, cost.latency, *spent_s)
    broken = broken_constraint(cost, job.constraints)
    if broken:
        yield Ended(trial, TrialState.INFEASIBLE, broken)
        return

    def between_steps() -> None:
        check_time()
        lane.breathe()

    network = job.build(arch)
    yield Started(trial, sum(parameter.numel() for parameter in network.parameters()))
    start, waited_s, loss, epochs = time.perf_counter(), lane.waited_s, float("nan"), 0

    def spent() -> tuple[float, float]:
        waited = lane.waited_s - waited_s
        return time.perf_counter() - start - waited, waited

    try:
        for epoch in train(network, job.data, job.recipe(arch), training_seed(job.seed, arch), between_steps):
            loss, epochs = epoch.loss, epoch.number
            yield EpochEnded(trial, epochs, loss)
    except (Diverged, TimedOut) as error:
        yield Ended(trial, TrialState.FAILED, str(error), None, epochs, *spent())
        return
    train_s, waiting_s = spent()

    deployed = apply_merges(fuse(network), shipped.plan)
    accuracy = evaluate(job.shipped(deployed), job.data, job.data.validation, between_batches=lane.breathe)
    yield Rung(trial, epochs, accuracy, loss)
    keep(deployed, shipped.plan)
    yield Ended(trial, TrialState.COMPLETED, "", accuracy, epochs, train_s, waiting_s)


class Price(NamedTuple):
    """What an architecture costs, the network that ships (untrained), and the seconds of preparing and measuring."""

    cost: Cost
    shipped: Merged
    spent_s: tuple[float, float] = (0.0, 0.0)


def price(arch: Architecture, job: Job, known: Known, meter: Meter) -> Price:
    """What an architecture costs as it will ship: nothing needs to be trained for it.

    A latency that is remembered is taken. What breaks a constraint even at the best that its prediction hopes for is
    not measured; with merge=latency it is priced as merged by MACs.
    """
    deployed = build(arch, num_classes=job.data.num_classes, input_shape=job.data.input_shape, form="deploy")
    shipped, remembered = _unmeasured(deployed, job, known, meter)
    size = count(shipped.network, job.data.input_shape)
    if remembered is not None:
        return Price(Cost(*size, remembered), shipped)
    predicted = known.predicted
    if predicted is not None and broken_constraint(Cost(*size, at_best(predicted)), job.constraints):
        return Price(Cost(*size, predicted), shipped)
    if job.merge == "latency":
        shipped = meter.merged(deployed, job.merge)
        size = count(shipped.network, job.data.input_shape)
    measured = shipped.measurement or meter.measure(shipped.network)[0]
    spent_s = (measured.prepare_s, measured.measure_s)
    return Price(Cost(*size, reading_of(measured, shipped.plan)), shipped, spent_s)


def at_best(reading: Reading) -> Reading:
    """A reading as if its median were the low end of its interval."""
    return replace(reading, median_ms=reading.low_ms)


def _unmeasured(deployed: nn.Module, job: Job, known: Known, meter: Meter) -> tuple[Merged, Reading | None]:
    """The network as it is merged before anything is measured, and its latency if that is remembered for these mergers.

    That is as it ships, but for merge=latency, where nothing is remembered: then by MACs.
    """
    reading = known.remembered
    if reading is not None and job.merge == "latency":
        with contextlib.suppress(ValueError):  # planned by other code, it may not fit: then all is measured anew
            plan = MergePlan(reading.merges)
            return Merged(apply_merges(deployed, plan), plan), reading
    merged = meter.merged(deployed, "macs" if job.merge == "latency" else job.merge)
    return (
        merged,
        reading if reading is not None and reading.merges == merged.plan.segments else None,
    )


def broken_constraint(cost: Cost, constraints: tuple[Constraint, ...]) -> str | None:
    """The first constraint that a cost breaks, in one line, or None."""
    costs = cost.by_name()
    return next((broken for each in constraints if (broken := each.broken_by(costs))), None)


def training_seed(seed: int, arch: Architecture) -> int:
    """The seed of an architecture's training: the same in every run of one search seed, whatever its number."""
    return (seed * 1_000_003 + int(arch.arch_id, 16)) % 2**31

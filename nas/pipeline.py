"""The spine: one architecture in, events out.

    build the deploy form -> plan its mergers -> price it (remembered, predicted, measured)
      -> stop here if it breaks a constraint
      -> build the train form -> train -> fuse -> merge by the plan -> quantize, if asked -> evaluate what ships

The cost is read from the deploy form before there is anything to train, and the accuracy from the deploy form
after training: what is reported is what is shipped. This module knows no Ray, and of files only that a training may be
written down in one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import nn

from nas.architecture import Architecture
from nas.config import first_line
from nas.cost import count
from nas.exhausted import out_of_memory, out_of_space
from nas.job import Job, training_seed
from nas.latency.lane import Lane
from nas.latency.meter import Merged, Meter, reading_of
from nas.limits import AboveLimits
from nas.networks.builder import build
from nas.networks.fusing import fuse
from nas.networks.merging import MergePlan, apply_merges
from nas.objectives import Constraint
from nas.reading import Cost, Reading, cost_at, reading_from_dict
from nas.training.checkpoint import Checkpoint, Progress, Stopwatch
from nas.training.failures import Diverged, TimedOut, deadline
from nas.training.loop import Training
from nas.trial import Ended, EpochEnded, Event, Priced, Rung, Started, TrialState

Keep = Callable[[nn.Module, nn.Module, MergePlan], None]
Events = Generator[Event, None, None]


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


def judge(
    trial: int,
    arch: Architecture,
    job: Job,
    known: Known,
    keep: Keep,
    meter: Meter,
    checkpoint: Checkpoint | None = None,
    rungs: Sequence[int] = (),
) -> Events:
    """Judges one architecture; the last event is always an `Ended`.

    A machine that runs out of space or memory is not the trial's fault: that error is raised (`nas.exhausted`).

    At each rung but the last its training has been a full one of fewer epochs. Who takes the events may leave it there.
    While it works it is in the lanes of its devices, and between two events it is not.

    Args:
        trial: the trial's number.
        arch: what to judge.
        job: data, recipe and limits.
        known: what is known of its latency.
        keep: is given the trained network when it has been evaluated, the fused one, and how that was merged.
        meter: measures for the job in this process.
        checkpoint: where its training is written down on the way, and continued from; None: nowhere.
        rungs: epochs of its trainings, one after another; by default one, of the recipe's.
    """
    settle = torch.cuda.synchronize if job.device == "cuda" else None
    events = _judge(trial, arch, job, known, keep, meter, checkpoint, rungs)
    while True:
        try:
            with meter.lane.working(settle):
                event = next(events)
        except StopIteration:
            return
        except (Diverged, TimedOut) as error:
            event = Ended(trial, TrialState.FAILED, str(error))
        except Exception as error:  # one trial's error must not end the search: it is recorded, with its reason
            if out_of_space(error) or out_of_memory(error):
                raise
            event = Ended(trial, TrialState.FAILED, f"{type(error).__name__}: {first_line(error)}")
        yield event


def _judge(
    trial: int,
    arch: Architecture,
    job: Job,
    known: Known,
    keep: Keep,
    meter: Meter,
    checkpoint: Checkpoint | None,
    rungs: Sequence[int],
) -> Events:
    lane = meter.lane
    check_time = deadline(job.timeout_s, lambda: lane.waited_s)
    try:
        job.check(arch)
    except AboveLimits as error:
        yield Ended(trial, TrialState.INFEASIBLE, str(error))
        return
    cost, shipped, spent_s = price(arch, job, known, meter)
    yield Priced(trial, cost.params, cost.macs, cost.latency, *spent_s, cost.peak_memory_mb)
    broken = broken_constraint(cost, job.constraints)
    if broken:
        yield Ended(trial, TrialState.INFEASIBLE, broken)
        return

    def between_steps() -> None:
        check_time()
        lane.breathe()

    trained = None
    for epochs in rungs or (job.recipe(arch).epochs,):
        trained = yield from _trained(trial, arch, job, epochs, shipped.plan, checkpoint, (lane, between_steps))
        if trained is None:
            return
    assert trained is not None
    keep(trained.network, trained.deployed, shipped.plan)
    rung = trained.rung
    yield Ended(trial, TrialState.COMPLETED, "", rung.accuracy, rung.epochs, rung.train_s, rung.waited_s)


class _Trained(NamedTuple):
    """A trained network, what ships of it, and what it was judged by."""

    network: nn.Module
    deployed: nn.Module
    rung: Rung


def _trained(
    trial: int,
    arch: Architecture,
    job: Job,
    epochs: int,
    plan: MergePlan,
    checkpoint: Checkpoint | None,
    pauses: tuple[Lane, Callable[[], None]],
) -> Generator[Event, None, _Trained | None]:
    """A whole training of so many epochs, from the beginning; None after an `Ended`, if it failed."""
    lane, between_steps = pauses
    network, seed = job.build(arch), training_seed(job.seed, arch)
    recipe, identity = replace(job.recipe(arch), epochs=epochs), job.identity(arch, epochs)
    training = Training(network, job.data, recipe, seed, between_steps, job.teacher)
    progress = checkpoint.restore(training, identity) if checkpoint else Progress()
    train_params, train_macs = count(network, job.data.input_shape)
    yield Started(trial, train_params, training.done, train_macs)
    watch = Stopwatch(lambda: lane.waited_s, progress)
    try:
        for epoch in training.epochs():
            progress = watch.read(epoch.loss)
            if checkpoint and epoch.number in checkpoint.at(epochs):
                checkpoint.save(training, identity, progress)
            yield EpochEnded(trial, epoch.number, epoch.loss)
    except (Diverged, TimedOut) as error:
        progress = watch.read(progress.loss)
        yield Ended(trial, TrialState.FAILED, str(error), None, training.done, progress.train_s, progress.waited_s)
        return None
    deployed = apply_merges(fuse(training.shipped), plan)
    accuracy = job.judged(deployed, job.data.validation, lane.breathe)
    rung = Rung(trial, epochs, accuracy, progress.loss, progress.train_s, progress.waited_s)
    yield rung
    return _Trained(training.shipped, deployed, rung)


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
    size = job.size(shipped.network)
    if remembered is not None:
        return Price(cost_at(size, remembered), shipped)
    predicted = known.predicted
    if predicted is not None and broken_constraint(cost_at(size, at_best(predicted)), job.constraints):
        return Price(cost_at(size, predicted), shipped)
    if job.merge == "latency":
        shipped = meter.merged(deployed, job.merge)
        size = job.size(shipped.network)
    measured = shipped.measurement or meter.measure(shipped.network)[0]
    spent_s = (measured.prepare_s, measured.measure_s)
    return Price(cost_at(size, reading_of(measured, shipped.plan)), shipped, spent_s)


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

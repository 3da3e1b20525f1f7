"""What a worker does with a trial that it is given; the same in Ray's workers and inline."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from nas.architecture import architecture_from_dict
from nas.deploy import keep_networks
from nas.job import Job
from nas.latency.meter import MeasuringNode, Meter
from nas.pipeline import Events, Known, judge
from nas.store import RunStore
from nas.training.checkpoint import Checkpoint


@dataclass(frozen=True)
class Assignment:
    """A trial to run, or to go on with: what a worker needs to know of it.

    Attributes:
        trial: its number.
        architecture: as JSON-ready words.
        arch_id: of the architecture.
        known: what is known of its latency.
        rungs: epochs of the trainings that are ahead of it.
        alone: whether it must not share a call: one of those that it shared one with has cost a worker its life.
    """

    trial: int
    architecture: dict[str, Any] = field(repr=False)
    arch_id: str
    known: Known = field(repr=False)
    rungs: tuple[int, ...]
    alone: bool = False

    @property
    def name(self) -> str:
        """What it is called in Ray."""
        return f"trial{self.trial}_{self.arch_id}"


@dataclass(frozen=True)
class Worker:
    """What a process sets up once for all the trials that it is given.

    Attributes:
        job: with its images on the device.
        meter: measures for the job in this process.
        store: the run.
    """

    job: Job
    meter: Meter
    store: RunStore


class Judge(Protocol):
    """What is done with an assignment; Ray pickles it."""

    def __call__(self, assignment: Assignment, worker: Worker) -> Events:
        """The events of a trial, the last one an `Ended`."""
        ...


def make_worker(job: Job, node: MeasuringNode | None, store: RunStore) -> Worker:
    """A worker of this process; `node` measures for it, if not this machine.

    Raises:
        ValueError: this machine is to measure on a device that it lacks.
    """
    job = job.on_device()
    return Worker(job, job.meter(node), store)


def trained(assignment: Assignment, worker: Worker) -> Events:
    """Prices, trains and evaluates an architecture (`nas.pipeline.judge`), its weights kept in the run."""
    trial, store = assignment.trial, worker.store
    return judge(
        trial,
        architecture_from_dict(assignment.architecture),
        worker.job,
        assignment.known,
        partial(keep_networks, trained_file=store.trained_file(trial), deployed_file=store.weights_file(trial)),
        worker.meter,
        Checkpoint(store.checkpoint_file(trial)),
        assignment.rungs,
    )

"""The worker's side in Ray: one actor judges one trial after another."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune
from ray._raylet import setproctitle  # pyright: ignore[reportAttributeAccessIssue]  # of C++, as all processes of Ray

from nas.config import first_line
from nas.exhausted import out_of_memory, out_of_space
from nas.job import Job
from nas.latency.meter import MeasuringNode
from nas.plugins import import_plugins
from nas.training.allocator import keep_freed_memory
from nas.trial import Ended, EpochEnded, Event, Rung, Started
from nas.tune.judging import Assignment, Judge, make_worker
from nas.tune.searcher import UNFIT
from nas.tune.worker_files import WorkerFiles

REPORT_EVERY_S = 2.0  # while epoch follows on epoch
HELD_S = 0.25  # for which an event may wait for others, to be reported with them


class ArchitectureTrainable(tune.Trainable):
    """Does what a judge does with the trials of a call, and reports the events.

    A class Trainable that can be reset: the next call takes over the actor with its data, which costs
    0.2 s where a fresh process costs 5 s.
    """

    def setup(  # pyright: ignore[reportIncompatibleMethodOverride]  # Ray's with_parameters adds the rest
        self,
        config: dict[str, Any],
        judge: Judge,
        job: Job,
        run_dir: str,
        mark: str,
        threads: int,
        gpus: float,
        node: MeasuringNode | None,
        plugins: list[str],
        import_path: list[str],
    ) -> None:
        """Called once an actor: keeps the data where it is trained on, then begins the first call.

        A machine on which that cannot be done judges nothing: no trial is to be blamed.
        """
        self._unfit, self._files, self._judged = "", None, _nothing
        try:
            import_plugins(plugins, import_path)
            torch.set_num_threads(threads)
            keep_freed_memory()
            if job.device == "cuda" and 0 < gpus < 1:
                # A trial that wants too much fails alone. A tenth is left to what CUDA itself takes in each process.
                torch.cuda.set_per_process_memory_fraction(0.9 * gpus)
            self._files = WorkerFiles(Path(run_dir), mark)
            worker = make_worker(job, node, self._files.store)
            self._judged = lambda assignment: judge(assignment, worker)
        except Exception as error:
            if out_of_memory(error):
                raise  # a new process tries again
            self._unfit = _unfit(error)
        finally:
            self._begin(config)  # Ray asks for a name in any case

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begins the next call in the same process."""
        self._events.close()  # of one that was left at a rung
        if self._files:
            self._files.clear()
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """The next events, with the files that they need; the driver says when there is no need of more."""
        if self._unfit:
            return {UNFIT: self._unfit, "done": False}
        setproctitle(f"ray::{self._now}")  # Ray has set it to this method's name
        try:
            events = together(self._events, self._is_last)
        except Exception as error:
            if not out_of_space(error):
                raise  # as where memory was lacking: a new process tries again
            return {UNFIT: _unfit(error), "done": False}
        assert self._files is not None
        files = self._files.to_send(events)
        # By reference: results stay small, so that they are never lost when a node is (Tune would end the search).
        return {"events": events, "files": ray.put(files) if files else None, "done": False}

    def cleanup(self) -> None:
        """Ends the trials' generator, and removes what is left on this machine."""
        self._events.close()
        if self._files:
            self._files.close()

    def __repr__(self) -> str:
        """What the dashboard calls this actor: Ray asks once, so what it was started for, not what it is at."""
        return f"worker since {self._now}"

    def _begin(self, config: dict[str, Any]) -> None:
        assignments: Sequence[Assignment] = config["assignments"]
        self.config = {}  # else Ray would send all of it back with every result
        self._last_rungs = {each.trial: each.rungs[-1] for each in assignments}
        self._now = assignments[0].name
        self._events = one_after_another(assignments, self._judged, self._show)

    def _show(self, assignment: Assignment) -> None:
        """Has people see which architecture trains where: in the actor's log, and among the node's processes."""
        self._now = assignment.name
        setproctitle(f"ray::{self._now}")
        print(time.strftime("%Y-%m-%d %H:%M:%S"), self._now, flush=True)

    def _is_last(self, rung: Rung) -> bool:
        return rung.epochs == self._last_rungs[rung.trial]


def one_after_another(
    assignments: Iterable[Assignment],
    judged: Callable[[Assignment], Iterable[Event]],
    begin: Callable[[Assignment], None],
) -> Generator[Event, None, None]:
    """The events of some trials, each of which is told of when it begins."""
    for each in assignments:
        begin(each)
        yield from judged(each)


def _unfit(error: Exception) -> str:
    return f"{platform.node()} cannot judge any network: {first_line(error)}"


def _nothing(_assignment: Assignment) -> Iterable[Event]:
    """The events of a trial where none can be judged."""
    return ()


def together(
    events: Iterable[Event], is_last: Callable[[Rung], bool], clock: Callable[[], float] = time.monotonic
) -> list[Event]:
    """The next events that are reported together, at least one.

    Nothing that somebody waits for is held back: after a `Started` a training follows, at a rung that is not the last
    of a trial it is to be decided whether that goes on, and the result of a training is not risked for the next
    trial's. Of epochs that follow on one another only now and then one is reported, as a sign of life.
    """
    since, found = clock(), []
    for event in events:
        after_s = clock() - since
        if isinstance(event, EpochEnded):
            if after_s < REPORT_EVERY_S:
                continue
            return [*found, event]
        found.append(event)
        decision = isinstance(event, Rung) and not is_last(event)
        if isinstance(event, Started) or decision or _was_trained(event, found) or after_s > HELD_S:
            return found
    return found


def _was_trained(event: Event, found: Sequence[Event]) -> bool:
    """Whether a trial ends after its last rung; one that is looked up has none."""
    return isinstance(event, Ended) and any(isinstance(each, Rung) and each.trial == event.trial for each in found)

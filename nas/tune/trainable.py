"""The worker's side in Ray: one actor judges one trial after another."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch
from ray import tune

from nas.job import Job
from nas.latency.meter import MeasuringNode
from nas.pipeline import known_from_dict
from nas.plugins import import_plugins
from nas.store import RunStore
from nas.training.allocator import keep_freed_memory
from nas.trial import Ended, EpochEnded, Event, event_to_dict
from nas.tune.judging import Assignment, Judge, make_worker

REPORT_EVERY_S = 2.0


class ArchitectureTrainable(tune.Trainable):
    """Does what a judge does with trials, and reports its events.

    A class Trainable that can be reset: the next trial takes over the actor with its data, which costs
    0.2 s where a fresh process costs 5 s.
    """

    def setup(  # pyright: ignore[reportIncompatibleMethodOverride]  # Ray's with_parameters adds the rest
        self,
        config: dict[str, Any],
        judge: Judge,
        job: Job,
        run_dir: str,
        threads: int,
        gpus: float,
        node: MeasuringNode | None,
        plugins: list[str],
        import_path: list[str],
    ) -> None:
        """Called once an actor: keeps the data where it is trained on, then begins the first trial."""
        import_plugins(plugins, import_path)
        torch.set_num_threads(threads)
        keep_freed_memory()
        if job.device == "cuda" and 0 < gpus < 1:
            # A trial that wants too much fails alone. A tenth is left to what CUDA itself takes in each process.
            torch.cuda.set_per_process_memory_fraction(0.9 * gpus)
        self._judge, self._worker = judge, make_worker(job, node, RunStore(Path(run_dir)))
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begins the next trial in the same process."""
        self._events.close()  # of one that was left at a rung
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """The next event that is to be stored; while an epoch follows on another, a sign of life."""
        since = time.monotonic()
        event: Event = next(self._events)
        while isinstance(event, EpochEnded) and time.monotonic() - since < REPORT_EVERY_S:
            event = next(self._events)
        if isinstance(event, EpochEnded):
            return {"epochs": event.epochs, "loss": event.loss, "done": False}
        return {"event": event_to_dict(event), "done": isinstance(event, Ended)}

    def cleanup(self) -> None:
        """Ends the trial's generator."""
        self._events.close()

    def _begin(self, config: dict[str, Any]) -> None:
        assignment = Assignment(
            int(config["trial"]),
            json.loads(config["architecture"]),
            config["arch_id"],
            known_from_dict(json.loads(config["known"])),
            tuple(json.loads(config["rungs"])),
        )
        self._events: Generator[Event, None, None] = self._judge(assignment, self._worker)

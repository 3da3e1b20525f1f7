"""A search's figures as metrics of Ray: for Prometheus, and in the log of an actor (docs/dashboards.md)."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import ray
from ray.util.metrics import Gauge

from nas.tune.figures import SearchFigures, Show

# Each has the tag `run`, and trials their state. Ray's nodes put `ray_` before the names.
GAUGES = {
    "nas_trials": "trials by state",
    "nas_best_accuracy_ratio": "highest accuracy (the run's metric) of a completed trial, 0 to 1",
    "nas_hypervolume_ratio": "share of the box between zero and the reference that the front dominates, 0 to 1",
    "nas_front_size": "networks on the Pareto front",
    "nas_training_images_per_second": "images that all trainings together went through, in the last minute",
    "nas_lane_waited_seconds": "seconds that trials have waited for others' measurements",
}
PRINT_EVERY_S = 10.0


@contextlib.contextmanager
def shown_by_ray(run: str) -> Iterator[Show]:
    """What shows a search's figures in Ray, by an actor, since a driver that connects by Ray Client exports nothing."""
    actor: Any = ray.remote(num_cpus=0, max_restarts=-1)(SearchWatcher).remote(run)

    def show(figures: SearchFigures) -> None:
        actor.show.remote(figures)

    try:
        yield show
    finally:
        ray.kill(actor)


class SearchWatcher:
    """Sets the metrics of one search, and prints them; it is always told the whole, so it may be started anew."""

    def __init__(self, run: str) -> None:
        self._run, self._printed_at = run, 0.0
        self._gauges = {
            name: Gauge(name, what, ("run", "state") if name == "nas_trials" else ("run",)).set_default_tags(
                {"run": run}
            )
            for name, what in GAUGES.items()
        }

    def __repr__(self) -> str:
        return f"search {self._run}"

    def show(self, figures: SearchFigures) -> None:
        """Sets what is known, and now and then prints a line to this actor's log."""
        for state, trials in figures.trials.items():
            self._gauges["nas_trials"].set(trials, {"state": state})
        plain = {name: value for name, value in dataclasses.asdict(figures).items() if name != "trials"}
        for name, value in plain.items():
            if value is not None:
                self._gauges[f"nas_{name}"].set(value)
        if time.monotonic() - self._printed_at >= PRINT_EVERY_S:
            self._printed_at = time.monotonic()
            words = [*(f"{trials} {state}" for state, trials in figures.trials.items() if trials)]
            words += [f"{name} {value:.6g}" for name, value in plain.items() if value is not None]
            print(time.strftime("%Y-%m-%d %H:%M:%S"), *words, sep="  ", flush=True)

"""Who is timed by `analysis.bench_driver`: a plain Optuna loop, stock Ray Tune with OptunaSearch, and ours.

Trials are looked up in a table of random numbers, and proposed by Optuna's random sampler, in all three.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import zlib
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from ray import tune
from ray.tune.search.optuna import OptunaSearch

from nas.config import RayConfig, SearchConfig
from nas.latency.memory import LatencyMemory
from nas.pipeline import Events
from nas.reading import Reading
from nas.results import write_results
from nas.space import SearchSpace
from nas.space_file import load_space
from nas.store import RunStore
from nas.trial import Ended, Event, Priced, TrialState
from nas.tune.forecast import Forecast
from nas.tune.judging import Assignment, Worker
from nas.tune.plan import Plan, make_plan
from nas.tune.progress import ProgressView
from nas.tune.ray_executor import run_with_ray
from nas.tune.ray_session import ray_session
from nas.tune.run import new_store, prices_of, study_of
from nas.tune.search_state import SearchState
from nas.tune.study import Study, Suggestion

SLOTS = 2
OBJECTIVES = ("error", "macs")
DIRECTIONS = ("minimize", "minimize")


@dataclass(frozen=True, eq=False)
class Table:
    """Seeded numbers; an architecture's row is by its name.

    Attributes:
        errors: (rows,), in (0, 1).
        macs: (rows,).
    """

    errors: NDArray[np.float64]
    macs: NDArray[np.int64]

    def row(self, name: str) -> tuple[float, int]:
        """The error and the multiply-adds of an architecture."""
        place = zlib.crc32(name.encode()) % len(self.errors)
        return float(self.errors[place]), int(self.macs[place])


def make_table(rows: int = 65_536, seed: int = 0) -> Table:
    """A table of random numbers."""
    draw = np.random.default_rng(seed)
    return Table(draw.random(rows), draw.integers(10_000, 10_000_000, rows))


@dataclass
class Timeline:
    """When the trials of a run ended, for its driver.

    Attributes:
        begun_s: when its first proposal was asked for, on the driver's clock.
        ended_s: when each trial had ended.
        proposing_s: seconds that had been spent proposing by then.
        rss_mb: memory of the driver then.
        finish_s: seconds from the last trial's end until the run was over and its results were written.
        proposing: seconds that have been spent proposing.
    """

    begun_s: float = 0.0
    ended_s: list[float] = field(default_factory=list)
    proposing_s: list[float] = field(default_factory=list)
    rss_mb: list[float] = field(default_factory=list)
    finish_s: float = 0.0
    proposing: float = 0.0

    @contextlib.contextmanager
    def asked(self) -> Iterator[None]:
        """Times a proposal."""
        begin = time.perf_counter()
        self.begun_s = self.begun_s or begin
        yield
        self.proposing += time.perf_counter() - begin

    def end(self) -> None:
        """Notes that a trial has ended."""
        self.ended_s.append(time.perf_counter())
        self.proposing_s.append(self.proposing)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.rss_mb.append(pages * os.sysconf("SC_PAGESIZE") / 2**20)

    def finish(self) -> None:
        """Notes that all is done."""
        self.finish_s = time.perf_counter() - self.ended_s[-1]


# --- a plain loop


def optuna_loop(space: str, trials: int) -> Timeline:
    """Ask, look up, tell, one after another in one process, in memory as in our study."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    searched, table, line = load_space(space), make_table(), Timeline()
    study = optuna.create_study(directions=DIRECTIONS, sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(trials):
        with line.asked():
            trial = study.ask()
            name = searched.suggest(trial).arch_id
        study.tell(trial, table.row(name))
        line.end()
    line.finish()
    return line


# --- stock Ray Tune


class StockTrainable(tune.Trainable):
    """A class whose actors are reused: for trivial trials the fastest that Ray Tune offers."""

    def setup(self, config: dict[str, Any], table: Table) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Keeps the table."""
        self._table = table

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Takes the next trial's choices, which Ray puts into `config`."""
        return True

    def step(self) -> dict[str, Any]:
        """Looks up."""
        error, macs = self._table.row(json.dumps(self.config, sort_keys=True))
        return {"error": error, "macs": macs, "done": True}


class TimedOptunaSearch(OptunaSearch):
    """Ray's own, with a clock."""

    line: Timeline

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Proposes."""
        with self.line.asked():
            return super().suggest(trial_id)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tells the study."""
        super().on_trial_complete(trial_id, result, error)
        self.line.end()

    def __getstate__(self) -> dict[str, Any]:
        """Without the clock."""
        return {name: value for name, value in self.__dict__.items() if name != "line"}


def _define(space: SearchSpace, trial: optuna.Trial) -> None:
    space.suggest(trial)


def stock(space: str, trials: int, folder: Path) -> Timeline:
    """Ray Tune with OptunaSearch, two trials at a time.

    As fast as it can be set up: see `StockTrainable`; no logger callbacks, nothing printed, no snapshots of the
    experiment but at its end (`nas.tune.ray_session.ENVIRONMENT`, as in ours).
    """
    line, define = Timeline(), partial(_define, load_space(space))
    with ray_session(SearchConfig(ray=RayConfig(dashboard=False))):
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(SLOTS)
        search = TimedOptunaSearch(
            define, metric=list(OBJECTIVES), mode=["min", "min"], sampler=optuna.samplers.RandomSampler(seed=0)
        )
        search.line = line
        tune.Tuner(
            tune.with_resources(tune.with_parameters(StockTrainable, table=make_table()), {"cpu": 1}),
            tune_config=tune.TuneConfig(
                search_alg=search, num_samples=trials, max_concurrent_trials=SLOTS, reuse_actors=True
            ),
            run_config=tune.RunConfig(
                name="stock",
                storage_path=str(folder),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                verbose=0,
            ),
        ).fit()
        line.finish()
    return line


# --- ours


@dataclass(frozen=True)
class LookUp:
    """A `Judge` without measuring and training."""

    table: Table

    def __call__(self, assignment: Assignment, worker: Worker) -> Events:
        """Looks up."""
        error, macs = self.table.row(assignment.arch_id)
        ms = macs / 1e6
        yield Priced(assignment.trial, macs // 8, macs, Reading(ms, 0.0, ms, ms))
        yield Ended(assignment.trial, TrialState.COMPLETED, "", 1 - error, assignment.rungs[-1])


class TimedStudy(Study):
    """Ours, with a clock."""

    line: Timeline

    def suggest(self, seen: Container[str]) -> Suggestion | None:
        """Proposes."""
        with self.line.asked():
            return super().suggest(seen)


def ours(space: str, trials: int, folder: Path, per_call: int, sampler: str = "random") -> Timeline:
    """A search as `nas.search` runs it, events, journal and progress view included, but for what a worker does."""
    given = {"space": space, "budget": trials, "sampler": sampler, "objectives": list(OBJECTIVES), "run": "ours"}
    many = {"trials.concurrent": SLOTS, "trials.per_call": per_call, "runs_dir": str(folder)}
    plan, line = make_plan({**given, **many}), Timeline()
    with (folder / "shown.txt").open("w") as shown, contextlib.redirect_stdout(shown):
        view = ProgressView(plan.config, enabled=True)
        with view, ray_session(plan.config):
            store, state = _begun(plan, view, line)
            run_with_ray(None, plan, state, store, LookUp(make_table()))
            write_results(store, store.records(), plan.config)
            line.finish()
    return line


def _begun(plan: Plan, view: ProgressView, line: Timeline) -> tuple[RunStore, SearchState]:
    """A run and its state, as `nas.tune.run` makes them, with a clock."""
    where = plan.job.conditions(plan.job.meter().instrument())
    memory = LatencyMemory(plan.runs_dir, where, plan.job.latency.tolerance)
    prices = prices_of(plan, memory, Forecast(where, None))
    study = study_of(plan, prices, TimedStudy)
    study.line = line

    def watch(event: Event, state: SearchState) -> None:
        view.watch(event, state)
        if isinstance(event, Ended):
            line.end()

    store = new_store(plan, where)
    return store, SearchState(plan, store, study, prices, [watch])

"""A search's plan: everything that can be checked before a run is made, so that bad input leaves nothing behind."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.block_fields import Value
from nas.bounded import shown
from nas.command_line import OF_THE_PERSON, given_keys_and_of_file, make_config
from nas.config import LatencyConfig, SearchConfig, seconds, user_path
from nas.config_fields import leaves
from nas.data import DATASETS
from nas.job import Job, check_recipe, make_job
from nas.objectives import get_objectives
from nas.plugins import check_said, import_plugins
from nas.recipes import TrainConfig, make_recipe
from nas.results import make_constraints
from nas.samplers import check_sampler
from nas.space import SearchSpace
from nas.space_file import load_space, space_names
from nas.space_train import check_given
from nas.store import RunStore, check_new
from nas.trained import with_anchored_teacher
from nas.trial import Proposed, TrialRecord
from nas.tune.beforehand import absolute_runs, earlier_trials
from nas.tune.feasibility import check_within_limits
from nas.tune.loggers import check_loggers
from nas.tune.promotion import Ladder, rung_epochs

# What may differ when a run is resumed, beside what is `OF_THE_PERSON`; all else would mix two searches in one run.
MAY_CHANGE = (
    "budget",
    "budget_epochs",
    "time_budget",
    "stop.hypervolume_patience",
    "warm_start",
    "resume",
    "run",
    "runs_dir",
    "trials.concurrent",
    "trials.timeout",
    "trials.retries",
    "trials.per_call",
    "data.workers",
    "latency.calibration",
    "log",
)


@dataclass(frozen=True)
class Plan:
    """A search that can begin.

    Attributes:
        config: the configuration, its paths absolute: workers and later runs have other working directories.
        store: the run to continue, or None for a new one.
        name: the run's name.
        space: what is searched.
        job: what all trials have in common.
        threads: CPU threads of a trial.
        gpus_per_trial: share of a GPU, or several.
        time_budget_s: seconds after which no trial is begun or waited for.
        earlier: trials of earlier runs that the sampler learns from.
    """

    config: SearchConfig
    store: RunStore | None
    name: str
    space: SearchSpace
    job: Job
    threads: int
    gpus_per_trial: float
    time_budget_s: float | None
    earlier: tuple[TrialRecord, ...] = ()

    @property
    def recipe(self) -> TrainConfig:
        """What all trainings begin from: the recipe with what the space fixes."""
        fixed = {name: options[0] for name, options in self.space.train.items() if len(options) == 1}
        return make_recipe(self.job.data.kind, fixed, self.job.train)

    def ladder(self, stopped: int = 0) -> Ladder:
        """The rungs of all trials, none reached yet; one where every trial trains all its epochs.

        Args:
            stopped: trials of the budget that an earlier session gave up, and that will not climb.
        """
        config, epochs = self.config, self.recipe.epochs
        if config.scheduler == "full":
            return Ladder((epochs,), 1)
        timed = self.time_budget_s is not None or config.budget_epochs is not None
        rungs = rung_epochs(epochs, config.mo_asha.reduction, config.mo_asha.rungs)
        return Ladder(rungs, config.mo_asha.reduction, None if timed else config.budget - stopped)

    @property
    def runs_dir(self) -> Path:
        """The folder of all runs."""
        return Path(self.config.runs_dir)


def make_plan(settings: Mapping[str, Any]) -> Plan:
    """The plan of a search's settings (see `nas.command_line.make_config`).

    Raises:
        ValueError: a plugin, setting, space, data set or run that cannot be.
    """
    config = _resumed(settings) if make_config(settings).resume else _begun(settings)
    time_budget_s = seconds("time_budget", config.time_budget)
    timeout_s = seconds("trials.timeout", config.trials.timeout)
    get_objectives(config.objectives)
    check_sampler(config.sampler, config.objectives)
    _check_calls(config)
    check_loggers(config.log)
    name = config.run or time.strftime("%Y-%m-%d_%H-%M-%S")
    if not config.resume:
        check_new(Path(config.runs_dir), name)
    space = load_space(config.space)
    check_given(config.train, space.train, space.name)
    store = _store_to_continue(config, space) if config.resume else None
    job = make_job(config, make_constraints(config.constraints), timeout_s)
    check_within_limits(space, job)
    for choices in _each_train_option(space):
        check_recipe(make_recipe(job.data.kind, choices, config.train), job.data, job.device)
    if job.weights is not None:
        _check_weights(job, space)
    if config.ray.address is None:  # else another machine may be the one that measures
        job.meter().instrument()
    gpus = config.trials.gpus if config.trials.gpus is not None else float(job.device == "cuda")
    threads = max(1, int(config.trials.cpus))
    return Plan(config, store, name, space, job, threads, gpus, time_budget_s, earlier_trials(config, space, job))


def _check_calls(config: SearchConfig) -> None:
    """Holds that no trial of a call can be taken off at a rung, which would take off those after it as well.

    Raises:
        ValueError: one can.
    """
    if config.scheduler == "mo_asha" and config.trials.per_call > 1:
        raise ValueError(f"trials.per_call={config.trials.per_call} is not allowed with scheduler=mo_asha; allowed: 1")


def _begun(settings: Mapping[str, Any]) -> SearchConfig:
    """The configuration of a new run, its plugins imported: they may add what its other settings name."""
    config = make_config(settings)
    import_plugins(config.plugins)
    return _anchored(config)


def _anchored(config: SearchConfig) -> SearchConfig:
    """The configuration with absolute paths."""
    changes = {
        "runs_dir": str(user_path("runs_dir", config.runs_dir).resolve()),
        "data_root": str(user_path("data_root", config.data_root).resolve()),
        "latency": _anchored_files(config.latency),
        "train": with_anchored_teacher(config.train),
        "warm_start": absolute_runs(config.warm_start),
    }
    if config.weights:
        changes["weights"] = str(user_path("weights", config.weights).absolute())
    if config.data not in DATASETS and user_path("data", config.data).exists():
        changes["data"] = str(user_path("data", config.data).absolute())
    if config.space not in space_names() and user_path("space", config.space).is_file():
        changes["space"] = str(user_path("space", config.space).absolute())
    return dataclasses.replace(config, **changes)


def _each_train_option(space: SearchSpace) -> list[dict[str, Value]]:
    """Each option of the space's `train` section by itself."""
    return [{name: option} for name, options in space.train.items() for option in options]


def _anchored_files(config: LatencyConfig) -> LatencyConfig:
    files = {"table": config.table, "calibration": config.calibration}
    absolute = {key: str(user_path(f"latency.{key}", file).absolute()) for key, file in files.items() if file}
    return dataclasses.replace(config, **absolute)


def _resumed(settings: Mapping[str, Any]) -> SearchConfig:
    """The configuration of the run to resume, its plugins imported, with what was given and may change taken over."""
    asked = make_config(settings)
    if not asked.run:
        raise ValueError("resume=true needs run=NAME")
    begun = RunStore.open(user_path("runs_dir", asked.runs_dir).resolve() / asked.run).config()
    check_said(begun.plugins, asked.plugins, f"run={asked.run}")
    import_plugins(begun.plugins)
    asked = _anchored(asked)
    stored = {key: value for key, (_, value) in leaves(begun).items()}
    given = given_keys_and_of_file(settings)
    wanted = {key: value for key, (_, value) in leaves(asked).items() if key in given}
    differing = [
        key
        for key, value in wanted.items()
        if value != stored[key] and key not in MAY_CHANGE and not key.startswith(OF_THE_PERSON)
    ]
    if differing:
        said, kept = (", ".join(f"{key}={of[key]}" for key in differing) for of in (wanted, stored))
        raise ValueError(f"{said} is not allowed: run={asked.run} was searched with {kept}")
    taken = {key: value for key, value in stored.items() if not key.startswith(OF_THE_PERSON)}
    return make_config({**taken, **wanted, "runs_dir": asked.runs_dir})


def _store_to_continue(config: SearchConfig, space: SearchSpace) -> RunStore:
    assert config.run is not None
    store = RunStore.open(Path(config.runs_dir) / config.run)
    if store.space_text() != space.text:
        raise ValueError(
            f"space={config.space} is not what run={config.run} was begun with; that is {store.path / 'space.yaml'}"
        )
    for event in store.events():
        if isinstance(event, Proposed):
            _check_choices(f"run={config.run}: trial {event.trial}", event.choices, space)
    return store


def _check_choices(what: str, choices: Mapping[str, Value], space: SearchSpace) -> None:
    """Holds that the choices of a trial, which another person may have written, are the space's.

    Raises:
        ValueError: one is missing, or another is there; the message begins with `what`.
    """
    unread = dict(choices)

    def replay(name: str, options: tuple[Value, ...]) -> Value:
        value = unread.pop(name, None)
        if value is None or value not in options:
            raise ValueError(f"{what}: {name}={shown(value)} is not allowed; allowed: {shown(list(options))}")
        return value

    space.assemble(replay)
    if unread:
        raise ValueError(f"{what}: {shown(min(unread))} is no choice that space {space.name} has there")


def _check_weights(job: Job, space: SearchSpace) -> None:
    if space.size > 1:
        raise ValueError(
            f"weights={job.weights} needs a space of one network, such as one of the zoo; "
            f"space={space.name} has {space.size:,} encodings"
        )
    job.build(space.architecture({}))

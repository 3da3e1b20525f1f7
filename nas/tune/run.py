"""A whole search: checked, run, finished."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from nas.command_line import make_config
from nas.config import SearchConfig, leaves, seconds, user_path
from nas.data import ImageData, load_data
from nas.latency.memory import LatencyMemory, latency_key
from nas.objectives import get_objectives
from nas.pipeline import Job
from nas.results import Run, make_constraints
from nas.samplers import make_sampler
from nas.space import SearchSpace
from nas.space_file import load_space
from nas.store import RunStore, check_new
from nas.tune.environment import describe_environment
from nas.tune.feasibility import check_feasible
from nas.tune.finish import finish
from nas.tune.inline import run_inline
from nas.tune.progress import ProgressView
from nas.tune.search_state import SearchState
from nas.tune.study import Study

# What may differ when a run is resumed; everything else would mix two searches in one run.
MAY_CHANGE = ("budget", "time_budget", "resume", "run", "runs_dir", "trials.concurrent", "trials.timeout")
MAY_CHANGE_PREFIXES = ("ray.",)


def run_search(verbose: bool = True, **settings: Any) -> Run:
    """Runs a search and returns what it left behind.

    Takes the keys of the command line, nested or dotted:
    `run_search(space="tiny", budget=8, train={"epochs": 3}, **{"trials.executor": "inline"})`.

    Args:
        verbose: print progress and the front.
        settings: see `python -m nas.search --help`.

    Raises:
        ValueError: a setting, space, data set or run that cannot be; nothing has been written then.
    """
    return search(resumed_config(settings), verbose)


def search(config: SearchConfig, verbose: bool = True) -> Run:
    """`run_search` of a complete configuration."""
    plan = _plan(config)
    with contextlib.ExitStack() as stack:
        view = stack.enter_context(ProgressView(config, verbose))
        executor = stack.enter_context(_executor(plan, view))
        store = _store(plan)
        view.say(f"space {plan.space.name}: {plan.space.size:,} encodings; data {config.data}; run {store.path}")
        try:
            state = _state(plan, store, view)
            executor(state, store)
        except BaseException:
            store.discard_if_empty()
            raise
        assert state.over is not None
        finish(store, plan.job, config, state.over, view.say)
    run = Run(store.path)
    view.report(run.front, store, state.over)
    return run


def resumed_config(settings: dict[str, Any]) -> SearchConfig:
    """The configuration of settings; with `resume`, that of the run, with what may change taken over.

    Raises:
        ValueError: as `make_config`; or the run to resume does not exist, or was another search.
    """
    asked = make_config(settings)
    if not asked.resume:
        return asked
    if not asked.run:
        raise ValueError("resume=true needs run=NAME")
    stored = RunStore.open(user_path("runs_dir", asked.runs_dir) / asked.run).config()
    given = {key: value for key, (_, value) in leaves(asked).items()}
    default = {key: value for key, (_, value) in leaves(SearchConfig()).items()}
    kept = {key: value for key, (_, value) in leaves(stored).items()}
    for key, value in given.items():
        if key in MAY_CHANGE or key.startswith(MAY_CHANGE_PREFIXES):
            kept[key] = value if value != default[key] else kept[key]
        elif value not in (default[key], kept[key]):
            raise ValueError(f"{key}={value} is not allowed: run={asked.run} was searched with {key}={kept[key]}")
    return make_config({**kept, "resume": True, "run": asked.run, "runs_dir": asked.runs_dir})


@dataclasses.dataclass(frozen=True)
class _Plan:
    """Everything that can be checked before a run is made."""

    config: SearchConfig
    runs_dir: Path
    name: str
    space: SearchSpace
    job: Job
    threads: int
    gpus_per_trial: float
    time_budget_s: float | None


def _plan(config: SearchConfig) -> _Plan:
    time_budget_s = seconds("time_budget", config.time_budget)
    timeout_s = seconds("trials.timeout", config.trials.timeout)
    get_objectives(config.objectives)
    make_sampler(config.sampler, config.seed)
    runs_dir = user_path("runs_dir", config.runs_dir).resolve()
    name = config.run or time.strftime("%Y-%m-%d_%H-%M-%S")
    if not config.resume:
        check_new(runs_dir, name)
    device = _device(config)
    space = load_space(config.space)
    data = load_data(config.data, config.data_root, config.val_share, config.seed)
    job = Job(
        data=data,
        train=config.train,
        latency=config.latency,
        constraints=make_constraints(config.constraints),
        device=device,
        seed=config.seed,
        timeout_s=timeout_s,
    )
    gpus = config.trials.gpus if config.trials.gpus is not None else float(device == "cuda")
    threads = max(1, int(config.trials.cpus))
    if not config.resume:
        check_feasible(space, job)
    return _Plan(config, runs_dir, name, space, job, threads, gpus, time_budget_s)


def _device(config: SearchConfig) -> str:
    available = torch.cuda.is_available()
    if config.device == "cuda" and not available:
        raise ValueError("device=cuda is not allowed: no CUDA device is available; allowed: auto, cpu")
    return "cuda" if available and config.device != "cpu" else "cpu"


@contextlib.contextmanager
def _executor(plan: _Plan, view: ProgressView) -> Iterator[Any]:
    """A function (state, store) that runs the trials. Whatever it needs is up before a run is made."""
    config = plan.config
    if config.trials.executor == "inline":
        yield lambda state, store: run_inline(state, _on_device(plan.job), store, plan.threads)
        return
    from nas.tune.ray_executor import concurrency, ray_session, run_with_ray

    dashboard = config.ray.dashboard if config.ray.dashboard is not None else sys.stdout.isatty()
    with ray_session(config, dashboard) as address:
        concurrency(config, plan.gpus_per_trial)
        if address:
            view.say(f"Ray dashboard: http://{address}")
        yield functools.partial(_run_with_ray, run_with_ray, plan)


def _run_with_ray(run_with_ray: Any, plan: _Plan, state: SearchState, store: RunStore) -> None:
    run_with_ray(state, plan.job, store, plan.config, plan.threads, plan.gpus_per_trial)


def _on_device(job: Job) -> Job:
    data: ImageData = job.data
    moved = dataclasses.replace(data, train=data.train.to(job.device), validation=data.validation.to(job.device))
    return dataclasses.replace(job, data=moved)


def _store(plan: _Plan) -> RunStore:
    # Absolute paths: Ray's workers have other working directories, and so may whoever runs it again.
    if not plan.config.resume:
        environment = describe_environment(plan.job.device, plan.config.seed)
        return RunStore.create(plan.runs_dir, plan.name, plan.config, environment)
    store = RunStore.open(plan.runs_dir / plan.name)
    store.mend()
    store.write_config(plan.config)
    store.point_latest()
    return store


def _state(plan: _Plan, store: RunStore, view: ProgressView) -> SearchState:
    config, data = plan.config, plan.job.data
    study = Study(plan.space, get_objectives(config.objectives), plan.job.constraints, config.sampler, config.seed)

    def key(deploy_id: str) -> Any:
        return latency_key(deploy_id, data.input_shape, data.num_classes, config.latency, plan.job.device)

    return SearchState(config, store, study, LatencyMemory(plan.runs_dir), key, plan.time_budget_s, view.watch)

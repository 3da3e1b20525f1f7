"""A whole search: planned, run, finished."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any

from nas.latency.memory import LatencyKey, LatencyMemory, latency_key
from nas.objectives import get_objectives
from nas.results import Run
from nas.store import RunStore
from nas.tune.environment import describe_environment
from nas.tune.finish import finish
from nas.tune.inline import run_inline
from nas.tune.plan import Plan, make_plan
from nas.tune.progress import ProgressView
from nas.tune.search_state import SearchState
from nas.tune.study import Study

Executor = Callable[[SearchState, RunStore], None]


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
    plan = make_plan(settings)
    with contextlib.ExitStack() as stack:
        view = stack.enter_context(ProgressView(plan.config, verbose))
        view.announce(plan.space, plan.job.data)
        # Whatever the executor needs is up before a run is made.
        execute = stack.enter_context(_executor(plan, view))
        store = _store(plan)
        stack.enter_context(store.locked())
        if plan.store is not None:
            store.reopen(plan.config)
        view.say(f"run {store.path}")
        try:
            state = _state(plan, store, view)
            execute(state, store)
        except BaseException:
            store.discard_if_empty()
            raise
        assert state.over is not None
        try:
            finish(store, plan.job, plan.config, state.over, view.say)
        except KeyboardInterrupt:
            view.say(f"What was judged is kept in {store.path}; run={store.name} resume=true finishes it.")
            raise
    run = Run(store.path)
    view.report(run.front, store, state.over)
    return run


@contextlib.contextmanager
def _executor(plan: Plan, view: ProgressView) -> Iterator[Executor]:
    if plan.config.trials.executor == "inline":
        yield functools.partial(run_inline, plan)
        return
    from nas.tune.ray_executor import concurrency, ray_session, run_with_ray

    wanted = plan.config.ray.dashboard
    with ray_session(plan.config, sys.stdout.isatty() if wanted is None else wanted) as dashboard:
        concurrency(plan)
        if dashboard:
            view.say(f"Ray dashboard: http://{dashboard}")
        yield functools.partial(run_with_ray, plan)


def _store(plan: Plan) -> RunStore:
    if plan.store is None:
        environment = describe_environment(plan.job.device, plan.config.seed)
        return RunStore.create(plan.runs_dir, plan.name, plan.config, plan.space.text, environment)
    return plan.store


def _state(plan: Plan, store: RunStore, view: ProgressView) -> SearchState:
    config, data = plan.config, plan.job.data
    study = Study(plan.space, get_objectives(config.objectives), plan.job.constraints, config.sampler, config.seed)

    def key(deploy_id: str) -> LatencyKey:
        return latency_key(deploy_id, data.input_shape, data.num_classes, config.merge, config.latency, plan.job.device)

    return SearchState(config, store, study, LatencyMemory(plan.runs_dir), key, plan.time_budget_s, view.watch)

"""A whole search: planned, run, finished."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from nas.latency.measure import timed_device
from nas.latency.memory import LatencyKey, LatencyMemory, latency_key
from nas.latency.meter import Measure, Meter
from nas.latency.predictor import conditions
from nas.objectives import get_objectives
from nas.pipeline import latency_device
from nas.results import Run
from nas.store import RunStore
from nas.tune.environment import describe_environment
from nas.tune.finish import finish
from nas.tune.forecast import Forecast
from nas.tune.inline import run_inline
from nas.tune.plan import Plan, make_plan
from nas.tune.progress import ProgressView
from nas.tune.search_state import SearchState
from nas.tune.study import Study


class Executor(NamedTuple):
    """What runs trials, and what measures elsewhere for them, if anything does."""

    run: Callable[[Plan, SearchState, RunStore], None]
    measure_with: Measure | None = None


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
        executor = stack.enter_context(_executor(plan, view))
        memory = LatencyMemory(plan.runs_dir)
        meter, device = _meter(plan, executor)
        store = _store(plan)
        stack.enter_context(store.locked())
        if plan.store is not None:
            store.reopen(plan.config)
        view.say(f"run {store.path}")
        try:
            state = _state(plan, store, memory, device, view)
            executor.run(plan, state, store)
        except BaseException:
            store.discard_if_empty()
            raise
        assert state.over is not None
        try:
            finish(store, plan.job, meter, plan.config, state.over, view.say)
        except KeyboardInterrupt:
            view.say(f"What was judged is kept in {store.path}; run={store.name} resume=true finishes it.")
            raise
    run = Run(store.path)
    view.report(run.front, store, state.over)
    return run


@contextlib.contextmanager
def _executor(plan: Plan, view: ProgressView) -> Iterator[Executor]:
    if plan.config.trials.executor == "inline":
        yield Executor(run_inline)
        return
    from nas.tune.ray_executor import concurrency, measuring_node, ray_session, run_with_ray

    wanted = plan.config.ray.dashboard
    with ray_session(plan.config, sys.stdout.isatty() if wanted is None else wanted) as dashboard:
        concurrency(plan)
        if dashboard:
            view.say(f"Ray dashboard: http://{dashboard}")
        yield Executor(run_with_ray, measuring_node())


def _meter(plan: Plan, executor: Executor) -> tuple[Meter, str]:
    """What measures for the run's driver, and what tells the device that is timed from others."""
    meter = dataclasses.replace(plan.job.meter(), measure_with=executor.measure_with)
    if executor.measure_with is None or plan.job.latency.backend == "table":
        return meter, timed_device(plan.job.latency, meter.device)
    return meter, meter.reference().device


def _store(plan: Plan) -> RunStore:
    if plan.store is None:
        environment = describe_environment(plan.job.device, plan.config.seed)
        return RunStore.create(plan.runs_dir, plan.name, plan.config, plan.space.text, environment)
    return plan.store


def _state(plan: Plan, store: RunStore, memory: LatencyMemory, device: str, view: ProgressView) -> SearchState:
    config, job = plan.config, plan.job
    study = Study(plan.space, get_objectives(config.objectives), job.constraints, config.sampler, config.seed)
    where = latency_device(job.latency, job.device)

    shape, classes = job.data.input_shape, job.data.num_classes

    def key(deploy_id: str) -> LatencyKey:
        return latency_key(deploy_id, shape, classes, job.merge, job.latency, where, device)

    # Predictions spare measurements of what is too slow, so without such a limit there is no use for them.
    limited = any(each.name == "latency_ms" for each in job.constraints)
    measured_in = conditions(job.latency, where, device, shape, classes, job.merge)
    forecast = Forecast(measured_in, plan.predictor) if limited else None
    return SearchState(config, store, study, memory, key, plan.time_budget_s, view.watch, forecast)

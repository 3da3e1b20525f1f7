"""A whole search: planned, run, finished."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from nas.bounded import shown
from nas.command_line import Failed, words_to_repeat
from nas.config import SearchConfig, first_line, user_path
from nas.exhausted import out_of_space
from nas.interrupts import terminations
from nas.latency.conditions import Conditions, conditions_from_dict, differences
from nas.latency.memory import LatencyMemory
from nas.latency.meter import MeasuringNode, Meter
from nas.latency.predictor import LatencyPredictor, load_predictor
from nas.objectives import get_objectives
from nas.results import Run
from nas.samplers import SearchTask, make_sampler
from nas.store import RunStore
from nas.tune.environment import describe_environment
from nas.tune.feasibility import check_feasible
from nas.tune.figures import Show
from nas.tune.finish import finish
from nas.tune.forecast import Forecast
from nas.tune.inline import run_inline
from nas.tune.loggers import SearchLogs
from nas.tune.metrics import SearchMetrics
from nas.tune.plan import Plan, make_plan
from nas.tune.pricing import PricedArchitectures
from nas.tune.progress import ProgressView
from nas.tune.scouting import scout
from nas.tune.search_state import GIVEN_UP, SearchState, Watch
from nas.tune.study import Study

StudyT = TypeVar("StudyT", bound=Study)


class Executor(NamedTuple):
    """What runs trials, and what comes with it.

    Attributes:
        run: runs them.
        node: the machine that measures for them, if it is another one.
        addresses: where a person may watch them, a line each.
        show: shows figures on the search there.
    """

    run: Callable[[Plan, SearchState, RunStore], None]
    node: MeasuringNode | None = None
    addresses: Sequence[str] = ()
    show: Show | None = None


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
        # Whatever the executor and the latencies need is there before anything is announced or made.
        executor = stack.enter_context(_executor(plan, view.say))
        meter, where, calibrated = _latency(plan, executor.node)
        view.announce(plan.space, plan.job.data)
        for line in executor.addresses:
            view.say(line)
        if calibrated and not plan.job.constraints:
            view.say("latency.calibration spares nothing: without a constraint every network is measured")
        plan = dataclasses.replace(plan, job=dataclasses.replace(plan.job, timed_device=where.device))
        memory = LatencyMemory(plan.runs_dir, where, plan.job.latency.tolerance)
        prices = prices_of(plan, memory, Forecast(where, calibrated))
        store = plan.store or new_store(plan, where)
        stack.enter_context(store.locked())
        if plan.store is not None:
            store.reopen(plan.config)
        view.say(f"run {store.path}")
        stack.enter_context(terminations())  # only now: Ray has set a handler of its own
        with _resumable(store, plan.config, view.say):
            if _timed(plan) and not calibrated:
                view.say("measuring a few networks, to price the others by")
                scout(prices, plan.space, plan.job, meter, plan.config.budget, plan.config.seed)
            study = study_of(plan, prices)
            study.learn_from(plan.earlier)
            logs = stack.enter_context(SearchLogs(plan.config, store, view.say))
            watches: list[Watch] = [view.watch, lambda event, state: logs.watch(event, state.last)]
            if executor.show:
                images = len(plan.job.data.train)
                metrics = SearchMetrics(plan.config, store, images, executor.show, view.say)
                watches.append(stack.enter_context(metrics).watch)
            state = SearchState(plan, store, study, prices, watches)
            executor.run(plan, state, store)
            if state.over != "interrupted":
                state.close()
            if state.over == GIVEN_UP:
                raise Failed(state.given_up_for)
            assert state.over is not None
            finish(plan, store, meter, memory, state.over, view.say)
    run = Run(store.path)
    view.report(run, state.over)
    return run


@contextlib.contextmanager
def _resumable(store: RunStore, config: SearchConfig, say: Callable[[str], None]) -> Iterator[None]:
    """Says how a run goes on that is cut off; nothing is kept of one in which nothing has happened yet.

    Raises:
        Failed: something is to be mended first, as where there was no room to write.
    """
    try:
        yield
    except BaseException as error:
        store.discard_if_empty()
        words = " ".join([f"run={store.name} resume=true", *words_to_repeat(config)])
        kept = f"What was judged is kept in {store.path}; {words} goes on."
        if isinstance(error, Failed):
            raise Failed(f"{error}. {kept}") from None
        if out_of_space(error):
            raise Failed(f"{store.path} cannot be written: {first_line(error)}. {kept}") from None
        if isinstance(error, KeyboardInterrupt) and store.path.exists():
            say(kept)
        raise


@contextlib.contextmanager
def _executor(plan: Plan, say: Callable[[str], None]) -> Iterator[Executor]:
    if plan.config.trials.executor == "inline":
        yield Executor(run_inline)
        return
    from nas.tune.ray_executor import run_with_ray
    from nas.tune.ray_measuring import measuring_node
    from nas.tune.ray_metrics import shown_by_ray
    from nas.tune.ray_nodes import check_nodes, concurrency
    from nas.tune.ray_session import ray_session

    with ray_session(plan.config) as addresses:
        concurrency(plan)
        node = measuring_node()
        if plan.config.ray.address:
            check_nodes(plan)
        watched = addresses or plan.config.ray.address
        with shown_by_ray(plan.name) if watched else contextlib.nullcontext() as show:
            yield Executor(partial(run_with_ray, node, say=say), node, addresses, show)


def _latency(plan: Plan, node: MeasuringNode | None) -> tuple[Meter, Conditions, LatencyPredictor | None]:
    """What measures for the run's driver, under which conditions, and what predicts under them.

    Raises:
        ValueError: `latency.calibration` is no such file, or it or the run to continue is of other conditions; or no
            network keeps the constraints.
    """
    meter = plan.job.meter(node)
    where = plan.job.conditions(meter.instrument())
    file = plan.job.latency.calibration
    calibrated = load_predictor(user_path("latency.calibration", file), where) if file else None
    if plan.store is None:
        check_feasible(plan.space, plan.job, meter)
    elif differing := differences(conditions_from_dict(plan.store.environment().get("latency", {})), where):
        raise ValueError(f"run={plan.name} cannot be continued: its latencies were measured with {differing}")
    else:
        _check_recipe(plan.store.environment().get("recipe", {}), plan)
    return meter, where, calibrated


def _check_recipe(begun: Any, plan: Plan) -> None:
    """Holds that the run goes on as it began: another version of this program may have other recipes.

    Raises:
        ValueError: it would not.
    """
    if not isinstance(begun, dict):
        raise ValueError(f"run={plan.name}: environment.json: recipe: {shown(begun)} is not a mapping")
    now = dataclasses.asdict(plan.recipe)
    differing = [f"train.{name}={value}" for name, value in begun.items() if now.get(name, value) != value]
    if differing:
        raise ValueError(f"run={plan.name} cannot be continued: its networks were trained with {', '.join(differing)}")


def _timed(plan: Plan) -> bool:
    """Whether the sampler wants to know latencies beforehand."""
    limited = any(each.name == "latency_ms" for each in plan.job.constraints)
    return plan.config.sampler == "exact_cost" and (limited or "latency_ms" in plan.config.objectives)


def new_store(plan: Plan, where: Conditions) -> RunStore:
    """The folder of a run that begins, with all that its figures depend on.

    Raises:
        ValueError: it cannot be made.
    """
    environment = {
        **describe_environment(plan.job.device, plan.config.seed),
        "latency": dataclasses.asdict(where),
        "recipe": dataclasses.asdict(plan.recipe),
        "images": {part: len(getattr(plan.job.data, part)) for part in ("train", "validation", "test")},
    }
    return RunStore.create(plan.runs_dir, plan.name, plan.config, plan.space.text, environment)


def prices_of(plan: Plan, memory: LatencyMemory, forecast: Forecast) -> PricedArchitectures:
    """What a plan's architectures cost, as far as its objectives and constraints ask."""
    wanted = {*plan.config.objectives, *(each.name for each in plan.job.constraints)}
    return PricedArchitectures(plan.space, plan.job, memory, forecast, wanted)


def study_of(plan: Plan, prices: PricedArchitectures, kind: type[StudyT] = Study) -> StudyT:
    """The study that proposes a plan's architectures, with the sampler of its configuration."""
    config, constraints = plan.config, plan.job.constraints
    sampler = make_sampler(config.sampler, SearchTask(prices, config.objectives, constraints, config.seed))
    objectives = get_objectives(config.objectives)
    return kind(plan.space, objectives, constraints, sampler, config.seed, plan.recipe.epochs)

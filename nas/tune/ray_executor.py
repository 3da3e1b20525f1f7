"""The Ray executor: Ray Tune runs the trials."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import ray
from ray import tune
from ray.exceptions import RayError, RayTaskError
from ray.tune.experiment import Trial
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from nas.config import LatencyConfig, SearchConfig, first_line
from nas.interrupts import interrupt_later
from nas.latency.conditions import Instrument, instrument
from nas.latency.measure import Variant, measure_interleaved
from nas.latency.measurement import LatencyMeasurement
from nas.latency.meter import MeasuringNode
from nas.plugins import import_path
from nas.store import RunStore
from nas.tune.judging import Judge, trained
from nas.tune.plan import Plan
from nas.tune.search_state import SearchState
from nas.tune.searcher import LossCallback, StateScheduler, StateSearcher
from nas.tune.trainable import ArchitectureTrainable

Result = TypeVar("Result")

ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the run's own store is the log
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # likewise: nothing is ever restored from Ray's pickles
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
}


@contextlib.contextmanager
def ray_session(config: SearchConfig, dashboard: bool) -> Iterator[str | None]:
    """A connection to Ray, started here unless one is running in this process; yields the dashboard's address.

    Raises:
        ValueError: the cluster at `ray.address` does not answer.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if ray.is_initialized():
        yield None
        return
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    try:
        if config.ray.address:
            _check_reachable(config.ray.address)
            context = ray.init(address=config.ray.address, **quiet)
        else:
            with interrupt_later():
                context = ray.init(
                    # Else Ray would join whatever cluster was last started on this machine, dead or alive.
                    address="local",
                    include_dashboard=dashboard,
                    dashboard_host="127.0.0.1",
                    # The host's own name does not always resolve.
                    _node_ip_address="127.0.0.1",
                    **quiet,
                )
    except KeyboardInterrupt:  # in the middle of Ray's start it would have left half a Ray, which crashes at exit
        ray.shutdown()
        raise
    except (ConnectionError, ValueError, RuntimeError) as error:
        token = " (does it ask for a token? then set RAY_AUTH_MODE=token)" if config.ray.address else ""
        raise ValueError(
            f"ray.address={config.ray.address}: Ray cannot be reached or started: {first_line(error)}{token}"
        ) from None
    try:
        yield context.dashboard_url
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Tries the port of `host:port` or `ray://host:port`, since Ray waits for minutes, deaf to Ctrl-C.

    Raises:
        ConnectionError: nobody answers.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except (OSError, OverflowError) as error:
            raise ConnectionError(str(error)) from None


def concurrency(plan: Plan) -> int:
    """Trials at a time: as configured, else as many as the cluster's cores and GPUs hold.

    Raises:
        ValueError: a trial asks for more than the cluster has.
    """
    resources, trials = ray.cluster_resources(), plan.config.trials
    cpus, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    fits = cpus / trials.cpus
    if plan.gpus_per_trial:
        fits = min(fits, gpus / plan.gpus_per_trial)
    if int(fits) < 1:
        raise ValueError(
            f"trials.cpus={trials.cpus:g}, trials.gpus={plan.gpus_per_trial:g}: a trial does not fit; there are "
            f"{cpus:g} cores and {gpus:g} GPUs"
        )
    return min(trials.concurrent or int(fits), int(fits))


def measuring_node() -> MeasuringNode | None:
    """The cluster's nodes that declare the resource `latency`; None on one machine: it measures itself.

    Raises:
        ValueError: several nodes, and none declares it: their latencies cannot be compared.
    """
    if ray.cluster_resources().get("latency"):
        return NodeForLatency()
    nodes = sum(node["Alive"] for node in ray.nodes())
    if nodes > 1:
        raise ValueError(
            f"the cluster has {nodes} nodes and none declares where latencies are measured: start nodes of a kind "
            "with ray start --resources '{\"latency\": 1}'"
        )
    return None


class NodeForLatency:
    """A `MeasuringNode`: tasks that ask for the resource `latency`."""

    def measure(self, variants: list[Variant], *, device: str) -> list[LatencyMeasurement]:
        """See `MeasuringNode`."""
        return _there(partial(measure_interleaved, variants, device=device))

    def instrument(self, config: LatencyConfig, device: str) -> Instrument:
        """See `MeasuringNode`."""
        return _there(partial(instrument, config, device))


def _there(act: Callable[[], Result]) -> Result:
    try:
        return ray.get(_act.remote(act))
    except RayTaskError as error:
        raise error.cause from None
    except RayError as error:
        raise ValueError(f"the node that measures is lost: {first_line(error)}") from None


# Not within the trial that asks, whose resources are its own. Ray hides GPUs from tasks that ask for none.
@ray.remote(
    num_cpus=0,
    resources={"latency": 1},
    scheduling_strategy=PlacementGroupSchedulingStrategy(placement_group=None),  # pyright: ignore[reportArgumentType]
    runtime_env={"env_vars": {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}},
)
def _act(act: Callable[[], Any]) -> Any:
    return act()


def _name(call: Trial) -> str:
    """What a call of trials is named after in Ray: its first one."""
    first = call.config["assignments"][0]
    return f"trial{first.trial}_{first.arch_id}"


def _folder(call: Trial) -> str:
    """The folder of a call: of its first trial, and the rung ahead of that one."""
    first = call.config["assignments"][0]
    return f"trial{first.trial}_{first.rungs[0]}_epochs"


def run_with_ray(
    node: MeasuringNode | None, plan: Plan, state: SearchState, store: RunStore, judge: Judge = trained
) -> None:
    """Runs trials until the search is over; Ctrl-C or the time budget leave those in flight unjudged.

    Args:
        node: where latencies are measured, if not where trials are.
        plan: what is searched.
        state: hands out trials and takes in their events.
        store: the run.
        judge: what a worker does with a trial.
    """
    slots = concurrency(plan)
    # All workers are started at once; one by one, the first would take every short trial and the rest never start.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(slots)
    trainable = tune.with_parameters(
        ArchitectureTrainable,
        judge=judge,
        job=plan.job,
        run_dir=str(store.path),
        threads=plan.threads,
        gpus=plan.gpus_per_trial,
        node=node,
        plugins=plan.config.plugins,
        import_path=import_path(),
    )
    trainable = tune.with_resources(trainable, {"cpu": plan.config.trials.cpus, "gpu": plan.gpus_per_trial})
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=StateSearcher(state, slots, plan.config.trials.per_call),
            scheduler=StateScheduler(state),
            num_samples=-1,
            reuse_actors=True,
            time_budget_s=state.seconds_left,
            trial_name_creator=_name,
            trial_dirname_creator=_folder,
        ),
        run_config=tune.RunConfig(
            name="ray",
            storage_path=str(store.path),
            callbacks=[LossCallback(state)],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            # A trial whose worker is lost begins again, from its own last checkpoint (`nas.training.checkpoint`).
            failure_config=tune.FailureConfig(max_failures=plan.config.trials.retries),
            verbose=0,
        ),
    )
    # What fails is recorded as an event with its reason; Ray's own tracebacks would bury it.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    before = signal.getsignal(signal.SIGINT)
    try:
        tuner.fit()
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)  # Ray Tune leaves its own handler behind
    if state.over is None:
        state.over = "time_budget" if state.time_is_up else "interrupted"

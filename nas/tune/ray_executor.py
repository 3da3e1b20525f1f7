"""The Ray executor: Ray Tune runs the trials."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from unittest import mock

from ray import tune
from ray.train._internal import storage
from ray.tune.experiment import Trial
from ray.util import client

from nas.latency.meter import MeasuringNode
from nas.plugins import import_path
from nas.store import RunStore
from nas.tune.judging import Judge, trained
from nas.tune.plan import Plan
from nas.tune.ray_measuring import NodeForLatency
from nas.tune.ray_nodes import Room
from nas.tune.search_state import SearchState
from nas.tune.searcher import LossCallback, StateScheduler, StateSearcher, StateStopper
from nas.tune.trainable import ArchitectureTrainable
from nas.tune.worker_files import mark_folder

MOST_PENDING = 10_000  # calls that wait for a worker; there are never more than the cluster has room for


def _name(call: Trial) -> str:
    """What a call of trials is named after in Ray: its first one."""
    return call.config["assignments"][0].name


def _folder(call: Trial) -> str:
    """The folder of a call: of its first trial, and the rung ahead of that one."""
    first = call.config["assignments"][0]
    return f"trial{first.trial}_{first.rungs[0]}_epochs"


def run_with_ray(
    node: MeasuringNode | None,
    plan: Plan,
    state: SearchState,
    store: RunStore,
    judge: Judge = trained,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Runs trials until the search is over; Ctrl-C or the time budget leave those in flight unjudged.

    Args:
        node: where latencies are measured, if not where trials are.
        plan: what is searched.
        state: hands out trials and takes in their events.
        store: the run.
        judge: what a worker does with a trial.
        say: takes lines for people.
    """
    # All workers are started at once; one by one, the first would take every short trial and the rest never start.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(MOST_PENDING)
    trainable = tune.with_parameters(
        ArchitectureTrainable,
        judge=judge,
        job=plan.job,
        run_dir=str(store.path),
        mark=mark_folder(store),
        threads=plan.threads,
        gpus=plan.gpus_per_trial,
        node=NodeForLatency(patient=True) if node else None,
        plugins=plan.config.plugins,
        import_path=import_path(),
    )
    trainable = tune.with_resources(trainable, {"cpu": plan.config.trials.cpus, "gpu": plan.gpus_per_trial})
    trainable.__qualname__ = ArchitectureTrainable.__qualname__  # the actors' class in the dashboard
    # What fails is recorded as an event with its reason; Ray's own tracebacks would bury it.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    before = signal.getsignal(signal.SIGINT)
    try:
        with _staging():
            tune.run(
                trainable,
                name="ray",
                storage_path=str(store.path),
                search_alg=StateSearcher(state, Room(plan, node is not None, say), plan.config.trials.per_call),
                scheduler=StateScheduler(state, store),
                callbacks=[LossCallback(state, plan.config.trials.retries)],
                num_samples=-1,
                reuse_actors=True,
                stop=StateStopper(state),
                trial_name_creator=_name,
                trial_dirname_creator=_folder,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                raise_on_failed_trial=False,
                verbose=0,
                # Through Ray Client too, where Tune would go to the cluster with a copy of the search's state.
                _remote=False,
            )
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)  # Ray Tune leaves its own handler behind
    if state.over is None:
        state.over = "time_budget" if state.time_is_up else "interrupted"


@contextlib.contextmanager
def _staging() -> Iterator[None]:
    """Gives Tune a folder for its notes where there is none of Ray's: on a machine that is no node (Ray Client)."""
    if not client.ray.is_connected():
        yield
        return
    with (
        tempfile.TemporaryDirectory(prefix="nas-") as folder,
        mock.patch.object(storage, "_get_ray_train_session_dir", lambda: folder),
    ):
        yield

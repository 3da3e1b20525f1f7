"""The Ray executor: Ray Tune runs the trials."""

from __future__ import annotations

import logging
import os
import signal
import threading

import ray
from ray import tune
from ray.tune.experiment import Trial

from nas.latency.meter import MeasuringNode
from nas.plugins import import_path
from nas.store import RunStore
from nas.tune.judging import Judge, trained
from nas.tune.plan import Plan
from nas.tune.search_state import SearchState
from nas.tune.searcher import LossCallback, StateScheduler, StateSearcher, StateStopper
from nas.tune.trainable import ArchitectureTrainable


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
            trial_name_creator=_name,
            trial_dirname_creator=_folder,
        ),
        run_config=tune.RunConfig(
            name="ray",
            storage_path=str(store.path),
            callbacks=[LossCallback(state)],
            stop=StateStopper(state),
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

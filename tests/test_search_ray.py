import contextlib
import json
import os
import signal
import threading
import time
from collections import Counter

import pytest
from safetensors import SafetensorError, safe_open

from nas.results import Run
from tests.searching import events_of, journal_of, proposals_of, small_search

RAY = {"trials.executor": "ray"}


def test_ray_judges_the_budget_without_repeats(cluster, tmp_path):
    run = small_search(tmp_path, budget=10, **RAY)
    assert run.reason == "budget"
    assert run.trials["state"].tolist() == ["completed"] * 10
    assert run.trials["arch_id"].is_unique
    assert (run.path / "ray").is_dir()
    for trial in run.front["trial"]:
        assert (run.path / "models" / str(trial) / "model.onnx").exists()


def test_one_at_a_time_ray_and_inline_search_alike(cluster, tmp_path):
    same = {"budget": 12, "objectives": ["error", "macs"], "trials.concurrent": 1}
    by_ray = small_search(tmp_path, run="ray", **RAY, **same)
    inline = small_search(tmp_path, run="inline", **same)
    assert proposals_of(by_ray) == proposals_of(inline)
    assert by_ray.trials["accuracy"].tolist() == inline.trials["accuracy"].tolist()


def test_infeasible_and_exhausted_through_ray(cluster, tmp_path):
    run = small_search(tmp_path, budget=30, **RAY, **{"constraints.params": 2000})
    assert run.reason == "exhausted"
    assert set(run.trials["state"]) == {"completed", "infeasible"}
    assert len(run.trials) == 20


def kill_workers(monkeypatch, times, when):
    """Kills the workers of trials as they report that they train, `times` times, once `when(trial)` holds."""
    from nas.tune.searcher import StateScheduler

    passed_on, killed = StateScheduler.on_trial_result, []

    def kill_once_true(process, number):
        while not when(number):
            time.sleep(0.005)
        os.kill(process, signal.SIGKILL)

    def kill(self, tune_controller, trial, result):
        decision = passed_on(self, tune_controller, trial, result)
        for event in result["events"]:
            if len(killed) < times and event.kind == "started":
                killed.append(event.trial)
                threading.Thread(target=kill_once_true, args=(result["pid"], event.trial)).start()
        return decision

    monkeypatch.setattr(StateScheduler, "on_trial_result", kill)
    return killed


def test_a_killed_worker_costs_the_epochs_since_its_last_rung_and_changes_nothing(cluster, tmp_path, monkeypatch):
    same = {"budget": 3, "objectives": ["error", "macs"], "trials.concurrent": 1, "train.epochs": 40}
    undisturbed = small_search(tmp_path, run="undisturbed", **same)

    def at_20(trial):
        file = tmp_path / "killed" / "checkpoints" / f"{trial}.safetensors"
        with contextlib.suppress(OSError, SafetensorError), safe_open(file, framework="pt") as checkpoint:
            return json.loads(checkpoint.metadata()["training"])["state"]["done"] == 20
        return False

    killed = kill_workers(monkeypatch, 1, at_20)
    run = small_search(tmp_path, run="killed", **RAY, **same)
    assert killed == [0]
    starts = [event["epochs"] for event in events_of(run) if event["event"] == "started" and event["trial"] == 0]
    assert starts == [0, 20]
    rungs = [[e for e in events_of(each) if e["event"] == "rung"] for each in (undisturbed, run)]
    assert [(e["accuracy"], e["loss"]) for e in rungs[0]] == [(e["accuracy"], e["loss"]) for e in rungs[1]]
    assert run.trials["epochs"].tolist() == [40] * 3
    assert not list((run.path / "checkpoints").iterdir())


def test_a_worker_that_is_lost_too_often_fails_its_trial_and_the_run_goes_on(cluster, tmp_path, monkeypatch):
    killed = kill_workers(monkeypatch, 2, lambda trial: True)
    more = {"train.epochs": 60, "trials.retries": 1, "trials.concurrent": 1}
    run = small_search(tmp_path, budget=4, **RAY, **more)
    assert killed == [0, 0]
    lost = run.trials[run.trials["state"] == "failed"]
    assert lost["trial"].tolist() == [0]
    assert lost["reason"].str.startswith("worker lost: ").all()
    assert not lost["reason"].str.contains("None").any()
    assert (run.trials["state"] == "completed").sum() == 3
    assert sum(event["event"] == "ended" for event in events_of(run)) == 4


RUNGS = {"scheduler": "mo_asha", "mo_asha.reduction": 2, "mo_asha.rungs": 2, "train.epochs": 4}


def test_rungs_through_ray_are_those_of_the_inline_executor(cluster, tmp_path):
    same = {"budget": 8, "objectives": ["error", "macs"], "trials.concurrent": 1, **RUNGS}
    by_ray = small_search(tmp_path, run="ray", **RAY, **same)
    inline = small_search(tmp_path, run="inline", **same)
    assert proposals_of(by_ray) == proposals_of(inline)
    columns = ["state", "epochs", "accuracy", "reason"]
    assert by_ray.trials[columns].equals(inline.trials[columns])
    assert set(by_ray.trials["state"]) == {"completed", "stopped"}


def test_a_budget_of_epochs_ends_a_search_through_ray(cluster, tmp_path):
    run = small_search(tmp_path, budget=100, budget_epochs=16, objectives=["error", "macs"], **RAY, **RUNGS)
    assert run.reason == "budget_epochs"
    assert 16 <= sum(event["epochs"] for event in events_of(run) if event["event"] == "rung") <= 24


@pytest.mark.slow
def test_a_worker_that_is_lost_at_a_rung_leaves_every_trial_with_its_one_state(cluster, tmp_path, monkeypatch):
    killed = kill_workers(monkeypatch, 2, lambda trial: True)
    run = small_search(tmp_path, budget=8, **RAY, **RUNGS, **{"trials.retries": 0})
    states = run.trials.set_index("trial")["state"]
    assert len(killed) == 2 and set(states[killed]) == {"failed"}
    assert {"completed", "stopped"} <= set(states) and len(states) == 8
    ended = [event["trial"] for event in events_of(run) if event["event"] == "ended"]
    assert sorted(ended) == list(range(8))
    journal = journal_of(run).trials
    assert len(journal) == 8 and all(trial.state.is_finished() for trial in journal)


def test_a_run_is_resumed_through_ray(cluster, tmp_path):
    first = small_search(tmp_path, run="more", budget=3, **RAY)
    resumed = small_search(tmp_path, run="more", budget=6, resume=True, **RAY)
    assert resumed.trials["trial"].tolist() == list(range(6))
    assert proposals_of(resumed)[:3] == proposals_of(first)[:3]
    assert resumed.trials["arch_id"].is_unique


def test_ctrl_c_is_the_users_again_after_a_search(cluster, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    small_search(tmp_path, budget=1, **RAY)
    assert signal.getsignal(signal.SIGINT) is before


def test_latencies_are_measured_on_the_node_that_declares_it(measuring_cluster, tmp_path, monkeypatch):
    from nas.latency import meter

    here = []
    monkeypatch.setattr(meter, "measure_interleaved", lambda *args, **how: here.append(args))
    run = small_search(tmp_path, budget=3, merge="latency", **RAY, **{"latency.limit_s": 0.2, "train.epochs": 2})
    assert run.trials["state"].tolist() == ["completed"] * 3 and len(run.front) >= 1
    assert here == []  # nor for the front, which this process asks for


def test_what_the_measuring_node_cannot_do_is_refused_before_a_run_is_made(measuring_cluster, tmp_path):
    with pytest.raises(ValueError, match=r"^latency.threads=1024 is not allowed; allowed: 1 to \d+, the cores here$"):
        small_search(tmp_path, **RAY, **{"latency.threads": 1024, "ray.address": "auto"})
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_calls_of_several_trials_end_each_trial_once_though_a_worker_is_lost(cluster, tmp_path, monkeypatch):
    from analysis import driver_contestants
    from nas.tune.trainable import HELD_S

    class Killed(driver_contestants.LookUp):
        def __call__(self, assignment, worker):
            with (tmp_path / "judged").open("a") as judged:
                judged.write(f"{assignment.trial}\n")
            lost = tmp_path / "lost"
            if assignment.trial == 7 and not lost.exists():
                lost.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            priced, ended = super().__call__(assignment, worker)
            yield priced
            time.sleep(2 * HELD_S if assignment.trial == 6 else 0)  # then it is reported before the next one begins
            yield ended

    monkeypatch.setattr(driver_contestants, "LookUp", Killed)
    driver_contestants.ours("mobile", 33, tmp_path, per_call=5)
    run = Run(tmp_path / "ours")
    assert Counter(map(int, (tmp_path / "judged").read_text().split())) == Counter([*range(33), 7])
    for kind in ("proposed", "ended"):
        assert Counter(e["trial"] for e in events_of(run) if e["event"] == kind) == Counter(range(33))
    assert set(run.trials["state"]) == {"completed"} and run.trials["arch_id"].is_unique
    journal = journal_of(run).trials
    assert len(journal) == 33 and all(trial.state.is_finished() for trial in journal)
    calls = [path for path in (run.path / "ray").iterdir() if path.is_dir()]
    assert len(calls) == 7 + 3  # those that were left of the lost one, each by itself

import os
import signal

import pytest

from tests.searching import events_of, proposals_of, small_search


@pytest.fixture(scope="module")
def cluster():
    """One Ray for all tests: starting it takes seconds."""
    from nas.config import SearchConfig
    from nas.tune.ray_executor import ray_session

    with ray_session(SearchConfig(), dashboard=False):
        yield


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


def test_a_killed_worker_fails_its_trial_and_the_run_goes_on(cluster, tmp_path, monkeypatch):
    from nas.tune.searcher import EventCallback

    passed_on, killed = EventCallback.on_trial_result, []

    def kill_once(self, iteration, trials, trial, result, **info):
        passed_on(self, iteration, trials, trial, result, **info)
        if not killed and result.get("event", {}).get("event") == "started":
            killed.append(result["event"]["trial"])
            os.kill(result["pid"], signal.SIGKILL)

    monkeypatch.setattr(EventCallback, "on_trial_result", kill_once)
    run = small_search(tmp_path, budget=6, **RAY, **{"train.epochs": 60})
    lost = run.trials[run.trials["state"] == "failed"]
    assert lost["trial"].tolist() == killed
    assert lost["reason"].str.startswith("worker lost").all()
    assert (run.trials["state"] == "completed").sum() == 5
    assert sum(event["event"] == "ended" for event in events_of(run)) == 6


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

"""Searches with rungs: short trainings of all trials, long ones of the best."""

import json

import optuna
import pytest

import nas
from nas.training.failures import Diverged
from tests.searching import events_of, journal_of, small_search

RUNGS = {"scheduler": "mo_asha", "mo_asha.reduction": 2, "mo_asha.rungs": 2, "train.epochs": 4}


def of_kind(run, kind):
    """The events of one kind, by trial."""
    found: dict[int, list[dict]] = {}
    for event in events_of(run):
        if event["event"] == kind:
            found.setdefault(event["trial"], []).append(event)
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return small_search(tmp_path_factory.mktemp("runs"), budget=12, objectives=["error", "macs"], **RUNGS)


def test_all_are_trained_a_little_and_the_best_in_full(run):
    trials = run.trials
    assert set(trials["state"]) == {"completed", "stopped"}
    assert len(trials) == 12
    rungs = of_kind(run, "rung")
    for row in trials.to_dict("records"):
        epochs = [event["epochs"] for event in rungs[row["trial"]]]
        assert epochs == ([2, 4] if row["state"] == "completed" else [2])
        assert row["epochs"] == epochs[-1]
        assert row["accuracy"] == rungs[row["trial"]][-1]["accuracy"]
        assert row["train_s"] == pytest.approx(sum(event["train_s"] for event in rungs[row["trial"]]))
    assert 2 <= (trials["state"] == "completed").sum() <= 8
    assert (trials.loc[trials["state"] == "stopped", "reason"] == "stopped at the rung of 2 epochs").all()


def test_only_full_trainings_are_on_the_front_and_deployed(run):
    assert (run.front["state"] == "completed").all()
    assert (run.front["epochs"] == 4).all()
    assert {path.name for path in (run.path / "models").iterdir()} == {str(trial) for trial in run.front["trial"]}


def test_the_accuracy_of_a_rung_is_that_of_a_whole_training_of_so_many_epochs(run, tmp_path):
    stopped = run.trials[run.trials["state"] == "stopped"].iloc[0]
    words = next(e for e in events_of(run) if e["event"] == "proposed" and e["trial"] == stopped["trial"])
    (tmp_path / "arch.json").write_text(json.dumps(words["architecture"]))
    from nas.command_line import make
    from nas.config import TrainCommandConfig
    from nas.train_one import train_one

    given = {"arch": str(tmp_path / "arch.json"), "data": "digits", "out": str(tmp_path / "out"), "threads": 1}
    train_one(make({**given, "train.epochs": 2, "train.warmup_epochs": 0}, TrainCommandConfig))
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["val_accuracy"] == stopped["accuracy"]


def test_in_the_study_each_trial_has_its_one_state(run):
    states = {"completed": optuna.trial.TrialState.COMPLETE, "stopped": optuna.trial.TrialState.PRUNED}
    journal = {trial.user_attrs["trial"]: trial for trial in journal_of(run).trials}
    assert len(journal) == 12
    for row in run.trials.to_dict("records"):
        assert journal[row["trial"]].state == states[row["state"]]
        assert (journal[row["trial"]].values is None) == (row["state"] == "stopped")


def test_failures_at_a_rung_are_failures(tmp_path, monkeypatch):
    from nas import pipeline

    trainings = []

    class Failing(pipeline.Training):
        def epochs(self):
            trainings.append(self)
            if len(trainings) % 3 == 0:
                raise Diverged("diverged: the loss is nan in epoch 1")
            if len(trainings) % 5 == 0:
                raise RuntimeError("a bug")
            yield from super().epochs()

    monkeypatch.setattr(pipeline, "Training", Failing)
    run = small_search(tmp_path, budget=12, objectives=["error", "macs"], **RUNGS)
    counts = run.trials["state"].value_counts()
    assert counts["failed"] >= 3 and counts.sum() == 12
    failed = run.trials[run.trials["state"] == "failed"]
    assert set(failed["reason"]) <= {"diverged: the loss is nan in epoch 1", "RuntimeError: a bug"}
    assert failed["accuracy"].isna().all()
    assert all(trial.state.is_finished() for trial in journal_of(run).trials)
    assert len(of_kind(run, "ended")) == 12 and all(len(each) == 1 for each in of_kind(run, "ended").values())


def test_an_interrupted_search_goes_on_from_its_rungs(tmp_path, monkeypatch):
    from nas.tune import judging

    judge, events = judging.judge, []

    def interrupted(*args):
        for event in judge(*args):
            events.append(event)
            yield event
            if len(events) == 14:
                raise KeyboardInterrupt

    monkeypatch.setattr(judging, "judge", interrupted)
    first = small_search(tmp_path, run="it", budget=8, objectives=["error", "macs"], **RUNGS)
    assert first.reason == "interrupted"
    waiting = set(of_kind(first, "rung")) - set(of_kind(first, "ended"))
    assert waiting
    monkeypatch.undo()
    whole = small_search(tmp_path, run="it", resume=True, budget=8, objectives=["error", "macs"], **RUNGS)
    assert len(whole.trials) == 8 and whole.reason == "budget"
    rungs = of_kind(whole, "rung")
    for trial in waiting:  # what was known at a rung was not trained for again
        assert [event["epochs"] for event in rungs[trial]].count(2) == 1


def test_a_budget_of_epochs_ends_the_search(tmp_path):
    run = small_search(tmp_path, budget=100, budget_epochs=20, objectives=["error", "macs"], **RUNGS)
    assert run.reason == "budget_epochs"
    spent = sum(event["epochs"] for rungs in of_kind(run, "rung").values() for event in rungs)
    assert 20 <= spent < 24
    assert set(run.trials["state"]) <= {"completed", "stopped"}


def test_a_front_that_does_not_move_ends_the_search(tmp_path):
    patience = {"stop.hypervolume_patience": 3}
    run = small_search(tmp_path, budget=40, objectives=["error", "macs"], **patience)
    assert run.reason == "patience"
    last = run.trials["trial"].max()
    assert run.front["trial"].max() <= last - 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scheduler": "asha"}, "scheduler=asha is not allowed; allowed: one of full, mo_asha"),
        ({"mo_asha.reduction": 1}, "mo_asha.reduction=1 is not allowed"),
        ({"budget_epochs": 0}, "budget_epochs=0 is not allowed"),
        ({"stop.hypervolume_patience": 0}, "stop.hypervolume_patience=0 is not allowed"),
    ],
)
def test_bad_settings_are_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        nas.run_search(verbose=False, runs_dir=str(tmp_path), **settings)


def test_a_trial_that_was_trained_in_full_but_not_written_down_is_trained_again(tmp_path, monkeypatch):
    from nas.tune import judging

    judge = judging.judge

    def interrupted(*args):
        for event in judge(*args):
            yield event
            if event.kind == "rung" and event.epochs == 4:
                raise KeyboardInterrupt

    monkeypatch.setattr(judging, "judge", interrupted)
    same = {"run": "it", "budget": 6, "objectives": ["error", "macs"], **RUNGS}
    first = small_search(tmp_path, **same)
    (lost,) = {t for t, rungs in of_kind(first, "rung").items() if rungs[-1]["epochs"] == 4}
    monkeypatch.undo()
    whole = small_search(tmp_path, resume=True, **same)
    assert whole.trials.set_index("trial").loc[lost, "state"] == "completed"
    assert len(whole.trials) == 6


def test_a_rung_that_is_reached_again_after_a_loss_is_no_reason_to_wait(tmp_path, monkeypatch):
    from nas.tune import judging

    judge, repeated = judging.judge, []

    def restarted(*args):
        rung = None
        for event in judge(*args):
            if event.kind == "started" and rung is not None:
                repeated.append(rung.trial)
                yield rung
            rung = event if event.kind == "rung" else rung
            yield event

    monkeypatch.setattr(judging, "judge", restarted)
    run = small_search(tmp_path, budget=10, objectives=["error", "macs"], **RUNGS)
    states = run.trials.set_index("trial")["state"]
    assert repeated and set(states[repeated]) == {"completed"}

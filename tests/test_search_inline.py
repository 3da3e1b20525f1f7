import json
import shutil

import numpy as np
import onnxruntime
import optuna
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import analysis
import nas
from nas.data import load_data
from nas.results import Run
from nas.samplers import SAMPLERS
from nas.store import RunStore
from nas.training.failures import Diverged
from tests.searching import events_of, journal_of, proposals_of, quick_latency, small_search

ORDER = ["proposed", "priced", "started", "rung", "ended"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return small_search(tmp_path_factory.mktemp("runs"), run="one", budget=8)


def test_every_trial_tells_its_whole_story_in_order(run):
    by_trial = {}
    for event in events_of(run):
        by_trial.setdefault(event["trial"], []).append(event["event"])
    assert sorted(by_trial) == list(range(8))
    assert all(story[:5] == ORDER for story in by_trial.values())
    assert all(story.count("ended") == 1 for story in by_trial.values())


def test_no_architecture_is_judged_twice(run):
    assert run.trials["arch_id"].is_unique
    assert run.reason == "budget"


def test_front_is_the_non_dominated_set_of_the_latest_values(run):
    trials = run.trials
    points = trials[["error", "latency_ms"]].to_numpy()
    dominated = [((points <= p).all(1) & (points < p).any(1)).any() for p in points]
    assert (trials["on_front"].to_numpy() == ~np.array(dominated)).all()
    front = trials[trials["on_front"]]
    assert front["remeasured"].all()
    assert front["test_accuracy"].notna().all()
    assert trials.loc[~trials["on_front"], "test_accuracy"].isna().all()


def test_the_fronts_train_forms_are_timed_too_and_images_are_counted(run):
    store = RunStore.open(run.path)
    timed = {record.trial for record in store.records() if record.unfused is not None}
    assert timed == set(run.front["trial"])
    assert store.environment()["images"] == {"train": 1010, "validation": 337, "test": 450}


def test_derived_files_say_what_the_events_say(run):
    table = analysis.load_run(run.path)
    written = pd.read_csv(run.path / "trials.csv")
    assert written["trial"].tolist() == table["trial"].tolist()
    assert np.allclose(written["latency_ms"], table["latency_ms"])
    pareto = pd.read_csv(run.path / "pareto.csv")
    assert sorted(pareto["trial"]) == sorted(table.loc[table["on_front"], "trial"])
    assert pareto["latency_ms"].is_monotonic_increasing
    assert (run.path / "pareto.png").read_bytes().startswith(b"\x89PNG")
    assert (run.path.parent / "latest").resolve() == run.path


def test_models_are_the_front_and_onnx_predicts_as_the_stored_weights(run):
    data = load_data("digits", "unused", 0.25, 0)
    front = run.front
    assert sorted(int(path.name) for path in (run.path / "models").iterdir()) == sorted(front["trial"])
    for row in front.to_dict("records"):
        folder = run.path / "models" / str(row["trial"])
        arch = nas.load_architecture(folder / "architecture.json")
        assert arch.arch_id == row["arch_id"]
        metrics = json.loads((folder / "metrics.json").read_text())
        network = nas.build(arch, num_classes=10, input_shape=(1, 8, 8), form="deploy")
        network.load_state_dict(load_file(folder / "model.safetensors"))
        mean, std = np.array(metrics["input"]["mean"]), np.array(metrics["input"]["std"])
        images = ((data.test.x.numpy() - mean[:, None, None]) / std[:, None, None]).astype(np.float32)
        with torch.inference_mode():
            expected = network(torch.from_numpy(images)).argmax(1).numpy()
        session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
        (logits,) = session.run(None, {"images": images})
        assert (logits.argmax(1) == expected).all()
        accuracy = (expected == data.test.y.numpy()).mean()
        assert accuracy == pytest.approx(metrics["test_accuracy"]) == pytest.approx(row["test_accuracy"])
        assert metrics["val_accuracy"] == pytest.approx(row["accuracy"])
        for name in ("latency_ms", "params", "macs", "peak_memory_mb"):
            assert metrics[name] == row[name]


def test_the_cost_is_that_of_the_deploy_form(run):
    for row in run.trials.to_dict("records"):
        event = next(e for e in events_of(run) if e["event"] == "proposed" and e["trial"] == row["trial"])
        arch = nas.load_architecture(json.dumps(event["architecture"]))
        deployed = nas.build(arch, num_classes=10, input_shape=(1, 8, 8), form="deploy")
        assert (row["params"], row["macs"]) == nas.count(deployed, (1, 8, 8))
        assert row["peak_memory_mb"] == nas.footprint(deployed, (1, 8, 8)).peak_mb(1, "float32")


def test_networks_with_one_deploy_form_share_one_latency(tmp_path):
    trials = small_search(tmp_path, budget=20).trials
    shared = trials.groupby("deploy_id")["latency_ms"].nunique()
    assert (shared == 1).all()
    assert trials["deploy_id"].nunique() < trials["arch_id"].nunique()


def test_an_exhausted_space_ends_the_run_with_that_word(tmp_path):
    run = small_search(tmp_path, budget=50)
    assert run.reason == "exhausted"
    assert len(run.trials) == nas.load_space("tiny").size
    assert run.trials["arch_id"].is_unique


def test_same_seed_same_architectures_by_macs(tmp_path):
    runs = [small_search(tmp_path, run=name, budget=12, objectives=["error", "macs"]) for name in "ab"]
    assert proposals_of(runs[0]) == proposals_of(runs[1])
    assert runs[0].trials["accuracy"].tolist() == runs[1].trials["accuracy"].tolist()
    other = small_search(tmp_path, run="c", budget=12, objectives=["error", "macs"], seed=1)
    assert proposals_of(other) != proposals_of(runs[0])


@pytest.mark.parametrize(("name", "limit"), [("params", 1500), ("peak_memory_mb", 0.008)])
def test_exact_cost_proposes_nothing_that_breaks_a_constraint(tmp_path, name, limit):
    run = small_search(tmp_path, budget=5, **{f"constraints.{name}": limit})
    assert run.trials["state"].tolist() == ["completed"] * 5
    assert (run.trials[name] <= limit).all()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_finishes_without_repeats(tmp_path, sampler):
    run = small_search(tmp_path, sampler=sampler, budget=6, objectives=["error", "macs", "peak_memory_mb"])
    assert run.trials["arch_id"].is_unique
    assert len(run.trials) == 6


def test_infeasible_trials_are_not_trained_and_do_not_count(tmp_path):
    run = small_search(tmp_path, budget=4, sampler="random", **{"constraints.params": 1500})
    trials = run.trials
    infeasible = trials[trials["state"] == "infeasible"]
    assert len(infeasible) and (infeasible["params"] > 1500).all()
    assert (trials.loc[trials["state"] == "completed", "params"] <= 1500).all()
    assert (trials["state"] != "infeasible").sum() == 4
    started = {event["trial"] for event in events_of(run) if event["event"] == "started"}
    assert not started & set(infeasible["trial"])
    states = {trial.user_attrs["trial"]: trial for trial in journal_of(run).trials}
    assert all(states[trial].state == optuna.trial.TrialState.PRUNED for trial in infeasible["trial"])
    assert all(states[trial].constraints["params"] > 0 for trial in infeasible["trial"])


@pytest.mark.parametrize("constraint", ["params", "macs", "peak_memory_mb", "latency_ms"])
def test_a_space_that_breaks_the_constraint_leaves_nothing_behind(tmp_path, constraint):
    with pytest.raises(ValueError, match=f"constraints.{constraint}"):
        small_search(tmp_path / "runs", **{f"constraints.{constraint}": 1e-6})
    assert not (tmp_path / "runs").exists()


def test_failed_trials_are_recorded_with_their_reason(tmp_path, monkeypatch):
    calls = iter(range(100))

    def train(training):
        number = next(calls)
        if number == 1:
            raise Diverged("diverged: the loss is nan in epoch 1")
        if number == 2:
            raise RuntimeError("out of\nmemory")
        return iter(())

    monkeypatch.setattr("nas.training.loop.Training.epochs", train)
    monkeypatch.setattr("nas.pipeline.fuse", lambda network: network.eval())
    monkeypatch.setattr("nas.job.evaluate", lambda *args, **more: 0.5)
    monkeypatch.setattr("nas.tune.run.finish", lambda *args: None)
    run = small_search(tmp_path, budget=4)
    failed = run.trials.set_index("trial").loc[[1, 2]]
    assert failed["state"].tolist() == ["failed", "failed"]
    assert failed["reason"].tolist() == ["diverged: the loss is nan in epoch 1", "RuntimeError: out of"]
    states = [trial.state for trial in journal_of(run).trials]
    assert states.count(optuna.trial.TrialState.FAIL) == 2
    assert optuna.trial.TrialState.RUNNING not in states


def test_a_trial_that_takes_too_long_fails(tmp_path):
    run = small_search(tmp_path, budget=2, **{"trials.timeout": "0.001s"})
    assert run.trials["state"].tolist() == ["failed", "failed"]
    assert run.trials["reason"].str.startswith("timeout").all()
    assert run.front.empty


def test_the_time_budget_ends_a_run_well_formed(tmp_path):
    run = small_search(tmp_path, budget=10_000, space="mobile", time_budget="3s")
    assert run.reason == "time_budget"
    assert (run.path / "pareto.csv").exists()
    assert set(run.trials["state"]) <= {"completed"}


def test_interrupting_keeps_what_was_judged(tmp_path, monkeypatch):
    from nas.tune import search_state

    recorded = search_state.SearchState.record

    def interrupted(self, event):
        if event.trial == 3 and event.kind == "started":
            raise KeyboardInterrupt
        recorded(self, event)

    monkeypatch.setattr(search_state.SearchState, "record", interrupted)
    run = small_search(tmp_path, run="cut", budget=8)
    assert run.reason == "interrupted"
    assert run.trials["trial"].tolist() == [0, 1, 2]
    in_flight = proposals_of(run)[3]
    monkeypatch.undo()

    resumed = small_search(tmp_path, run="cut", resume=True, budget=8)
    assert resumed.reason == "budget"
    assert resumed.trials["trial"].tolist() == list(range(8))
    assert resumed.trials["arch_id"].tolist()[3] == in_flight
    assert resumed.trials["arch_id"].is_unique


def test_resuming_continues_rebuilds_the_journal_and_keeps_old_trials(run, tmp_path):
    copied = tmp_path / "one"
    shutil.copytree(run.path, copied)
    (copied / "study.log").write_text("torn{")
    with (copied / "events.jsonl").open("a") as file:
        file.write('{"v": 2, "event": "prop')
    before = analysis.load_run(copied)
    resumed = small_search(tmp_path, run="one", resume=True, budget=11)
    assert len(resumed.trials) == 11
    pd.testing.assert_series_equal(resumed.trials["accuracy"][:8], before["accuracy"])
    journal = journal_of(resumed)
    assert [trial.user_attrs["arch_id"] for trial in journal.trials] == resumed.trials["arch_id"].tolist()
    values = np.array([trial.values for trial in journal.trials])
    assert np.allclose(values[:, 0], resumed.trials["error"])
    assert {path.name for path in (copied / "models").iterdir()} == {str(t) for t in resumed.front["trial"]}


def test_a_run_of_a_version_that_did_not_count_memory_is_read_and_continued(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "old")
    events, config = tmp_path / "old" / "events.jsonl", tmp_path / "old" / "config.yaml"
    lines = [{k: v for k, v in event.items() if k != "peak_memory_mb"} for event in events_of(run)]
    events.write_text("".join(json.dumps(line) + "\n" for line in lines))
    config.write_text("".join(x for x in config.read_text().splitlines(True) if "peak_memory_mb" not in x))
    before = Run(tmp_path / "old").trials
    assert before["peak_memory_mb"].isna().all() and len(before) == len(run.trials)
    trials = small_search(tmp_path, run="old", resume=True, budget=len(before) + 1).trials
    assert trials["peak_memory_mb"].notna().tolist() == [False] * len(before) + [True]


def test_resuming_another_search_is_refused(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "one")
    with pytest.raises(ValueError, match=r"train\.epochs=3.*train\.epochs=1"):
        small_search(tmp_path, run="one", resume=True, budget=11, **{"train.epochs": 3})
    small_search(tmp_path, run="seeded", seed=5, budget=1)
    with pytest.raises(ValueError, match=r"seed=0.*seed=5"):
        small_search(tmp_path, run="seeded", resume=True, seed=0)
    with pytest.raises(ValueError, match="not a run"):
        small_search(tmp_path, run="two", resume=True)


def test_the_stored_configuration_runs_again_under_a_new_name(run, tmp_path):
    with quick_latency(tmp_path):
        again = nas.run_search(verbose=False, config=str(run.path / "config.yaml"), runs_dir=str(tmp_path), budget=2)
    assert again.path.name != "one"
    assert again.path.parent == tmp_path
    assert proposals_of(again) == proposals_of(run)[:2]


def test_all_three_other_spaces_run_on_a_users_own_files(tmp_path):
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(3), 20)
    x = rng.integers(0, 256, (60, 12, 12, 3)).astype(np.uint8)
    np.savez(tmp_path / "own.npz", x=x, y=y)
    for space in ("resnet", "reducenet"):
        run = small_search(tmp_path, run=space, space=space, data=str(tmp_path / "own.npz"), budget=1)
        assert run.trials["state"].tolist() == ["completed"]


def test_what_fails_before_its_first_event_leaves_nothing(tmp_path, monkeypatch):
    def broken(*args):
        raise RuntimeError("no")

    monkeypatch.setattr("nas.tune.run.run_inline", broken)
    for doubt in ("_imprecision", "_disturbance"):  # what is doubtful, as on a busy machine, is not remembered
        monkeypatch.setattr(f"nas.latency.measure.{doubt}", lambda *_: "")
    with pytest.raises(RuntimeError):
        small_search(tmp_path, run="none")
    assert [each.name for each in tmp_path.iterdir()] == [".latency"]  # what was measured beforehand stays known


def test_paths_are_kept_absolute_and_a_changed_space_is_not_resumed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "own.yaml"
    own.write_text("stages: [{block: basic, depth: [1, 2], out_channels: [8, 16]}]\nhead: [{block: classifier}]\n")
    np.savez("own.npz", x=np.random.default_rng(0).random((60, 8, 8)), y=np.arange(60) % 3)
    run = small_search(tmp_path / "runs", run="own", space="own.yaml", data="own.npz", budget=1)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with quick_latency(tmp_path):
        again = nas.run_search(verbose=False, config=str(run.path / "config.yaml"), run="again")
    assert again.path == tmp_path / "runs" / "again"
    assert proposals_of(again) == proposals_of(run)
    own.write_text(own.read_text().replace("[8, 16]", "[8, 24]"))
    with pytest.raises(ValueError, match=r"own\.yaml.*space\.yaml"):
        nas.run_search(verbose=False, run="own", runs_dir=str(tmp_path / "runs"), resume=True, budget=2)


def test_a_network_that_cannot_be_exported_costs_nobody_else_anything(tmp_path, monkeypatch, capsys):
    from nas.tune import finish

    exported = finish.export_model
    refused = []

    def broken_once(model, directory):
        if not refused:
            refused.append(directory.name)
            raise RuntimeError("no such operator")
        exported(model, directory)

    monkeypatch.setattr(finish, "export_model", broken_once)
    run = small_search(tmp_path, verbose=True, budget=8, train={"epochs": 2})
    models = {path.name for path in (run.path / "models").iterdir()}
    assert models == {str(trial) for trial in run.front["trial"]} - set(refused)
    assert "no such operator" in capsys.readouterr().out

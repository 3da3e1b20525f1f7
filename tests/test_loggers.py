import pytest
from tensorboardX.proto.event_pb2 import Event as TensorBoardEvent

from nas import search
from nas.tune import loggers
from tests.searching import small_search

COUNTED = {"objectives": ["error", "macs"]}


def scalars(folder):
    """What TensorBoard's event files say: {tag: [(step, value), ...]}, in the order of writing."""
    said = {}
    for file in sorted(folder.iterdir()):
        content = file.read_bytes()
        while content:  # records of TensorFlow: length, checksum, bytes, checksum
            length = int.from_bytes(content[:8], "little")
            event = TensorBoardEvent.FromString(content[12 : 12 + length])
            content = content[16 + length :]
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    said.setdefault(value.tag, []).append((event.step, value.simple_value))
    return said


def by_trial(run, column):
    trials = run.trials.dropna(subset=[column])
    return dict(zip(trials["trial"], trials[column], strict=True))


def test_tensorboard_has_every_trial_once_whenever_it_was_asked_for(tmp_path):
    run = small_search(tmp_path, run="mine", budget=2, **COUNTED)
    assert not (run.path / "tensorboard").exists()
    run = small_search(tmp_path, run="mine", resume=True, budget=3, log=["tensorboard"])
    first = scalars(run.path / "tensorboard")
    run = small_search(tmp_path, run="mine", resume=True, budget=4)
    again = scalars(run.path / "tensorboard")
    for tag in ("trial/accuracy", "search/front_size", "state/completed"):
        assert [step for step, _ in again[tag]] == [0, 1, 2, 3]
        assert again[tag][:3] == first[tag]
    assert dict(again["trial/accuracy"]) == pytest.approx(by_trial(run, "accuracy"))
    assert dict(again["trial/macs"]) == by_trial(run, "macs")
    assert min(dict(again["trial/latency_ms"]).values()) > 0
    best = [value for _, value in again["search/best_accuracy"]]
    assert best == sorted(best) and best[-1] == pytest.approx(run.trials["accuracy"].max())
    assert again["search/front_size"][-1][1] == len(run.front)


class Failing:
    """A log that fails with its second trial, and at the end."""

    has: frozenset[int] = frozenset()

    def __init__(self, config, store):
        self.times = 0

    def write(self, trial, metrics):
        self.times += 1
        if self.times > 1:
            raise OSError(28, "No space left on device")

    def end(self, finished):
        raise AssertionError("a log that was given up is not ended")


def test_a_log_that_fails_ends_itself_only(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(loggers.LOGGERS, "mlflow", loggers.Logger("json", Failing))
    run = small_search(tmp_path, verbose=True, budget=2, log=["mlflow", "tensorboard"])
    said = [line for line in capsys.readouterr().out.splitlines() if "log=mlflow" in line]
    assert said == ["log=mlflow is given up, the search goes on: No space left on device"]
    assert run.reason == "budget" and len(scalars(run.path / "tensorboard")["trial/accuracy"]) == 2


def test_an_unknown_log_or_one_without_its_library_is_refused_before_anything_begins(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(loggers.LOGGERS, "mlflow", loggers.Logger("no_such_library", Failing))
    words = ["space=tiny", "trials.executor=inline", f"runs_dir={tmp_path / 'runs'}"]
    for log, parts in {
        "[tensorbord]": ["'tensorbord'", "allowed: tensorboard, mlflow"],
        "[mlflow]": ["log=mlflow", "pip install 'nas-fused[mlflow]'"],
        "mlflow": ["log=mlflow"],
    }.items():
        assert search.main([*words, f"log={log}"]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1
        assert all(part in err for part in parts), err
    assert not (tmp_path / "runs").exists()


def test_mlflow_has_one_run_a_search_and_every_trial_once(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    mlflow.set_tracking_uri(None)
    runs = tmp_path / "runs"
    small_search(runs, run="mine", budget=2, log=["mlflow"], **COUNTED)
    # As if the driver had been killed between a trial's event and its metrics: it is made good for.
    monkeypatch.setattr(loggers.MlflowLog, "write", lambda *_: None)
    small_search(runs, run="mine", resume=True, budget=3)
    monkeypatch.undo()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    run = small_search(runs, run="mine", resume=True, budget=5)

    client = mlflow.MlflowClient()
    (logged,) = client.search_runs([client.get_experiment_by_name("nas").experiment_id])
    assert logged.info.run_name == "mine" and logged.info.status == "FINISHED"
    assert logged.data.params["space"] == "tiny" and logged.data.params["train.epochs"] == "1"
    accuracies = client.get_metric_history(logged.info.run_id, "trial/accuracy")
    assert sorted(each.step for each in accuracies) == [0, 1, 2, 3, 4]
    assert {each.step: each.value for each in accuracies} == pytest.approx(by_trial(run, "accuracy"))
    assert logged.data.metrics["search/front_size"] == len(run.front)

"""`python -m nas.train`: what it leaves, what it says, how it goes on, and what it refuses."""

import contextlib
import io
import json

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

import nas
from nas import pipeline, train
from nas.config import TrainCommandConfig, TrainOverrides
from nas.data import load_data
from nas.deploy import load_deployed
from nas.job import make_job
from nas.networks.fading import FadingActivation, set_fading
from nas.networks.fusing import fuse
from nas.training.loop import Training
from tests.helpers import relative_difference
from tests.searching import quick_latency, small_search

pytestmark = pytest.mark.usefixtures("one_thread")
FILES = ["architecture.json", "metrics.json", "model.onnx", "model.safetensors", "train.safetensors"]
FIGURES = ["val_accuracy", "test_accuracy", "train_s", "params", "macs", "latency_ms"]
# With a network that fades (`fading_sample`): what is only there while it trains must be gone from what ships.
WORDS = ["train.epochs=6", "train.ema=0.8", "train.dropout=0.1", "seed=1", "threads=1", "latency.tolerance=1"]


def fading_sample():
    """A seed whose sample of the tiny space has activations that fade."""
    space = nas.load_space("tiny")
    return next(seed for seed in range(99) if any(b.name == "reduce" for b in space.sample(seed).blocks))


def command(folder, *words, out="out"):
    """The exit code of a training whose files go to `folder / out`."""
    common = [word for word in WORDS if word.split("=")[0] not in {each.split("=")[0] for each in words}]
    with quick_latency(folder):
        return train.main([*common, f"out={folder / out}", *words])


def refused(folder, capsys, *words):
    """The one line with which bad input is refused, of which nothing is written."""
    before = sorted(folder.rglob("*"))
    assert command(folder, *words) == 2
    shown, err = capsys.readouterr()
    assert shown == "" and err.startswith("nas.train: ") and err.count("\n") == 1, (shown, err)
    assert sorted(folder.rglob("*")) == before
    return err


@pytest.fixture(scope="module")
def data():
    return load_data("digits", "unused", 0.25, fading_sample())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder that the command left, and what it printed."""
    folder = tmp_path_factory.mktemp("trained")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert command(folder, "arch=tiny", f"seed={fading_sample()}") == 0
    return folder / "out", printed.getvalue()


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def deployed(folder, data):
    arch = nas.load_architecture(folder / "architecture.json")
    return load_deployed(arch, folder / "model.safetensors", data.num_classes, data.input_shape)[0].eval()


def predictions(network, data):
    with torch.inference_mode():
        return network(data.normalize(data.test.x)).argmax(1).numpy()


# --- what it leaves


def test_the_folder_holds_both_forms_and_their_figures(trained, data):
    folder, _ = trained
    assert sorted(each.name for each in folder.iterdir()) == FILES
    metrics = metrics_of(folder)
    arch = nas.load_space("tiny").sample(fading_sample())
    assert (metrics["arch_id"], metrics["deploy_id"]) == (arch.arch_id, arch.deploy_id)
    assert nas.load_architecture(folder / "architecture.json") == arch
    network = nas.build(arch, num_classes=10, input_shape=(1, 8, 8), form="deploy")
    assert (metrics["params"], metrics["macs"]) == nas.count(network, (1, 8, 8))
    assert metrics["latency_ms"] > 0 and metrics["train_s"] > 0 and metrics["epochs"] == 6
    assert metrics["recipe"]["ema"] == 0.8 and metrics["recipe"]["batch_size"] == 64
    assert metrics["classes"] == list("0123456789") and metrics["metric"] == "accuracy"
    assert 0.5 < metrics["val_accuracy"] <= 1


def test_the_figures_are_printed(trained):
    folder, printed = trained
    metrics, lines = metrics_of(folder), printed.splitlines()
    for name in FIGURES:
        (line,) = [line for line in lines if line.split(" ")[0] == name]
        assert float(line.split()[1].replace(",", "")) == pytest.approx(metrics[name], rel=0.01, abs=0.051), line
    assert [line.split(":")[0] for line in lines if line.startswith("epoch")] == [
        f"epoch {i} of 6" for i in range(1, 7)
    ]
    assert any(str(folder) in line for line in lines)


def test_the_test_accuracy_is_that_of_the_fused_network_that_is_stored(trained, data):
    folder, _ = trained
    found = predictions(deployed(folder, data), data)
    assert metrics_of(folder)["test_accuracy"] == accuracy_score(data.test.y.numpy(), found)
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    (logits,) = session.run(None, {"images": data.normalize(data.test.x).numpy()})
    assert (logits.argmax(1) == found).all()


def job_of(folder, weights):
    config = TrainCommandConfig(seed=fading_sample(), weights=str(weights), train=TrainOverrides(epochs=1))
    return make_job(config), nas.load_architecture(folder / "architecture.json")


def test_the_train_form_fuses_to_what_ships(trained, data):
    folder, _ = trained
    job, arch = job_of(folder, folder / "train.safetensors")
    network = job.build(arch).eval()
    assert any(isinstance(module, FadingActivation) for module in network.modules())
    set_fading(network, 0.0)  # weights are taken over, not how far they had faded
    images = data.normalize(data.test.x)
    with torch.no_grad():
        assert relative_difference(deployed(folder, data)(images), fuse(network)(images)) < 1e-4
    state = load_file(folder / "train.safetensors")
    assert {float(value) for name, value in state.items() if name.endswith(".lam")} == {0.0}


def test_the_train_form_can_be_trained_on_and_the_deploy_form_cannot(trained, tmp_path, capsys):
    folder, _ = trained
    words = [f"arch={folder}", "train.epochs=1", f"seed={fading_sample()}"]
    assert command(tmp_path, *words, f"weights={folder / 'train.safetensors'}") == 0
    capsys.readouterr()
    (tmp_path / "b").mkdir()
    err = refused(tmp_path / "b", capsys, *words, f"weights={folder / 'model.safetensors'}")
    assert "model.safetensors" in err and "deploy form" in err


# --- interrupted


class Cut(Training):
    """A training that is interrupted once, as its third epoch ends."""

    cuts = 0

    def epochs(self):
        for epoch in super().epochs():
            if epoch.number == 3 and Cut.cuts == 0:
                Cut.cuts += 1
                raise KeyboardInterrupt
            yield epoch


def interrupt(folder, monkeypatch, capsys, *words):
    monkeypatch.setattr(Cut, "cuts", 0)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "Training", Cut)
        assert command(folder, *words) == 130
    assert capsys.readouterr().err == "nas.train: interrupted\n"
    assert [each.name for each in (folder / "out").iterdir()] == ["checkpoint.safetensors"]


def test_an_interrupted_training_goes_on_and_ends_like_an_undisturbed_one(trained, tmp_path, monkeypatch, capsys):
    words = ["arch=tiny", f"seed={fading_sample()}"]
    interrupt(tmp_path, monkeypatch, capsys, *words)
    file = tmp_path / "out" / "checkpoint.safetensors"
    with safe_open(file, framework="pt") as written:
        said = json.loads(written.metadata()["training"])
    # A long time that the first process took: it is part of the figure.
    said["progress"]["train_s"] += 1000
    save_file(load_file(file), file, metadata={"training": json.dumps(said)})
    assert command(tmp_path, *words) == 0
    printed = capsys.readouterr().out
    assert "epoch 3 of 6" in printed and "epoch 2 of 6" not in printed
    folder, out = trained[0], tmp_path / "out"
    assert sorted(each.name for each in out.iterdir()) == FILES
    (old, new) = (load_file(each / "train.safetensors") for each in (folder, out))
    assert all(torch.equal(old[name], new[name]) for name in old)
    before, after = metrics_of(folder), metrics_of(out)
    for name in ("val_accuracy", "test_accuracy", "params", "macs", "epochs", "recipe"):
        assert before[name] == after[name]
    assert after["train_s"] > said["progress"]["train_s"] > 1000


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("train.learning_rate=0.02", "train.learning_rate"),
        ("data.image_size=12", "images, mean, std"),
        ("val_share=0.3", "images, mean, std, class_counts"),
        ("seed=77", "arch_id, seed"),
    ],
)
def test_an_unfinished_training_is_not_continued_nor_replaced_by_another(tmp_path, monkeypatch, capsys, word, named):
    words = ["arch=tiny", f"seed={fading_sample()}"]
    interrupt(tmp_path, monkeypatch, capsys, *words)
    before = (tmp_path / "out" / "checkpoint.safetensors").read_bytes()
    err = refused(tmp_path, capsys, *words, word)
    assert "unfinished training" in err and f"({named}" in err, err
    assert (tmp_path / "out" / "checkpoint.safetensors").read_bytes() == before


# --- bad input


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ([], ["arch is missing", "allowed"]),
        (["arch=resnet2"], ["resnet2", "zoo"]),
        (["arch=zoo/resnet2"], ["zoo/resnet2", "resnet20"]),
        (["arch=/nowhere/architecture.json"], ["/nowhere/architecture.json"]),
        (["arch=/nowhere/run:3"], ["/nowhere/run", "events.jsonl"]),
        (["arch=tiny", "train.epoch=3"], ["train.epoch", "train.epochs"]),
        (["arch=tiny", "budget=3"], ["budget"]),
        (["arch=tiny", "train.epochs=0"], ["train.epochs=0", "1 to"]),
        (["arch=tiny", "train.precision=fp16", "device=cpu"], ["train.precision=fp16", "device=cpu", "float32"]),
        (["arch=tiny", "latency.calibration=x.json"], ["latency.calibration=x.json", "measured"]),
        (["arch=tiny", "metric=f1"], ["metric=f1", "macro_f1"]),
        (["arch=tiny", "data=/nowhere"], ["/nowhere"]),
        (["arch=tiny", "weights=/nowhere/x.pth"], ["/nowhere/x.pth"]),
        (["arch=tiny", "train.teacher=/nowhere"], ["train.teacher=/nowhere"]),
        (["arch=tiny", "train.teacher_weights=x.pth"], ["train.teacher_weights=x.pth", "train.teacher"]),
        (["arch=tiny", "plugins=[no_such_module]"], ["no_such_module"]),
        (["arch=tiny", "device"], ["device", "key=value"]),
    ],
    ids=lambda each: " ".join(each),
)
def test_bad_input_gets_one_line_and_leaves_nothing(tmp_path, capsys, words, parts):
    err = refused(tmp_path, capsys, *words)
    assert all(part in err for part in parts), err


def test_a_folder_with_something_in_it_is_refused_and_kept(trained, tmp_path, capsys):
    folder, _ = trained
    before = {each.name: each.read_bytes() for each in folder.iterdir()}
    err = refused(folder.parent, capsys, "arch=tiny")
    assert f"out={folder} is not empty" in err
    assert {each.name: each.read_bytes() for each in folder.iterdir()} == before
    (tmp_path / "out").write_text("a file")
    assert f"out={tmp_path / 'out'}" in refused(tmp_path, capsys, "arch=tiny")


# --- a training that fails

EXPLODES = ["train.optimizer=sgd", "train.learning_rate=100", "train.warmup_epochs=0", "train.weight_decay=10"]


@pytest.mark.parametrize("ema", ["train.ema=0", "train.ema=0.9"])
def test_a_training_that_diverges_says_so_and_leaves_no_result(tmp_path, capsys, ema):
    assert command(tmp_path, "arch=tiny", ema, *EXPLODES) == 1
    err = capsys.readouterr().err
    assert err.startswith("nas.train: ") and "diverged" in err and err.count("\n") == 1, err
    assert not list((tmp_path / "out").glob("*"))
    assert command(tmp_path, "arch=tiny", "train.epochs=1") == 0, "the folder can be used again"


# --- metrics


@pytest.mark.parametrize(
    ("metric", "score"),
    [("macro_f1", lambda *of: f1_score(*of, average="macro")), ("balanced_accuracy", balanced_accuracy_score)],
)
def test_the_metric_is_scikit_learns(tmp_path, metric, score):
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(3), (100, 40, 20))
    x = rng.integers(0, 120, (160, 8, 8)) + 50 * y[:, None, None]
    np.savez(tmp_path / "own.npz", x=x.clip(0, 255).astype(np.uint8), y=y)
    words = [f"data={tmp_path / 'own.npz'}", f"metric={metric}", "train.epochs=2", "train.batch_size=16", "seed=0"]
    assert command(tmp_path, "arch=tiny", *words) == 0
    data = load_data(str(tmp_path / "own.npz"), "unused", 0.25, 0)
    found = predictions(deployed(tmp_path / "out", data), data)
    metrics, y = metrics_of(tmp_path / "out"), data.test.y.numpy()
    assert metrics["metric"] == metric
    assert metrics["test_accuracy"] == pytest.approx(score(y, found))
    assert metrics["test_accuracy"] != pytest.approx(accuracy_score(y, found))


# --- which network


def test_a_trial_of_a_run_a_folder_a_file_and_a_network_of_the_zoo_can_be_named(tmp_path, trained):
    run = small_search(tmp_path / "runs", run="some", budget=2, objectives=["error", "macs"])
    wanted = run.trials["arch_id"][1]
    folder, _ = trained
    own = metrics_of(folder)["arch_id"]
    names = {
        f"{tmp_path / 'runs' / 'some'}:1": wanted,
        f"{tmp_path / 'runs' / 'latest'}:1": wanted,
        str(folder): own,
        str(folder / "architecture.json"): own,
        "zoo/lenet5": nas.load_architecture("lenet5").arch_id,
    }
    for number, (name, arch_id) in enumerate(names.items()):
        assert command(tmp_path, f"arch={name}", "train.epochs=1", out=str(number)) == 0
        assert metrics_of(tmp_path / str(number))["arch_id"] == arch_id


def test_a_trial_that_is_not_there_is_refused(tmp_path, capsys):
    run = small_search(tmp_path / "runs", run="some", budget=1, objectives=["error", "macs"])
    assert "no trial 7" in refused(tmp_path, capsys, f"arch={run.path}:7")


def test_without_a_name_the_folder_is_among_the_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with quick_latency(tmp_path):
        assert train.main(["arch=tiny", "seed=4", "train.epochs=1", "threads=1", "latency.tolerance=1"]) == 0
    assert sorted(each.name for each in (tmp_path / "runs" / "train-tiny-digits-4").iterdir()) == FILES


def test_weights_of_another_network_are_refused(tmp_path, capsys):
    save_file({"x": torch.ones(2)}, tmp_path / "x.safetensors")
    err = refused(tmp_path, capsys, "arch=tiny", f"weights={tmp_path / 'x.safetensors'}")
    assert "x.safetensors" in err

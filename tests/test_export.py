"""A run's networks as files that others deploy: chosen, written, verified, described; from the command on."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from nas.data import load_data
from nas.export import main
from nas.exporting import export_run as exporting
from nas.exporting import predict
from nas.exporting.choose import WORDS
from nas.exporting.final import with_validation
from nas.exporting.formats import FORMATS
from nas.job import make_job
from nas.store import RunStore
from tests.searching import small_search

QUICK = {"latency.limit_s": 0.3, "train.epochs": 4}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return small_search(tmp_path_factory.mktemp("runs"), run="exported", budget=5, **QUICK)


@pytest.fixture(scope="module")
def folder(run):
    """The best network, in all formats that need no extra."""
    out = run.path.parent / "model"
    words = [*words_of(run, out), "formats=[onnx,pt2,safetensors]"]
    assert main(words) == 0
    return out


def words_of(run, out):
    return [f"run={run.path.name}", f"runs_dir={run.path.parent}", f"out={out}"]


def digits():
    data = load_data("digits", ".", 0.25, 0)
    return data, data.normalize(data.test.x).numpy()


def recorded(run):
    best = run.front.nlargest(1, "accuracy").iloc[0]
    return int(best["trial"]), float(best["test_accuracy"])


def test_every_file_predicts_what_the_run_recorded_on_the_test_images(run, folder):
    data, x = digits()
    _, expected = recorded(run)
    (logits,) = onnxruntime.InferenceSession(folder / "model.onnx").run(["logits"], {"images": x})
    assert (logits.argmax(1) == data.test.y.numpy()).mean() == pytest.approx(expected)
    program = torch.export.load(folder / "model.pt2").module()
    for count in (1, 7, len(x)):  # any number of images at a time
        assert (program(torch.from_numpy(x[:count])).argmax(1).numpy() == logits[:count].argmax(1)).all()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["trial"] == recorded(run)[0] and set(metrics["files"]) == {"onnx", "pt2", "safetensors"}
    for found in metrics["files"].values():
        assert found["test_accuracy"] == pytest.approx(expected)
        assert found["compared_with"] == "train form" and found["equal_predictions"] == 1
        assert 0 <= found["difference"] < 1e-4
        low, high = found["latency_low_ms"], found["latency_high_ms"]
        assert found["latency_ms"] > 0 and (low is high is None or 0 < low <= found["latency_ms"] <= high)


def test_the_lines_of_the_card_run(folder, monkeypatch):
    monkeypatch.chdir(folder)
    _, x = digits()
    blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    found = []
    for block in blocks:
        names = {"x": x}
        exec(block, names)
        found.append(torch.as_tensor(names["logits"]).detach().argmax(1))
    assert len(found) == 3 and all((each == found[0]).all() for each in found)


def test_predict_says_what_is_on_a_picture_without_this_package(folder, tmp_path):
    data, x = digits()
    logits = torch.export.load(folder / "model.pt2").module()(torch.from_numpy(x))
    sure = int(logits.softmax(1).max(1).values.argmax())
    pixels = data.test.x[sure, 0].numpy().astype(np.float64)
    Image.fromarray((pixels / 16 * 255).astype(np.uint8)).save(tmp_path / "digit.png")
    np.save(tmp_path / "digits.npy", data.test.x[:2].numpy())
    files = [str(tmp_path / name) for name in ("digit.png", "digits.npy")]
    run_it = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    code = f"{run_it}; assert 'nas' not in sys.modules"
    words = [sys.executable, "-c", code, str(folder / "predict.py"), *files]
    said = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path).stdout.splitlines()
    assert said[0].startswith(f"{files[0]}: {data.classes[int(logits[sure].argmax())]} ")
    for image in (0, 1):
        assert said[1 + image].startswith(f"{files[1]} [{image}]: {data.classes[int(logits[image].argmax())]} ")


def test_predict_reads_pictures_as_training_did_and_names_what_it_cannot_read(folder, tmp_path):
    values = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    Image.fromarray(values.astype(np.uint16) * 257).save(tmp_path / "16bit.png")
    words = json.loads((folder / "metrics.json").read_text())["input"]
    expected = (values / 255 * 16 - words["mean"][0]) / words["std"][0]
    np.testing.assert_allclose(predict.read(str(tmp_path / "16bit.png"), words)[0, 0], expected, atol=1e-5)
    np.save(tmp_path / "turned.npy", np.zeros((2, 8, 8, 1)))
    (tmp_path / "text.png").write_text("no picture")
    for name in ("turned.npy", "text.png", "none.png"):
        command = [sys.executable, str(folder / "predict.py"), str(tmp_path / name)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 2 and done.stderr.startswith(str(tmp_path / name)) and done.stderr.count("\n") == 1


def test_a_file_that_is_not_the_network_is_left_out_and_the_others_stay(run, tmp_path, monkeypatch, capsys):
    other = FORMATS["pt2"].write

    def damaged(product, folder):
        network = torch.nn.Sequential(product.network, torch.nn.Hardtanh(-0.1, 0.1))
        other(replace(product, network=network), folder)

    monkeypatch.setitem(FORMATS, "pt2", replace(FORMATS["pt2"], write=damaged))
    assert main([*words_of(run, tmp_path / "out"), "formats=[pt2,onnx]"]) == 1
    assert "model.pt2 is not the network" in capsys.readouterr().err
    assert {each.name for each in (tmp_path / "out").iterdir()} == {
        "model.onnx",
        "metrics.json",
        "README.md",
        "predict.py",
    }
    assert main([*words_of(run, tmp_path / "none"), "formats=[pt2]"]) == 1
    assert [each.name for each in tmp_path.iterdir()] == ["out"]


def test_int8_is_written_with_what_it_costs(run, tmp_path, monkeypatch):
    monkeypatch.setitem(FORMATS, "onnx_int8", replace(FORMATS["onnx_int8"], least_equal=0.0))
    assert main([*words_of(run, tmp_path / "out"), "formats=[onnx_int8]"]) == 0
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())["files"]["onnx_int8"]
    _, x = digits()
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.int8.onnx")
    (logits,) = session.run(["logits"], {"images": x})
    assert found["test_accuracy"] == pytest.approx((logits.argmax(1) == digits()[0].test.y.numpy()).mean())


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("trial=99", "trial=99 is not there, or has not ended; allowed: best, knee, fastest, all, or one that"),
        ("trial=bst", "trial=bst is not allowed; allowed: best, knee, fastest, all or a trial's number"),
        ("run=nothing", "run=nothing: "),
        ("formats=[onnx,onxx]", "formats: 'onxx' is unknown; known: onnx, pt2"),
        ("formats=[]", "formats=[] is not allowed"),
        ("formats=[onnx,onnx]", "each once"),
        ("formats=[[onnx]]", "is not allowed; allowed: list[str]"),
        ("run=" + 300 * "x", "File name too long"),
        ("out=/", "is not an empty folder"),
        ("final.epochs=0", "final.epochs=0 is not allowed"),
        ("out=/proc/nothing", "out=/proc/nothing cannot be written"),
        ("ut=x", "unknown key 'ut': did you mean out?"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(run, tmp_path, capsys, word, said):
    words = {each.partition("=")[0]: each for each in words_of(run, tmp_path / "out")}
    words[word.partition("=")[0]] = word
    assert main(list(words.values())) == 2
    error = capsys.readouterr().err
    assert error.startswith("nas.export: ") and said in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_with_something_in_it_is_left_as_it_is(run, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("precious")
    assert main(words_of(run, tmp_path / "out")) == 2
    assert "is not an empty folder" in capsys.readouterr().err
    assert (tmp_path / "out" / "mine").read_text() == "precious"


@pytest.mark.parametrize("which", ["weights_file", "trained_file"])
def test_damaged_weights_are_refused_before_anything_is_written(run, tmp_path, capsys, which):
    store = RunStore.open(run.path)
    file = getattr(store, which)(recorded(run)[0])
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    try:
        assert main(words_of(run, tmp_path / "out")) == 2
    finally:
        file.write_bytes(whole)
    error = capsys.readouterr().err
    assert f"{file} does not hold this network" in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("which", ["weights_file", "trained_file"])
def test_weights_of_another_training_are_refused_before_anything_is_written(run, tmp_path, capsys, which):
    file = getattr(RunStore.open(run.path), which)(recorded(run)[0])
    whole = file.read_bytes()
    changed = {name: -each if each.is_floating_point() else each for name, each in load_file(file).items()}
    with safe_open(file, framework="pt") as opened:
        save_file(changed, file, metadata=opened.metadata())
    try:
        assert main(words_of(run, tmp_path / "out")) == 2
    finally:
        file.write_bytes(whole)
    error = capsys.readouterr().err
    assert "its weights are damaged" in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_what_only_trainings_need_may_be_gone(run, tmp_path):
    file = run.path / "config.yaml"
    whole = file.read_text()
    file.write_text(
        whole.replace("device: auto", "device: cuda", 1)
        .replace("precision: null", "precision: fp16")
        .replace("teacher: null", "teacher: /gone/teacher")
    )
    try:
        assert main([*words_of(run, tmp_path / "out"), "formats=[safetensors]"]) == 0
    finally:
        file.write_text(whole)
    said = (tmp_path / "out" / "README.md").read_text() + (tmp_path / "out" / "metrics.json").read_text()
    assert "fp16" in said and "teacher" in said and "/gone" not in said


def test_names_of_classes_cannot_write_the_card(run, tmp_path, monkeypatch):
    classes = ("a`b", "```python\nraise SystemExit\n```", "<script>", "$x", "new\nline", "|", "[a](b)", "\\", "ü", "9")

    def renamed(config):
        job = make_job(config)
        return replace(job, data=replace(job.data, classes=classes))

    monkeypatch.setattr(exporting, "make_job", renamed)
    assert main([*words_of(run, tmp_path / "out"), "formats=[onnx]"]) == 0
    text = (tmp_path / "out" / "README.md").read_text()
    assert len(re.findall("^```python$", text, re.MULTILINE)) == 1 and "<script>" not in text and "ü" in text
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["classes"] == list(classes)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.skipif(not each.installed, reason=f"{name} is not installed"))
        for name, each in FORMATS.items()
        if each.package is not None
    ],
)
def test_a_file_of_an_extra_is_the_network(run, tmp_path, monkeypatch, name):
    assert main([*words_of(run, tmp_path / "out"), f"formats=[{name}]"]) == 0
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())["files"][name]
    assert found["test_accuracy"] == pytest.approx(recorded(run)[1])
    assert found["equal_predictions"] == 1 and found["difference"] < 1e-4 and found["latency_ms"] > 0
    (lines,) = re.findall(r"```python\n(.*?)```", (tmp_path / "out" / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path / "out")
    names = {"x": digits()[1][:1]}
    exec(lines, names)
    onnx = RunStore.open(run.path).model_dir(recorded(run)[0]) / "model.onnx"
    (logits,) = onnxruntime.InferenceSession(onnx).run(["logits"], {"images": names["x"]})
    np.testing.assert_allclose(np.asarray(names["logits"]), logits, atol=1e-3)


def test_of_an_ended_run_the_train_form_of_its_front_is_kept(run):
    store = RunStore.open(run.path)
    front = set(run.front["trial"])
    kept = {int(trial) for trial in run.trials["trial"] if store.trained_file(int(trial)).exists()}
    assert kept == front and len(front) < len(run.trials)


def test_final_trainings_are_told_by_their_mean_and_interrupted_ones_go_on(run, tmp_path, monkeypatch, capsys):
    words = [*words_of(run, tmp_path / "out"), "formats=[onnx]", "final.epochs=2", "final.seeds=2"]
    monkeypatch.setattr(exporting, "_export", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    assert main(words) == 130
    capsys.readouterr()
    monkeypatch.undo()
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "epoch" not in said and said.count("final training") == 2, "they were written down when they had ended"
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    final = metrics["final"]
    assert len(final["test_accuracies"]) == 2 and final["mean"] == pytest.approx(np.mean(final["test_accuracies"]))
    data, _ = digits()
    assert final["images"] == len(data.train) + len(data.validation) and final["epochs"] == 2
    assert metrics["files"]["onnx"]["test_accuracy"] == pytest.approx(final["test_accuracies"][0])
    assert metrics["search"]["val_accuracy"] == pytest.approx(run.front["accuracy"].max())
    checkpoints = run.path / "checkpoints"
    assert not list(checkpoints.glob("final-*"))


def test_final_trainings_see_training_and_validation_images_and_are_judged_by_test_images():
    data, _ = digits()
    both = with_validation(data)
    assert torch.equal(both.train.x, torch.cat([data.train.x, data.validation.x]))
    assert torch.equal(both.train.y, torch.cat([data.train.y, data.validation.y]))
    assert both.validation is not data.validation and torch.equal(both.validation.y, data.test.y)
    assert (both.mean, both.std) == (data.mean, data.std)


def test_words_for_trials():
    front = pd.DataFrame(
        {"trial": [4, 7, 9], "accuracy": [0.5, 0.9, 0.92], "error": [0.5, 0.1, 0.08], "latency_ms": [1.0, 1.5, 9.0]}
    )
    found = {word: choose(front, ["error", "latency_ms"])["trial"].tolist() for word, choose in WORDS.items()}
    assert found == {"best": [9], "knee": [7], "fastest": [4], "all": [4, 7, 9]}


def test_the_whole_front_goes_into_folders_of_its_own(run, tmp_path):
    assert main([*words_of(run, tmp_path / "out"), "trial=all", "formats=[safetensors]"]) == 0
    assert {int(each.name) for each in (tmp_path / "out").iterdir()} == set(run.front["trial"])


def test_help_shows_examples(capsys):
    assert main(["--help"]) == 0
    assert "python -m nas.export run=latest trial=best" in capsys.readouterr().out

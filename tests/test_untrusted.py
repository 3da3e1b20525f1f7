"""What other people's files may not do: run code, lead out of a folder, or fill the memory."""

import ast
import io
import json
import math
import os
import random
import shutil
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image

from analysis.runs import remove_runs
from analysis.table_space import read_table as read_cells
from nas import bounded, describe, export, search, train
from nas.bounded import parse_json, parse_json_line, parse_yaml, read_text
from nas.command_line import make_config
from nas.data.files import header, read_npz
from nas.exporting.export_run import export_run
from nas.exporting.settings import ExportConfig
from nas.fusion import compose
from nas.linear_conv import LinearConv
from nas.networks.weights import _read
from nas.space_file import load_space
from nas.store import RunStore
from nas.trial import Proposed, event_from_dict
from nas.tune.plan import make_plan
from tests.helpers import HEAD
from tests.searching import SMALL, small_search
from tests.written_runs import write_run

REPOSITORY = Path(__file__).parents[1]
SOURCES = [file for folder in ("nas", "analysis") for file in sorted((REPOSITORY / folder).rglob("*.py"))]
NEVER = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
JSON_READERS = {"nas/bounded.py", "nas/exporting/predict.py", "analysis/bench_zoo.py"}  # the last two, of our own files
IMPORTERS = {"nas/__init__.py", "nas/plugins.py", "nas/data/stream.py"}  # our own, plugins, torchvision's
# What a call has to say so that what it reads cannot run code, or unfold without bounds.
NEEDS = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "onnx.load": ("load_external_data", False),
}
FORBIDDEN = {
    *("eval", "exec", "compile", "__import__", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all"),
    *("OmegaConf.load", "OmegaConf.from_dotlist", "pd.read_pickle", "numpy.load", "torch.jit.load", "torch.hub.load"),
}
DOTLIST = "analysis/settings.py"  # words of the person's own command line


def calls_of(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    """All calls by the dotted name of what is called."""
    return [(ast.unparse(each.func), each) for each in ast.walk(tree) if isinstance(each, ast.Call)]


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(REPOSITORY)))
def test_no_module_reads_what_can_run_code(file):
    name, tree = str(file.relative_to(REPOSITORY)), ast.parse(file.read_text(encoding="utf-8"))
    for each in ast.walk(tree):
        modules = [part.name for part in each.names] if isinstance(each, ast.Import) else []
        modules += [each.module or ""] if isinstance(each, ast.ImportFrom) else []
        assert not NEVER & {module.partition(".")[0] for module in modules}
    for called, call in calls_of(tree):
        if (called, name) in (("yaml.load", "nas/bounded.py"), ("OmegaConf.from_dotlist", DOTLIST)):
            assert called != "yaml.load" or ast.unparse(call.keywords[0].value) == "_BoundedLoader"
            continue
        assert called not in FORBIDDEN and not called.endswith(("read_pickle", "to_pickle"))
        assert called not in ("json.load", "json.loads") or name in JSON_READERS
        assert called != "importlib.import_module" or name in IMPORTERS
        if called in NEEDS:
            wanted, value = NEEDS[called]
            said = {each.arg: ast.unparse(each.value) for each in call.keywords}
            assert said.get(wanted) == str(value), f"{called} without {wanted}={value}"


# --- texts

BOMB = "a: &a0 [x, x]\n" + "".join(f"b{i}: &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]\n" for i in range(12))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[" * 100_000, "in one another"),
        (BOMB, "aliases"),
        ("a: &a {x: 1}\nb: {<<: [" + "*a," * 60_000 + "]}", "aliases"),
        ("a: &a [*a]", "holds itself"),
        ("a: 1\na: 2", "the key 'a' is there twice"),
        ("a: " + "9" * 5000, "a number of 5,000 characters"),
        ("a: !!python/object/apply:os.getcwd []", "the tag"),
        ("a: !!binary aGk=", "the tag"),
        ('a: "\\ud800"', "half a character"),
        ("? [a]\n: b", "unhashable"),
        ("x" * 2_000_000, "longer"),
    ],
)
def test_yaml_beyond_bounds_is_refused(text, part):
    with pytest.raises(ValueError, match=r"^not YAML") as error:
        parse_yaml(text)
    assert part in str(error.value) and "\n" not in str(error.value)


def test_yaml_within_bounds_says_what_it_says():
    text = "a: &a {x: 1, y: 1e-3}\nb: {<<: *a, x: 2}\nc: [*a, null, yes, 2024-01-01, .5]"
    a = {"x": 1, "y": 0.001}
    assert parse_yaml(text) == {"a": a, "b": {"x": 2, "y": 0.001}, "c": [a, None, True, "2024-01-01", 0.5]}


def test_what_is_merged_into_a_mapping_may_stand_in_it_again_wherever_that_is_merged():
    text = "base: &base {x: 1}\ninner: [{deep: &deep {<<: *base, x: 2}}]\nouter: {<<: *deep, x: 3}"
    found = parse_yaml(text)
    assert (found["inner"][0]["deep"]["x"], found["outer"]["x"]) == (2, 3)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[" * 100_000, "nested too deeply"),
        ("[" * 100 + "]" * 100, "in one another"),
        ("1" * 5000, "a number of 5,000 characters"),
        ("1e400", "not finite"),
        ("NaN", "not finite"),
        ('{"a": 1, "a": 2}', "the key 'a' is there twice"),
        ('"\\ud800"', "half a character"),
        ("{", "Expecting"),
    ],
)
def test_json_beyond_bounds_is_refused(text, part):
    with pytest.raises(ValueError, match=r"^not JSON") as error:
        parse_json(text)
    assert part in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000, '"\\udfff"', "{"])
def test_a_line_of_json_beyond_bounds_is_refused(text):
    with pytest.raises(ValueError, match=r"^not JSON"):
        parse_json_line(text)


def test_only_files_of_a_bounded_size_are_read(tmp_path):
    (tmp_path / "long").write_bytes(b"x" * 101)
    with pytest.raises(ValueError, match="larger than what is read of such a file: 100 bytes"):
        read_text(tmp_path / "long", 100)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="not a file"):  # and nobody waits for its other end
        read_text(tmp_path / "pipe")
    for endless in ("/dev/zero", "/dev/urandom"):
        with pytest.raises(ValueError, match="not a file"):
            read_text(Path(endless))


def test_a_long_value_is_shortened_in_messages():
    assert len(bounded.shown(["x" * 100_000])) < 200
    assert bounded.shown(10**5000) == "a int that is too long to be shown"
    assert bounded.said("a\nb") == r"'a\nb'"
    assert "\n" not in bounded.one_line("a\nb " * 1000)


# --- spaces that mean too much


PER_BLOCK = "{per_block: {from: 1, to: 8192}}"
ALIKE = "conv, separable, basic, bottleneck, xception, reduce, shuffle_v1, shuffle_v2"
CHOICES = ", ".join(f"c{i}: [1, 2, 3, 4, 5, 6, 7, 8]" for i in range(12))
ENTANGLED = "".join(
    f"  - {{block: conv, depth: {{shared: c{i}}}, out_channels: {{shared: c{(i + 5) % 12}, times: 8}}}}\n"
    for i in range(12)
)
HUGE_SPACES = {
    "ranges": "stages:\n" + "  - {block: conv, out_channels: {from: 1, to: 8192}}\n" * 90,
    "many templates": "stages:\n" + "  - {block: conv, out_channels: 8}\n" * 500,
    "channels by groups": f"stages: [{{block: conv, out_channels: {PER_BLOCK}, depth: 200, groups: {PER_BLOCK}}}]\n",
    "any block": f"stages: [{{depth: {{from: 0, to: 200}}, out_channels: 8, block: {{per_block: [{ALIKE}]}}}}]\n",
    "choices that all depend on one another": f"choices: {{{CHOICES}}}\nstages:\n{ENTANGLED}",
    "a wide choice": "choices: {a: {from: 1, to: 9000}}\nstages: [{block: conv, out_channels: {shared: a}}]\n",
    "ten to the twelfth": "stages: [{block: conv, out_channels: {from: 1, to: 1000000000000}}]\n",
    "figures": "published: {input_shape: [10000000000, 1, 1]}\n",
}


@pytest.mark.parametrize("case", HUGE_SPACES)
def test_a_space_that_means_too_much_is_refused_before_it_is_written_out(tmp_path, case):
    (tmp_path / "space.yaml").write_text(HUGE_SPACES[case] + HEAD)
    with pytest.raises(ValueError) as error:
        load_space(tmp_path / "space.yaml")
    assert "allowed" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("named", ["../base.yaml", "ABSOLUTE", "link.yaml"])
def test_a_space_extends_nothing_outside_its_folder(tmp_path, named):
    (tmp_path / "base.yaml").write_text(HEAD)
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "link.yaml").symlink_to(tmp_path / "base.yaml")
    (folder / "space.yaml").write_text(f"extends: {named.replace('ABSOLUTE', str(tmp_path / 'base.yaml'))}\n")
    with pytest.raises(ValueError, match=r"a file beside space\.yaml, or in a folder there"):
        load_space(folder / "space.yaml")


def test_templates_written_out_for_all_are_counted(tmp_path):
    (tmp_path / "base.yaml").write_text("stages:\n" + "  - {block: conv, out_channels: 8}\n" * 90 + HEAD)
    sizes = ", ".join(map(str, range(1, 1000)))
    (tmp_path / "space.yaml").write_text(f"extends: base.yaml\nstages: {{all: {{kernel_size: [{sizes}]}}}}\n")
    with pytest.raises(ValueError, match=r"stages.all: 90,\d+ values in all templates are not allowed"):
        load_space(tmp_path / "space.yaml")


# --- records


@pytest.mark.parametrize(
    "changes",
    [
        {"trial": "../../x"},
        {"trial": -1},
        {"trial": 1.0},
        {"trial": 10**30},
        {"trial": True},
        {"accuracy": "0.5"},
        {"epochs": [1]},
        {"state": {}},
        {"state": "lost\nin a line"},
        {"reason": 5},
    ],
)
def test_a_record_of_other_types_is_refused(changes):
    words = {"v": 2, "event": "ended", "trial": 0, "state": "failed", **changes}
    with pytest.raises(ValueError, match="bad ended event") as error:
        event_from_dict(words)
    assert "\n" not in str(error.value)


READING = {"median_ms": 1, "iqr_ms": 0, "low_ms": 1, "high_ms": 1}
MERGES = [{**READING, "merges": each} for each in (5, [5], [[5]], "ab", ["ab"])]


@pytest.mark.parametrize("latency", [5, {}, {"x" * 5000: 1}, {**READING, "median_ms": "1"}, *MERGES])
def test_a_latency_of_other_types_is_refused(latency):
    words = {"v": 2, "event": "priced", "trial": 0, "params": 1, "macs": 1, "latency": latency}
    with pytest.raises(ValueError, match="bad priced event") as error:
        event_from_dict(words)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("text", ["[1]", "5", '{"reason": 5}', "{", '{"reason": ["x"]}'])
def test_a_damaged_end_is_refused(tmp_path, text):
    store = write_run(tmp_path, "first", [(0.1, 1.0)])
    (store.path / "end.json").write_text(text)
    with pytest.raises(ValueError, match=r"end\.json"):
        store.end_reason()


# --- links


@pytest.fixture
def victim(tmp_path):
    """A folder of the person's own, which nobody may touch."""
    folder = tmp_path / "mine"
    (folder / "7").mkdir(parents=True)
    (folder / "7" / "thesis.txt").write_text("years of work")
    (folder / "file").write_text("of mine")
    return folder


def untouched(victim: Path) -> bool:
    return [(victim / "7" / "thesis.txt").read_text(), (victim / "file").read_text()] == ["years of work", "of mine"]


def test_a_run_with_a_link_to_elsewhere_is_not_resumed_and_nothing_is_removed_there(tmp_path, victim):
    run = small_search(tmp_path / "runs", run="theirs", budget=2)
    shutil.rmtree(run.path / "models")
    (run.path / "models").symlink_to(victim)
    with pytest.raises(ValueError, match=r"models is a link to .*allowed: a run's folder of its own files"):
        small_search(tmp_path / "runs", run="theirs", budget=3, resume=True)
    assert untouched(victim)
    with pytest.raises(ValueError, match="models is a link"):
        export_run(ExportConfig(run=str(run.path), trial="0"), print)
    assert untouched(victim) and len(list(victim.rglob("*"))) == 3


@pytest.mark.parametrize(
    "place", ["weights", "checkpoints", "exports", "weights/7.safetensors", "study.log", "trials.csv"]
)
def test_any_link_is_found(tmp_path, victim, place):
    store = write_run(tmp_path / "runs", "theirs", [(0.1, 1.0)])
    link = store.path / place
    if link.is_dir():
        link.rmdir()
    link.symlink_to(victim / "file" if "." in place else victim)
    with pytest.raises(ValueError, match=f"{place} is a link"):
        store.reopen(store.config())
    assert untouched(victim)


def test_another_name_of_a_file_elsewhere_is_found(tmp_path, victim):
    store = write_run(tmp_path / "runs", "theirs", [(0.1, 1.0)])
    (store.path / "trials.csv").hardlink_to(victim / "file")
    with pytest.raises(ValueError, match=r"trials\.csv is a file with 2 names"):
        store.reopen(store.config())
    assert untouched(victim)


@pytest.mark.parametrize(
    ("place", "what"), [("models", "a file where a folder"), ("trials.csv", "a folder where a file")]
)
def test_a_file_for_a_folder_is_found_before_anything_is_trained(tmp_path, place, what):
    run = small_search(tmp_path / "runs", run="theirs", budget=2)
    path = run.path / place
    if path.is_dir():
        shutil.rmtree(path)
        path.touch()
    else:
        path.unlink()
        path.mkdir()
    events = (run.path / "events.jsonl").read_bytes()
    with pytest.raises(ValueError, match=f"{place} is {what} belongs; allowed"):
        small_search(tmp_path / "runs", run="theirs", budget=3, resume=True)
    assert (run.path / "events.jsonl").read_bytes() == events


def test_what_is_no_file_is_not_waited_for(tmp_path):
    store = write_run(tmp_path / "runs", "theirs", [(0.1, 1.0)])
    os.mkfifo(store.weights_file(0))
    with pytest.raises(ValueError, match=r"0\.safetensors is neither a file nor a folder"):
        export_run(ExportConfig(run=str(store.path), trial="0"), print)


def test_a_run_is_not_searched_on_a_cluster_that_it_names_itself(tmp_path):
    address = "ray://127.0.0.1:1"
    words = {**SMALL, "runs_dir": str(tmp_path), "run": "theirs"}
    store = RunStore.create(
        tmp_path, "theirs", make_config({**words, "ray.address": address}), load_space("tiny").text, {}
    )
    assert store.config().ray.address == address
    asked = {"runs_dir": str(tmp_path), "run": "theirs", "resume": True}
    assert make_plan(asked).config.ray.address is None
    assert make_plan({**asked, "ray.address": "auto"}).config.ray.address == "auto"


def test_a_line_longer_than_any_event_is_refused(tmp_path):
    store = write_run(tmp_path, "theirs", [(0.1, 1.0)])
    with (store.path / "events.jsonl").open("ab") as file:
        file.truncate(file.tell() + 100_000_000)  # takes no room on the disk
    for read in (store.events, store.mend):
        with pytest.raises(ValueError, match=r"events\.jsonl, line 4: it is longer than 4,000,000 bytes"):
            read()


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"stage1.out_channels": 999}, r"trial 0: stage1\.out_channels=999 is not allowed; allowed: \[8, 16\]"),
        ({"stage1.depth": None}, r"trial 0: stage1\.depth=None is not allowed"),
        ({"nonsense": 3}, "trial 0: 'nonsense' is no choice that space tiny has there"),
    ],
)
def test_choices_that_the_space_does_not_have_are_found_before_anything_is_measured(tmp_path, changed, expected):
    space = load_space("tiny")
    choices = space.sample_choices(random.Random(0))
    raw = {name: value for name, value in (choices | changed).items() if value is not None}
    store = RunStore.create(tmp_path, "theirs", make_config({**SMALL, "run": "theirs"}), space.text, {})
    store.append(Proposed(0, space.architecture(choices).to_dict(), "a", "d", raw))
    with pytest.raises(ValueError, match=expected):
        make_plan({"runs_dir": str(tmp_path), "run": "theirs", "resume": True})


@pytest.mark.parametrize(
    "event",
    [
        {"event": "rung", "epochs": 1, "accuracy": math.nan, "loss": 1.0},
        {"event": "ended", "state": "completed", "accuracy": 1.5},
        {"event": "remeasured", "latency": {"median_ms": math.nan, "iqr_ms": 0.0, "low_ms": 0.0, "high_ms": 0.0}},
    ],
)
def test_figures_that_cannot_be_are_no_events(event):
    with pytest.raises(ValueError, match=r"(accuracy|median_ms): .* is not allowed"):
        event_from_dict({"v": 2, "trial": 0, **event})


def test_a_number_of_a_trial_leaves_room_for_the_next_ones():
    event = {"v": 2, "event": "ended", "state": "failed", "reason": "", "trial": 10**9 + 1}
    with pytest.raises(ValueError, match="trial 1000000001 is not allowed; allowed: 0 to 1000000000"):
        event_from_dict(event)


def test_mergers_of_few_weights_to_very_many_are_refused():
    narrow = LinearConv(torch.ones(1, 60_000, 1, 1), None)
    widen = LinearConv(torch.ones(60_000, 1, 1, 1), None)
    with pytest.raises(ValueError, match=r"3,600,000,000 weights of one convolution are not allowed"):
        compose(narrow, widen)


def test_a_picture_is_not_given_to_a_program_of_its_own(tmp_path):
    file = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(file, "EPS")
    with pytest.raises(ValueError, match=r"a\.png"):
        header(str(file))


def test_a_lock_that_is_a_link_empties_nothing(tmp_path, victim):
    store = write_run(tmp_path / "runs", "theirs", [(0.1, 1.0)])
    (store.path / ".lock").symlink_to(victim / "file")
    with pytest.raises(ValueError, match=r"\.lock cannot be opened"), store.locked():
        pass
    with pytest.raises(ValueError, match="remove=theirs"):
        remove_runs(["theirs"], tmp_path / "runs")
    assert untouched(victim)


def test_a_run_that_is_removed_takes_nothing_along_that_it_links_to(tmp_path, victim):
    store = write_run(tmp_path / "runs", "theirs", [(0.1, 1.0)])
    (store.path / "models").symlink_to(victim)
    remove_runs(["theirs"], tmp_path / "runs")
    assert untouched(victim) and not store.path.exists()


# --- files of numbers


def test_an_archive_that_would_fill_the_memory_is_refused(tmp_path):
    file = tmp_path / "bomb.npz"
    stored = io.BytesIO()
    np.lib.format.write_array_header_1_0(stored, {"descr": "|u1", "fortran_order": False, "shape": (10**15,)})
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", stored.getvalue())
        archive.writestr("y.npy", stored.getvalue())
    with pytest.raises(ValueError, match=r"cannot be read as \.npz"):
        read_npz(file)
    content = bytearray(file.read_bytes())
    at = content.find(b"PK\x01\x02")
    content[at + 24 : at + 28] = b"\xff\xff\xff\xff"  # the archive's own word for the size of what is in it
    for _ in range(3):
        at = content.find(b"PK\x01\x02", at + 4)
        if at > 0:
            content[at + 24 : at + 28] = b"\xff\xff\xff\xff"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot be read as \.npz"):
        read_npz(file)


def test_packed_weights_are_refused(tmp_path):
    torch.save({"x": torch.zeros(1000)}, tmp_path / "plain.pt")
    assert set(_read(tmp_path / "plain.pt")) == {"x"}
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(tmp_path / "packed.pt", "w") as packed:
        for each in plain.infolist():
            packed.writestr(each.filename, plain.read(each), compress_type=zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="cannot be read as a state dict"):
        _read(tmp_path / "packed.pt")


def test_weights_that_would_run_code_are_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    torch.save({"x": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="cannot be read as a state dict"):
        _read(tmp_path / "evil.pt")
    assert not (tmp_path / "owned").exists()


def test_a_table_of_very_many_equal_rows_is_refused(tmp_path):
    pd.DataFrame({"a": np.zeros(6_000_000, dtype=np.int8), "b": np.zeros(6_000_000, dtype=np.int8)}).to_parquet(
        tmp_path / "many.parquet"
    )
    with pytest.raises(ValueError, match="12,000,000 cells are too many"):
        read_cells(tmp_path / "many.parquet")


@pytest.mark.parametrize("location", ["../secret", "ABSOLUTE"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_runtime_follows_no_path_out_of_a_models_folder(tmp_path, monkeypatch, location, whole):
    (tmp_path / "secret").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    folder = tmp_path / "model"
    folder.mkdir()
    monkeypatch.chdir(folder)
    outside = TensorProto(name="w", data_type=1, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location.replace("ABSOLUTE", str(tmp_path / "secret"))), ("length", "16")):
        outside.external_data.add(key=key, value=value)
    ends = [helper.make_tensor_value_info(name, 1, [4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [outside])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    source = (folder / "model.onnx").read_bytes() if whole else str(folder / "model.onnx")
    with pytest.raises(Exception, match=r"(?i)external data"):
        onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])


def test_an_environment_that_is_no_mapping_is_refused(tmp_path):
    store = write_run(tmp_path, "first", [(0.1, 1.0)])
    for text in (json.dumps([1]), "{", '{"a": NaN}'):
        (store.path / "environment.json").write_text(text)
        with pytest.raises(ValueError, match=r"environment\.json cannot be read"):
            RunStore.open(store.path).environment()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (search, ["resume=true", "run=theirs", "budget=2"]),
        (search, ["config=runs/theirs/config.yaml", "run=mine"]),
        (export, ["run=theirs", "out=out"]),
        (describe, ["arch=runs/theirs:0"]),
        (train, ["arch=runs/theirs:0", "out=out"]),
    ],
)
def test_a_runs_files_alone_import_no_plugin(tmp_path, monkeypatch, capsys, command, words):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs", "theirs", [(0.1, 1.0)])
    file = tmp_path / "runs" / "theirs" / "config.yaml"
    assert "plugins: []" in file.read_text()
    file.write_text(file.read_text().replace("plugins: []", "plugins: [theirs]"))
    (tmp_path / "theirs.py").write_text("raise SystemExit('it ran')")
    before = sorted(tmp_path.rglob("*"))
    assert command.main(words) == 2
    said = capsys.readouterr().err
    assert "a file alone imports no code; allowed: plugins=[theirs] in the command" in said and said.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before

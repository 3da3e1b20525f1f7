"""`python -m nas.describe`: what a person sees, for which images, and what is refused."""

import json
import shutil

import pandas as pd
import pytest

from nas import describe
from nas.latency.table import NETWORK
from tests.searching import small_search
from tests.test_imports import heavy_after

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return small_search(tmp_path_factory.mktemp("runs"), run="some", budget=1, objectives=["error", "macs"])


@pytest.fixture
def shown(capsys):
    def command(*words):
        """What the command prints."""
        assert describe.main(list(words)) == 0
        return capsys.readouterr().out

    return command


@pytest.fixture
def refused(capsys):
    def command(*words):
        """The one line that the command says, and nothing else."""
        assert describe.main(list(words)) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("nas.describe: ") and err.count("\n") == 1
        return err

    return command


def figure(out, name):
    """The rest of the line that begins with a name."""
    (line,) = [line for line in out.splitlines() if line.startswith(name)]
    return line.removeprefix(name).strip()


def cells(out, layer):
    """The columns of a layer's line, by the rules between them."""
    (line,) = [line for line in out.splitlines() if f" {layer} " in line.split("│")[0]]
    return [part.split() for part in line.split("│")]


@pytest.mark.parametrize("name", ["lenet5", "zoo/lenet5"])
def test_a_network_of_the_zoo_is_shown_for_the_images_of_its_figures(shown, name):
    out = shown(f"arch={name}")
    assert cells(out, "2.conv") == [
        ["conv", "2.conv", "Conv2d", "16x10x10", "5x5", "1", "2,416", "240,000"],
        ["2.conv", "16x10x10", "5x5", "1", "2,416", "240,000"],
        ["14", "2", "2"],
    ]
    assert cells(out, "3.pool")[2] == ["16", "2", "4"]
    assert figure(out, "input") == "1x32x32, 10 classes"
    assert figure(out, "train form  ") == "61,706 params, 416,520 MACs, 12 layers"
    assert figure(out, "last map") == "120x1x1: receptive field 32, effective stride 4"


def test_lines_are_whole_without_a_terminal(shown):
    out = shown("arch=zoo/mobilenet_v3_small", "input=3x64x64", "classes=7")
    table = [line for line in out.splitlines() if "│" in line]
    assert len({len(line.rstrip()) for line in table}) == 1 and len(table[0]) > 130
    assert "…" not in out
    assert cells(out, "1.body.2.pool")[2][0] == "all" and cells(out, "1.body.3.conv")[2][0] == "5+"
    assert cells(out, "1.body.3.norm")[1] == ["→", "1.body.3"]
    assert figure(out, "input") == "3x64x64, 7 classes"
    assert figure(out, "strides  ").startswith("of blocks 0")


def test_what_does_not_run_on_the_device_says_so(shown):
    out = shown("arch=nin")
    assert cells(out, "3.dropout")[1] == ["-"]


def test_a_sample_of_a_space_may_be_merged(shown):
    words = ["arch=reducenet", "seed=2", "input=3x32x32", "classes=10"]
    plain, merged = shown(*words), shown(*words, "merge=all")
    assert figure(plain, "input") == "3x32x32, 10 classes"
    assert "merged" not in plain and "2.conv, 3.conv, 4.conv" in merged
    assert figure(shown("arch=tiny"), "input") == "3x224x224, 1,000 classes"


def test_the_file_has_every_figure(shown, tmp_path):
    shown("arch=resnet20", f"csv={tmp_path / 'layers.csv'}")
    table = pd.read_csv(tmp_path / "layers.csv")
    params, macs = table["train_params"].sum(), table["train_macs"].sum()
    assert (params, macs) == (272_474, 40_813_184)
    assert table["deploy_macs"].sum() == macs and set(table["folded_into"].dropna()) == set(
        table["deploy_layer"].dropna()
    )


def test_shares_of_latency_are_shown_where_there_is_a_table(shown, tmp_path):
    assert "latency" not in shown("arch=lenet5")
    convs = {"1-6": "32x32", "6-16": "14x14", "16-120": "5x5"}
    names = [f"conv {name} 5x5 stride 1x1 padding 0x0 groups 1 on {size}" for name, size in convs.items()]
    rows = dict.fromkeys([NETWORK, *names, "linear 120-84", "linear 84-10"], 0.5)
    file = tmp_path / "table.csv"
    file.write_text("layer,latency_ms\n" + "".join(f"{name},{ms}\n" for name, ms in rows.items()))
    out = shown("arch=lenet5", f"latency.table={file}")
    assert cells(out, "2.conv")[1][-1] == "16.7%"
    assert figure(out, "latency  ") == "3.0000 ms by the table, 0.5000 beside the layers"


def test_a_trial_is_shown_for_the_data_of_its_run(shown, run):
    out = shown(f"arch={run.path}:0")
    assert figure(out, "input") == "1x8x8, 10 classes"
    trial = run.trials.iloc[0]
    assert figure(out, "deploy form  ").startswith(f"{trial['params']:,} params, {trial['macs']:,} MACs")
    assert figure(out, "trial 0") == f"completed, accuracy {trial['accuracy']:.4f} (validation)"
    assert figure(out, "latency  ").startswith(f"{trial['latency_ms']:.4f} ms (")
    assert figure(shown(f"arch={run.path}:0", "input=3x16x16"), "input") == "3x16x16, 10 classes"


@pytest.mark.parametrize("name", ["", "architecture.json"])
def test_an_exported_model_is_shown_for_its_images(shown, refused, run, tmp_path, name):
    folder = tmp_path / "model"
    shutil.copytree(run.path / "models" / "0", folder)
    assert figure(shown(f"arch={folder / name}"), "input") == "1x8x8, 10 classes"
    (folder / "metrics.json").write_text(json.dumps({"input": 3}))
    assert "metrics.json is not that of an exported model" in refused(f"arch={folder / name}")


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["input=3x8x8"], "arch is missing"),
        (["arch=resnet21"], "'resnet21' is neither JSON, a file, nor in the zoo"),
        (["arch=" + 300 * "x"], "cannot be read"),
        (["arch=runs/none:3"], "runs/none is not a run"),
        (["arch=" + 300 * "x" + ":3"], "is not a run: File name too long"),
        (["arch=lenet5", "input=1x32"], "input=1x32 is not allowed; allowed: CxHxW"),
        (["arch=lenet5", "input=0x32x32"], "input=0x32x32 is not allowed; allowed: CxHxW"),
        (["arch=lenet5", "classes=0"], "classes=0 is not allowed"),
        (["arch=lenet5", "merge=latency"], "merge=latency is not allowed; allowed: one of none, macs, params, all"),
        (["arch=lenet5", "inptu=1x32x32"], "unknown key 'inptu': did you mean input?"),
        (["arch=lenet5", "latency.table=none.csv"], "latency.table=none.csv cannot be read"),
        (["arch=lenet5", "csv=/no/folder/x.csv"], "csv=/no/folder/x.csv cannot be written"),
        (["arch=lenet5", "plugins=[no_such_module]"], "no_such_module"),
    ],
    ids=lambda value: value[-1][:20] if isinstance(value, list) else "",
)
def test_bad_input_is_one_line(refused, words, said):
    assert said in refused(*words)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.json", b'{"schema": 1, "st'), ("b.json", b"\xbc\x00\x93"), ("c.yaml", b"stem: ["), ("d.json", b"[1]")],
)
def test_a_corrupt_file_is_named(refused, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert str(tmp_path / name) in refused(f"arch={tmp_path / name}")


def test_an_unknown_trial_is_named(refused, run):
    assert "has no trial 7 that has ended" in refused(f"arch={run.path}:7")


def test_images_that_a_network_does_not_take_are_refused(refused, tmp_path):
    file = tmp_path / "grouped.yaml"
    file.write_text("stem: [{block: conv, out_channels: 4, groups: 2}]\nhead: [{block: classifier}]\n")
    assert "conv.groups: 2 is not allowed" in refused(f"arch={file}", "input=3x8x8")
    file.write_text("stem: [{block: conv, depth: 3, out_channels: 4, kernel_size: 4}]\nhead: [{block: classifier}]\n")
    assert "images of 3x9x3" in refused(f"arch={file}", "input=3x9x3")


def test_help_shows_an_example_and_waits_for_no_torch(capsys):
    assert describe.main(["--help"]) == describe.main([]) == 0
    assert "python -m nas.describe arch=zoo/resnet50" in capsys.readouterr().out
    assert heavy_after("from nas import describe; describe.main(['arch=lenet5', 'inptu=3'])") == "[]"

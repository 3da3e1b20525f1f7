"""A table of a whole small space: the command that makes one, and the one that it made."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import make_table
from analysis.bench_search import Settings as BenchSettings
from analysis.bench_search import load
from analysis.make_table import Settings, combinations, for_files, make
from analysis.table_search import search
from nas.layers import described
from nas.space_file import load_space
from tests.helpers import HEAD, one_line_refusal, write_space

DATA = Path(__file__).parent / "data" / "tiny_digits.csv"  # python -m analysis.make_table space=tiny data=digits
ACCURACY = "val_accuracy_ep16"


@pytest.fixture(scope="module")
def table():
    return pd.read_csv(DATA)


def choices_of(table: pd.DataFrame) -> list[str]:
    return list(table.columns[: table.columns.get_loc("arch_id")])


# The table of space=tiny


def test_rows_are_all_combinations_and_all_members_of_the_space(table):
    space = load_space("tiny")
    rows = list(combinations(space))
    assert table["arch_id"].tolist() == [arch_id for _, arch_id in rows]
    assert table[choices_of(table)].to_dict("records") == [choices for choices, _ in rows]
    assert set(table["arch_id"]) == {space.architecture(choices).arch_id for choices in space.enumerate()}


def test_costs_are_those_that_are_counted_now(table):
    space = load_space("tiny")
    archs = {arch.arch_id: arch for arch in map(space.architecture, space.enumerate())}
    for row in table.drop_duplicates("arch_id").to_dict("records"):
        layers, footprint = described(archs[row["arch_id"]], 10, (1, 8, 8), "macs")
        assert (row["params"], row["macs"]) == (sum(each.params for each in layers), sum(each.macs for each in layers))
        assert row["peak_memory_mb"] == pytest.approx(footprint.peak_mb(1, "float32"))


def test_figures_are_of_trainings(table):
    assert table[ACCURACY].between(0.2, 1).all()  # one in ten is chance
    assert (table["latency_ms"] > 0).all() and (table["train_s_ep16"] > 0).all()
    figures = [name for name in table if name not in choices_of(table)]
    assert (table.groupby("arch_id")[figures].nunique() == 1).all(axis=None)
    assert table[ACCURACY].nunique() > 10


@pytest.mark.parametrize("sampler", ["ours", "random"])
def test_samplers_search_it(table, sampler):
    settings = BenchSettings(str(DATA), tuple(choices_of(table)), accuracy=ACCURACY, cost="macs", same="arch_id")
    space = load(settings)
    found = search(space, sampler, budget=12, seed=0)
    rows = [row for row, _ in found.judged]
    assert len(found.rows) == 12
    assert 0 < space.hypervolume(rows[:2]) <= space.hypervolume(rows) <= 1
    assert space.hypervolume(range(len(table))) == pytest.approx(1)


# The command


class Searches:
    """Stands for `nas.search`: keeps the words of each call, and leaves a run's folder."""

    def __init__(self, monkeypatch):
        self.words: list[list[str]] = []
        monkeypatch.setattr(make_table, "run_command", self.run)
        monkeypatch.setattr(make_table, "load_run", self.trials)

    def run(self, module, words):
        assert module == "nas.search"
        self.words.append(list(words))
        given = dict(word.split("=", 1) for word in words)
        (Path(given["runs_dir"]) / given["run"]).mkdir(parents=True, exist_ok=True)

    def trials(self, path):
        archs = list(dict.fromkeys(arch_id for _, arch_id in combinations(load_space("tiny"))))
        figures = {"params": 1, "macs": 2, "peak_memory_mb": 0.5, "latency_ms": 0.25, "accuracy": 0.75, "train_s": 1.0}
        return pd.DataFrame({"arch_id": archs, **{name: [value] * len(archs) for name, value in figures.items()}})


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_runs_are_kept_beside_the_table_and_continued(tmp_path, monkeypatch, name):
    searches = Searches(monkeypatch)
    settings = Settings(epochs=(4, 1), out=str(tmp_path / name))
    made = make(settings)
    assert sorted(each.name for each in (tmp_path / "t-runs").iterdir()) == ["epochs-1", "epochs-4"]
    assert not any("resume=true" in words for words in searches.words)
    written = pd.read_csv(tmp_path / name) if name.endswith("csv") else pd.read_parquet(tmp_path / name)
    pd.testing.assert_frame_equal(written, made, check_dtype=False)
    assert {"val_accuracy_ep1", "val_accuracy_ep4", "macs"} <= set(made.columns)
    (tmp_path / name).unlink()
    make(settings)
    assert all("resume=true" in words for words in searches.words[2:]) and len(searches.words) == 4


def test_a_table_has_the_name_of_space_and_data(tmp_path):
    assert Settings().file == Path("tiny_digits.csv")
    assert Settings(space="zoo/lenet5", data=str(tmp_path / "mine.npz")).file == Path("lenet5_mine.csv")


def test_choices_of_several_types_are_written_as_text(tmp_path):
    table = pd.DataFrame({"a": ["x", 3], "b": [False, 3], "c": [1, 2.5], "d": ["x", "y"], "e": [1, 2]})
    for_files(table).to_parquet(tmp_path / "t.parquet")
    read = pd.read_parquet(tmp_path / "t.parquet")
    assert read[["a", "b"]].to_dict("list") == {"a": ["x", "3"], "b": ["False", "3"]}
    assert read[["c", "d", "e"]].to_dict("list") == {"c": [1.0, 2.5], "d": ["x", "y"], "e": [1, 2]}
    assert np.issubdtype(read["e"].dtype, np.integer)


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("out=t.xlsx", ["out=t.xlsx", ".parquet or .csv"]),
        ("out=nowhere/t.csv", ["out=nowhere/t.csv", "folder"]),
        ("out=there.csv", ["out=there.csv", "new file"]),
        ("space=tinny", ["tinny", "tiny"]),
        ("space=mobile", ["space=mobile", "at most 2,000"]),
        ("epochs=[0]", ["epochs=[0]", "from 1 on"]),
        ("epochs=[]", ["epochs=[]"]),
        ("epoch=4", ["epoch", "epochs"]),
    ],
)
def test_bad_input_gets_one_line_and_leaves_nothing(word, parts, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("there.csv").write_text("kept")
    monkeypatch.setattr(make_table, "run_command", lambda *_: pytest.fail("nothing is to be searched"))
    monkeypatch.setattr(sys, "argv", ["make_table", word])
    assert make_table.main() == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert all(part in err for part in parts), err
    assert [each.name for each in tmp_path.iterdir()] == ["there.csv"] and Path("there.csv").read_text() == "kept"


def test_what_the_search_refuses_is_one_line(tmp_path):
    message = one_line_refusal(make, Settings(data="digitz", out=str(tmp_path / "t.csv")))
    assert "digitz" in message and "digits" in message
    assert not (tmp_path / "t.csv").exists()


def test_ctrl_c_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(make_table, "run_command", interrupted)
    monkeypatch.setattr(sys, "argv", ["make_table", f"out={tmp_path / 't.csv'}"])
    assert make_table.main() == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_a_space_of_one_network_is_a_table_of_one_row(tmp_path, monkeypatch):
    space = write_space(tmp_path, "stem: [{block: conv, out_channels: 8}]\nstages: []\n" + HEAD)
    Searches(monkeypatch)
    assert len(make(Settings(space=str(space), out=str(tmp_path / "t.csv")))) == 1

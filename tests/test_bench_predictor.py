"""The benchmark of the latency predictor, as a user runs it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.bench_predictor import Settings, load, twins
from analysis.bench_predictor import run as run_benchmark
from analysis.predictor_contestants import counts, one_hot, vocabularies
from analysis.settings import from_words

DATA_ROOT = os.environ.get("NAS_DATA_ROOT")
needs_tables = pytest.mark.skipif(not DATA_ROOT, reason="NAS_DATA_ROOT is not set: no table of latencies at hand")
COLUMNS = ["a", "b", "c", "d"]
FBNET = [f"op{i:02}" for i in range(22)]
CELL = ["op_1_0", "op_2_0", "op_2_1", "op_3_0", "op_3_1", "op_3_2"]


def run(*words: object, **settings: object) -> subprocess.CompletedProcess[str]:
    given = [*map(str, words), *(f"{key}={value}" for key, value in settings.items())]
    command = [sys.executable, "-m", "analysis.bench_predictor", *given]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """A made-up table: four layers of words, latencies that are sums with noise, some rows without."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame({name: random.choice(["skip", "conv3", "conv5", "pool"], 200) for name in COLUMNS})
    cost = {"skip": 0.1, "conv3": 2.0, "conv5": 5.0, "pool": 0.7}
    total = sum(frame[name].map(cost) * (1 + i) for i, name in enumerate(COLUMNS))
    frame["ms"] = total * np.exp(0.02 * random.normal(size=200))
    frame.loc[:9, "ms"] = [0, -1, np.nan, np.inf, 0, 0, 0, 0, 0, 0]
    path = tmp_path_factory.mktemp("table") / "table.csv"
    frame.to_csv(path, index=False)
    frame.to_parquet(path.with_suffix(".parquet"))
    return path


def test_the_command_writes_a_row_a_model_and_prints_more(table, tmp_path):
    settings = {"table": table, "choices": "[a,b,c,d]", "latency": "ms", "train": 40, "seeds": 2}
    done = run(out=tmp_path / "out.csv", **settings)
    assert done.returncode == 0, done.stderr
    written = pd.read_csv(tmp_path / "out.csv")
    assert list(written.columns) == ["model", "median_error", "p90_error", "kendall"]
    assert list(written.model) == ["ours", "ridge", "random_forest"]
    ours, ridge, forest = written.median_error
    assert ours < min(ridge, forest)
    assert ours < 0.04
    assert (written.median_error <= written.p90_error).all()
    for word in ("40 of 190 rows", "coverage", "seconds", "median_error_std", "split 2 of 2", "noise ceiling"):
        assert word in done.stdout


def test_rows_without_positive_latency_are_left_out_whatever_the_format(table):
    for path in (table, table.with_suffix(".parquet")):
        choices, latency = load(Settings(table=str(path), choices=("a", "c"), latency="ms", train=40))
        assert choices.shape == (190, 2)
        assert (latency > 0).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"nonsense": 1}, "nonsense"),
        ({"train": "many"}, "train"),
        ({"train": 189}, "train=189"),
        ({"train": 1}, "train=1"),
        ({"seeds": 0}, "seeds=0"),
        ({"choices": "[]"}, "choices=[]"),
        ({"choices": "a"}, "choices"),
        ({"choices": "[a,zz]"}, "zz"),
        ({"choices": "[a,a]"}, "named twice"),
        ({"choices": "[a"}, "choices=[a"),
        ({"latency": "none"}, "none"),
        ({"latency": "d"}, "not a column of numbers"),
        ({"table": "absent.csv"}, "absent.csv"),
        ({"table": "table.txt"}, "table.txt"),
        ({"out": "absent/out.csv"}, "folder"),
        ({"out": "."}, "out=. is not allowed; allowed: a new file"),
    ],
)
def test_bad_input_gets_one_line(table, tmp_path, change, words):
    settings = {"table": table, "choices": "[a,b,c]", "latency": "ms", "train": 40, "out": tmp_path / "out.csv"}
    given = [f"{key}={value}" for key, value in (settings | change).items()]
    with pytest.raises(ValueError, match=r"^[^\n]+$") as raised:
        run_benchmark(from_words(given, Settings))
    assert words in str(raised.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["nonsense"], []])
def test_the_command_says_so_and_exits_with_2(words):
    done = run(*words)
    assert done.returncode == 2
    assert not done.stdout
    assert len(done.stderr.splitlines()) == 1


def test_unseen_categories_are_no_category():
    training, rows = np.array([["x", "u"], ["y", "v"]]), np.array([["z", "u"]])
    assert one_hot(training, rows).tolist() == [[0, 0, 1, 0]]
    assert one_hot(training, training).sum() == 4


def test_columns_share_the_vocabulary_that_includes_theirs():
    training = np.array([["a", "3", "b", "c"], ["b", "5", "a", "a"], ["c", "3", "a", "b"]])
    assert vocabularies(training) == [(["a", "b", "c"], [0, 2, 3]), (["3", "5"], [1])]
    # of a, b and c over columns 0, 2 and 3, then over columns 0 and 2: quarters are of one column, and so is column 1
    assert counts(training, training).tolist() == [[1, 1, 1, 1, 1, 0], [2, 1, 0, 1, 1, 0], [1, 1, 1, 1, 0, 1]]


def test_the_noise_ceiling_is_the_error_of_rows_as_their_twins_predict_them():
    choices = np.array([["a"], ["a"], ["b"]])
    assert "median_error 0.7500" in twins(choices, np.array([1.0, 2.0, 9.0]))
    assert "unknown" in twins(choices[1:], np.array([1.0, 2.0]))


@needs_tables
@pytest.mark.parametrize(
    ("file", "choices", "latency"),
    [
        ("fbnet_latency", FBNET, "lat_ms_titan_rtx_32"),
        ("nasbench201_dev", CELL, "lat_ms_gold_6226"),
    ],
)
def test_ours_is_ahead_on_measured_tables(file, choices, latency, tmp_path):
    path = Path(str(DATA_ROOT)) / "tables" / f"{file}.parquet"
    done = run(table=path, choices=f"[{','.join(choices)}]", latency=latency, out=tmp_path / "out.csv", seeds=1)
    assert done.returncode == 0, done.stderr
    written = pd.read_csv(tmp_path / "out.csv", index_col="model")
    others = written.loc[["ridge", "random_forest"]]
    assert written.loc["ours"].median_error <= others.median_error.min()
    assert written.loc["ours"].p90_error <= others.p90_error.min()
    assert written.loc["ours"].kendall >= others.kendall.max()

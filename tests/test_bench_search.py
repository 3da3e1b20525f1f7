"""The benchmark of samplers on tables: what it counts, prints and refuses; the default sampler on a public table."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import moocore
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis import bench_search
from analysis.bench_search import THRIFT, Settings, compare, epochs_of, load, reduction_of
from analysis.table_search import search
from analysis.table_space import make_space
from nas.tune.promotion import Ladder
from tests.tables import made_up_table

DATA_ROOT = os.environ.get("NAS_DATA_ROOT")
CHOICES = ("a", "b", "w", "v")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A table with the errors of a short training, which agree with the full one's but for some noise."""
    table = made_up_table()
    table["error_ep2"] = 1.5 * made_up_table(noise=0.05)["error"]
    path = tmp_path_factory.mktemp("tables") / "made_up.csv"
    table.rename(columns={"error": "error_ep20"}).to_csv(path, index=False)
    return path


@pytest.fixture
def settings(file):
    return Settings(table=str(file), choices=CHOICES, error="error_ep20", cost="cost", same="same")


# Hypervolume

small = st.floats(0.05, 0.95)


@given(st.lists(st.tuples(small, small), min_size=2, max_size=12, unique=True), st.data())
def test_the_hypervolume_is_one_for_the_true_front_and_grows_with_what_is_known(points, data):
    table = pd.DataFrame(points, columns=["error", "cost"]).assign(x=range(len(points)))
    space = make_space(table, ["x"], [table["error"].to_numpy()], table["cost"].to_numpy(), None)
    known = data.draw(st.lists(st.integers(0, len(points) - 1), unique=True))
    assert space.hypervolume(list(range(len(points)))) == pytest.approx(1)
    some = space.hypervolume(known)
    assert 0 <= some <= 1 + 1e-9
    assert space.hypervolume(known[:1]) <= some + 1e-9


def test_the_hypervolume_is_scaled_by_the_true_fronts_ends():
    table = pd.DataFrame({"x": range(4), "error": [0.5, 0.3, 0.1, 0.9], "cost": [1.0, 2.0, 5.0, 9.0]})  # the last: none
    space = make_space(table, ["x"], [table["error"].to_numpy()], table["cost"].to_numpy(), None)
    assert space.hypervolume([1]) == pytest.approx(1)  # (0.5, 0.25) leaves 0.5 * 0.75; the ends add nothing
    assert space.hypervolume([0, 2, 3]) == pytest.approx(0)


# Comparing


@pytest.fixture(scope="module")
def compared(file):
    settings = Settings(
        table=str(file),
        choices=CHOICES,
        error="error_ep20",
        cost="cost",
        same="same",
        fidelity=("error_ep2",),
        samplers=("ours", "random"),
        budget=30,
        seeds=2,
        processes=1,
    )
    return compare(load(settings), settings)


def test_a_comparison_has_the_columns_and_a_row_for_each_sampler_and_number_of_evaluations(compared):
    columns = ["sampler", "evaluations", "mean", "std", "unique", "seconds_per_proposal", "epochs"]
    assert compared.columns.tolist() == columns
    names = ["ours", "random", "random+filter", "ours+mo_asha", "random+mo_asha"]
    assert compared[["sampler", "evaluations"]].to_numpy().tolist() == [[name, at] for name in names for at in (25, 30)]
    assert compared["mean"].between(0, 1).all() and (compared["seconds_per_proposal"] > 0).all()


def test_ours_is_ahead_of_random_and_never_repeats_itself(compared):
    at_end = compared[compared["evaluations"] == 30].set_index("sampler")
    assert at_end.loc["ours", "unique"] == 1
    assert at_end.loc["ours", "mean"] > at_end.loc["random", "mean"]


def test_rungs_take_a_third_of_the_epochs(compared):
    at_end = compared[compared["evaluations"] == 30].set_index("sampler")["epochs"]
    full = [name for name in at_end.index if not name.endswith("+mo_asha")]
    assert (at_end[full] == 1).all()
    assert (at_end.drop(full) <= THRIFT).all() and (at_end.drop(full) > 0.8 * THRIFT).all()


def test_only_what_was_trained_in_full_counts(file, settings):
    space = load(replace(settings, fidelity=("error_ep2",)))
    found = search(space, "random", 20, 0, Ladder((2, 20), 4))
    assert len(found.judged) == 5 and len(found.rows) == 20
    assert {row for row, _ in found.judged} <= set(found.rows)
    assert found.epochs[-1] == 20 * 2 + 5 * 20
    best = np.array([[space.levels[0][row], space.costs[row]] for row in found.rows])
    first = found.rows.index(found.judged[0][0])  # it was among the best of those before it
    assert moocore.is_nondominated(best[: first + 1])[first]


def test_the_filter_skips_what_equals_a_judged_row(settings):
    space = load(settings)
    with_filter, without = (search(space, name, 60, 0) for name in ("random+filter", "random"))
    assert len(set(space.same[with_filter.rows])) == 60 > len(set(space.same[without.rows]))


# Settings


@given(st.integers(1, 30), st.integers(200, 2000), st.integers(50, 150))
def test_the_default_reduction_takes_a_third_of_the_epochs(short, full, between):
    for fidelity, epochs in ((("s",), (short, full)), (("s", "m"), (short, between, full))):
        settings = Settings(table="t", choices=("x",), error="e", cost="c", fidelity=fidelity, epochs=epochs)
        reduction = reduction_of(settings)
        spent = sum(each / reduction**rung for rung, each in enumerate(epochs))
        assert reduction > 1 and spent == pytest.approx(THRIFT * full)


def test_epochs_are_told_by_the_columns_names(settings):
    assert epochs_of(replace(settings, fidelity=("error_ep2",))) == (2, 20)
    assert epochs_of(settings) == (1,)


def test_an_accuracy_is_an_error_in_percent_or_as_a_fraction(file, settings):
    by_error = load(settings)
    assert np.allclose(load(replace(settings, error=None, accuracy="accuracy")).errors, by_error.errors)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["samplers=[ours,bayes]"], "samplers: 'bayes' is unknown; known: ours, tpe"),
        (["budget=0"], "budget=0 is not allowed; allowed: 1 or more"),
        (["reduction=1"], "reduction=1"),
        (["accuracy=accuracy"], "exactly one of error=COLUMN and accuracy=COLUMN"),
        (["cost=price"], "cost=price: no such column"),
        (["cost=a"], "cost=a is not a column of numbers"),
        (["choices=[a,b,w,x]"], "choices=x: no such column"),
        (["choices=[a,b,w]"], "rows have the same choices as another one"),
        (["same=who"], "same=who: no such column"),
        (["fidelity=[error_ep2]", "epochs=[20,2]"], "epochs=[20, 2] is not allowed"),
        (["fidelity=[error_ep2]", "epochs=[8,20]"], "give reduction"),
        (["out=figures.txt"], "out=figures.txt is not allowed"),
        (["table=none.parquet"], "table=none.parquet cannot be read"),
        (["seed=1"], "seed"),
    ],
)
def test_bad_input_gets_one_line(file, monkeypatch, capsys, words, part):
    good = {"table": file, "choices": "[a,b,w,v]", "error": "error_ep20", "cost": "cost"}
    given = [f"{key}={value}" for key, value in good.items() if not any(word.startswith(f"{key}=") for word in words)]
    monkeypatch.setattr(sys, "argv", ["analysis.bench_search", *given, *words])
    assert bench_search.main() == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and part in told


# The public table


@pytest.mark.skipif(not DATA_ROOT, reason="NAS_DATA_ROOT is not set: no table of NAS-Bench-Macro at hand")
def test_exact_cost_is_near_the_front_of_nasbench_macro_after_fifty_trainings():
    table = Path(str(DATA_ROOT)) / "tables" / "nasbench_macro.parquet"
    choices = tuple(f"l{place}" for place in range(8))
    settings = Settings(table=str(table), choices=choices, accuracy="test_acc_mean", cost="flops", same="unique_id")
    space = load(settings)
    found = search(space, "ours", 50, 1)
    assert space.hypervolume(found.rows) > 0.985
    assert len(set(space.same[found.rows])) == 50

"""What choices do: `importance` and `marginals`."""

import numpy as np
import pandas as pd
import pytest

import analysis
from tests.helpers import one_line_refusal

DEPTHS, KINDS = (1, 2, 3), ("plain", "separable")


@pytest.fixture(scope="module")
def trials():
    """Depth decides the latency; kind the error, and whether there is a width, which adds little to the latency."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(60):
        depth, kind, branches = rng.choice(DEPTHS), str(rng.choice(KINDS)), int(rng.choice([1, 2]))
        width = int(rng.choice([8, 16])) if kind == "plain" else None
        rows.append(
            {
                "trial": i,
                "state": "completed",
                "error": 0.5 - 0.3 * (kind == "plain") + 0.01 * rng.normal(),
                "latency_ms": depth + 0.02 * (width or 0) + 0.001 * rng.normal(),
                "depth": depth,
                "kind": kind,
                "width": width,
                "branches": branches,
                "fixed": "x",
            }
        )
    return pd.DataFrame(rows).astype({"width": "Int64"})


def test_importance_tells_what_matters_for_which_objective(trials):
    table = analysis.importance(trials)
    assert list(table.columns) == ["error", "latency_ms"]
    assert table.index.name == "choice"
    assert set(table.index) == {"depth", "kind", "width", "branches", "fixed"}
    assert table.sum().tolist() == pytest.approx([1, 1])
    assert table["error"].is_monotonic_decreasing
    assert table["latency_ms"].idxmax() == "depth"
    assert table.loc["depth", "latency_ms"] > 0.7
    assert table.loc[["kind", "width"], "error"].sum() > 0.9  # there is a width exactly where the kind is plain
    assert table.loc["branches"].max() < 0.05
    assert (table.loc["fixed"] == 0).all()
    pd.testing.assert_frame_equal(table, analysis.importance(trials))


def test_a_choice_that_only_some_trials_have_is_weighed_with_its_absence():
    here = [0, 1] * 20
    trials = pd.DataFrame(
        {
            "state": "completed",
            "error": [0.1 + 0.5 * each for each in here],
            "latency_ms": 1.0,
            "width": pd.array([8 if each else None for each in here], dtype="Int64"),
            "noise": np.random.default_rng(1).choice(["a", "b"], 40),
        }
    )
    assert analysis.importance(trials).loc["width", "error"] > 0.95


def test_importance_of_other_columns_and_where_nothing_can_be_told(trials):
    slower = trials.assign(train_s=trials["branches"] * 2.0)
    assert analysis.importance(slower, ["train_s"])["train_s"].idxmax() == "branches"
    equal = analysis.importance(trials.assign(error=0.5))
    assert equal["error"].isna().all() and equal["latency_ms"].notna().all()
    assert analysis.importance(trials[:1]).isna().all(axis=None)
    assert analysis.importance(trials[:0]).isna().all(axis=None)
    assert "speed" in one_line_refusal(analysis.importance, trials, ["speed"])
    assert "kind" in one_line_refusal(analysis.importance, trials, ["kind"])


def test_only_completed_trials_count(trials):
    failed = trials.assign(state="stopped", error=trials["branches"] * 10.0)
    both = pd.concat([trials, failed], ignore_index=True)
    pd.testing.assert_frame_equal(analysis.importance(both), analysis.importance(trials))
    pd.testing.assert_frame_equal(analysis.marginals(both), analysis.marginals(trials))


def test_marginals_are_the_means_of_each_option():
    trials = pd.DataFrame(
        {
            "state": "completed",
            "error": [0.1, 0.3, 0.5, 0.6],
            "depth": [10, 10, 2, 2],
            "width": pd.array([8, None, None, None], dtype="Int64"),
        }
    )
    table = analysis.marginals(trials, "error")
    assert list(table.columns) == ["choice", "option", "count", "mean", "standard_error"]
    depths, widths = (table[table["choice"] == name] for name in ("depth", "width"))
    assert depths["option"].tolist() == [2, 10]  # by size
    assert depths["mean"].tolist() == pytest.approx([0.55, 0.2])
    assert depths["standard_error"].tolist() == pytest.approx([0.05, 0.1])
    assert widths["option"].tolist() == [8, "absent"]
    assert widths["count"].tolist() == [1, 3]
    assert widths["standard_error"].isna().tolist() == [True, False]
    assert "speed" in one_line_refusal(analysis.marginals, trials, "speed")

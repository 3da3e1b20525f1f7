"""What is read of several runs: `load_runs`, `attainment`, `compare`, `progress`."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import analysis
from analysis.load import BESIDE
from tests.helpers import one_line_refusal
from tests.written_runs import write_run

A, B, C = [(0.5, 1.0), (0.25, 2.0)], [(0.4, 1.0), (0.25, 4.0)], [(0.5, 2.0), (0.1, 4.0)]


@pytest.fixture
def runs(tmp_path):
    for name, points in (("a", A), ("b", B), ("c", C)):
        write_run(tmp_path, name, points)
    return tmp_path


def several(**points):
    """A table as `load_runs` gives it."""
    rows = [(run, error, ms, "completed") for run, found in points.items() for error, ms in found]
    table = pd.DataFrame(rows, columns=["run", "error", "latency_ms", "state"])
    return table.assign(trial=range(len(table)))


# --- load_runs


def test_runs_are_found_in_a_folder_by_name_and_by_path(runs):
    (runs / ".latency").mkdir()
    (runs / "notes").mkdir()
    table = analysis.load_runs(runs)
    assert table.columns[0] == "run"
    assert table["run"].tolist() == ["a", "a", "b", "b", "c", "c"]  # `latest` is no run of its own
    assert table["trial"].tolist() == [0, 1] * 3
    assert table.attrs == {"objectives": ["error", "latency_ms"], "metric": "accuracy"}
    assert analysis.load_runs(["c", runs / "a"], runs_dir=runs)["run"].tolist() == ["c", "c", "a", "a"]
    assert analysis.load_runs(runs / "latest")["run"].tolist() == ["c", "c"]
    assert analysis.load_runs("b", runs_dir=runs)["run"].tolist() == ["b", "b"]


def test_the_rest_of_the_table_is_that_of_each_run(runs):
    table = analysis.load_runs(runs)
    for name, rows in table.groupby("run"):
        alone = analysis.load_run(runs / name)
        pd.testing.assert_frame_equal(rows.drop(columns="run").reset_index(drop=True), alone, check_like=False)


def test_choices_that_only_some_runs_have_are_empty_in_the_others(tmp_path):
    write_run(tmp_path, "a", A, [{"depth": 1, "kind": "x"}] * 2)
    write_run(tmp_path, "b", B, [{"depth": 2}] * 2)
    table = analysis.load_runs(tmp_path)
    assert table["depth"].tolist() == [1, 1, 2, 2]
    assert table["kind"].isna().tolist() == [False, False, True, True]
    assert [each for each in table if each not in BESIDE] == ["depth", "kind"]


def test_runs_of_one_name_go_by_their_paths(tmp_path):
    for folder in ("x", "y"):
        write_run(tmp_path / folder, "a", A)
    paths = [str(tmp_path / folder / "a") for folder in ("x", "y")]
    assert analysis.load_runs(paths)["run"].unique().tolist() == paths


def test_runs_that_cannot_be_loaded_together_are_refused(runs, tmp_path):
    write_run(runs, "macs", A, objectives=["error", "macs"])
    write_run(runs, "f1", A, metric="macro_f1")
    assert "objectives of" in one_line_refusal(analysis.load_runs, ["a", "macs"], runs_dir=runs)
    assert "macro_f1" in one_line_refusal(analysis.load_runs, ["a", "f1"], runs_dir=runs)
    assert "given twice" in one_line_refusal(analysis.load_runs, ["a", runs / "a"], runs_dir=runs)
    assert "nowhere" in one_line_refusal(analysis.load_runs, ["a", "nowhere"], runs_dir=runs)
    (tmp_path / "empty").mkdir()
    assert "no runs in" in one_line_refusal(analysis.load_runs, tmp_path / "empty")
    assert "no runs are given" in one_line_refusal(analysis.load_runs, [])


# --- attainment


def attained(table, percentile):
    return table.loc[table["percentile"] == percentile, ["error", "latency_ms"]].to_numpy().tolist()


def test_attainment_surfaces_by_hand():
    surfaces = analysis.attainment(several(a=A, b=B, c=C), percentiles=[10, 50, 100])
    assert attained(surfaces, 10) == [[0.4, 1], [0.25, 2], [0.1, 4]]  # the best of all
    assert attained(surfaces, 50) == [[0.5, 1], [0.4, 2], [0.25, 4]]
    assert attained(surfaces, 100) == [[0.5, 2], [0.25, 4]]
    assert surfaces.attrs["objectives"] == ["error", "latency_ms"]


points = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=6)


@given(st.lists(points, min_size=1, max_size=5), st.sampled_from([20, 25, 50, 60, 100]))
def test_a_corner_is_attained_by_the_share_of_runs_that_its_surface_says(fronts, percentile):
    table = several(**{f"run{i}": front for i, front in enumerate(fronts)})
    for corner in attained(analysis.attainment(table, [percentile]), percentile):
        by = sum(any(e <= corner[0] and ms <= corner[1] for e, ms in front) for front in fronts)
        assert by >= np.ceil(percentile / 100 * len(fronts))


def test_attainment_loads_runs_itself(runs):
    surfaces = analysis.attainment(runs)
    assert surfaces["percentile"].unique().tolist() == [25, 50, 75]


def test_what_has_no_attainment_is_refused():
    table = several(a=A, b=B)
    assert "percentiles=[0]" in one_line_refusal(analysis.attainment, table, [0])
    assert "percentiles=[]" in one_line_refusal(analysis.attainment, table, [])
    assert "'run'" in one_line_refusal(analysis.attainment, table.drop(columns="run"))
    table.loc[table["run"] == "b", "state"] = "failed"
    assert "run b has no completed trial" in one_line_refusal(analysis.attainment, table)
    four = ["error", "latency_ms", "params", "macs"]
    assert "two or three" in one_line_refusal(analysis.attainment, table, [50], four)


def test_attainment_is_drawn_for_groups():
    surfaces = analysis.attainment(several(a=A, b=B))
    figure = analysis.plot_attainment({"ours": surfaces, "others": surfaces}, "two groups")
    (axes,) = figure.axes
    assert len(axes.get_lines()) == 6
    assert axes.get_title() == "two groups"
    assert figure._repr_png_().startswith(b"\x89PNG")
    three = surfaces.copy()
    three.attrs["objectives"] = ["error", "latency_ms", "params"]
    assert "two objectives" in one_line_refusal(analysis.plot_attainment, {"ours": three})


# --- compare


def test_hypervolumes_are_shares_of_the_common_front():
    # The front of all is (0.5, 1), (0.25, 2), (0.1, 4), so that the reference is (0.54, 4.3).
    groups = {"ours": several(a=A), "others": several(b=[(0.4, 3.0)], c=[(0.1, 4.0), (0.6, 9.0)])}
    table = analysis.hypervolumes(groups)
    assert table["run"].tolist() == ["a", "b", "c"]
    assert table["group"].tolist() == ["ours", "others", "others"]
    union = 0.04 * 1 + 0.29 * 2 + 0.44 * 0.3
    assert table["hypervolume"].tolist() == pytest.approx(
        [(0.04 * 1 + 0.29 * 2.3) / union, 0.14 * 1.3 / union, 0.44 * 0.3 / union]
    )
    given = analysis.hypervolumes(groups, reference=(1.0, 10.0))["hypervolume"]
    union = 0.5 * 1 + 0.75 * 2 + 0.9 * 6
    assert given.tolist() == pytest.approx([(0.5 + 0.75 * 8) / union, 0.6 * 7 / union, 0.9 * 6 / union])


def test_groups_are_compared_by_a_test_and_an_effect_size():
    def seeds(*errors):
        return several(**{f"s{i}": [(0.5, 1.0), (error, 2.0), (0.0, 3.0)] for i, error in enumerate(errors)})

    reference = (0.5, 3.0)
    groups = {"good": seeds(0.1, 0.11, 0.12), "bad": seeds(0.2, 0.21, 0.22, 0.23), "one": seeds(0.215)}
    table = analysis.compare(groups, reference).set_index(["a", "b"])
    assert list(table.index) == [("good", "bad"), ("good", "one"), ("bad", "one")]
    row = table.loc[("good", "bad")]
    assert (row["runs_a"], row["runs_b"], row["a12"]) == (3, 4, 1.0)
    assert row["p_value"] == pytest.approx(2 / 35)  # two of the 7 choose 3 orders are as extreme
    assert row["mean_a"] > row["mean_b"]
    assert row["sd_a"] == pytest.approx(0.01 / 0.4)  # the best of all have (0.5 - 0.1) * (3 - 2)
    assert table.loc[("bad", "one")]["a12"] == 0.5
    assert table.loc[("bad", "one")]["p_value"] == 1
    assert np.isnan(table.loc[("bad", "one")]["sd_b"])


def test_equal_groups_do_not_differ(runs):
    row = analysis.compare({"x": [runs / "a", runs / "b"], "y": [runs / "b", runs / "a"]}).iloc[0]
    assert (row["a12"], row["p_value"]) == (0.5, 1.0)


def test_what_cannot_be_compared_is_refused(runs):
    one = several(a=A)
    assert "too few" in one_line_refusal(analysis.compare, {"x": one})
    other = several(a=A)
    other.attrs["objectives"] = ["error", "macs"]
    assert "objectives of the groups differ" in one_line_refusal(analysis.compare, {"x": one, "y": other})
    assert "group 'y': no runs" in one_line_refusal(analysis.compare, {"x": one, "y": []})
    assert "better than reference" in one_line_refusal(analysis.compare, {"x": one, "y": one}, (0.1, 0.1))
    assert "no trial is completed" in one_line_refusal(
        analysis.compare, {"x": one.assign(state="failed"), "y": one.assign(state="failed")}
    )


def test_a_front_of_one_point_has_a_hypervolume():
    point = several(a=[(0.0, 1.0)])
    assert analysis.hypervolumes({"x": point})["hypervolume"].tolist() == [1]
    assert analysis.progress(point)["hypervolume"].tolist() == pytest.approx([0.1 * 0.1])


# --- progress


def test_progress_by_hand():
    trials = several(a=[(0.5, 2.0), (0.5, 3.0), (0.2, 1.0), (0.1, 4.0)]).drop(columns="run")
    trials.loc[1, "state"] = "failed"
    trials["ended_s"] = [5.0, 6.0, 2.0, 9.0]
    infeasible = trials.iloc[[0]].assign(state="infeasible", trial=4, ended_s=1.0)
    steps = analysis.progress(pd.concat([trials, infeasible]), reference=(1.0, 4.0))
    assert steps["trained"].tolist() == [1, 2, 3, 4]
    assert steps["trial"].tolist() == [2, 0, 1, 3]  # in the order in which they ended
    assert steps["ended_s"].tolist() == [2, 5, 6, 9]
    assert steps["best_error"].tolist() == [0.2, 0.2, 0.2, 0.1]
    assert steps["hypervolume"].tolist() == pytest.approx([0.8 * 3] * 4)
    assert np.isnan(steps["error"][2])


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=10))
def test_progress_ends_at_the_hypervolume_of_all_and_never_falls(found):
    trials = several(a=found)
    steps = analysis.progress(trials, reference=(10, 10))
    assert steps["hypervolume"].is_monotonic_increasing
    assert steps["hypervolume"].iloc[-1] == pytest.approx(analysis.hypervolume(trials, (10, 10)))
    assert steps["trial"].tolist() == list(range(len(found)))  # without times, by number


def test_progress_of_a_run_without_results_and_of_several():
    trials = several(a=A, b=B)
    assert "progress is of one run" in one_line_refusal(analysis.progress, trials)
    nothing = analysis.progress(trials.loc[trials["run"] == "a"].assign(state="failed"))
    assert nothing["hypervolume"].tolist() == [0, 0]
    assert nothing["best_error"].isna().all()
    assert analysis.progress(trials[:0]).empty


def test_trials_have_the_time_at_which_they_ended(runs):
    log = runs / "a" / "events.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for second, line in enumerate(lines):
        line["time"] = 1000.0 + 2 * second
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert analysis.load_run(runs / "a")["ended_s"].tolist() == [4, 10]
    for line in lines:
        del line["time"]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert analysis.load_run(runs / "a")["ended_s"].isna().all()

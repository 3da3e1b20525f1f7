import csv
import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.architecture import architecture_from_dict
from nas.command_line import make_config
from nas.objectives import Constraint
from nas.reading import Cost
from nas.results import (
    COLUMNS,
    Run,
    front_of,
    front_table,
    make_constraints,
    non_dominated,
    plot_front,
    trial_table,
    write_results,
)
from nas.store import RunStore
from nas.trial import Ended, Priced, Proposed, Remeasured, Started, TrialRecord, TrialState
from nas.trial import Tested as WasTested
from tests.helpers import reading

TWO, THREE = ("error", "latency_ms"), ("error", "latency_ms", "params")
SPACE = "head: [{block: classifier}]\n"
CONFIG = make_config({"space": "tiny", "run": "x"})


def architecture(channels=8):
    return architecture_from_dict(
        {
            "schema": 1,
            "stem": [{"block": "conv", "out_channels": channels}],
            "stages": [],
            "head": [{"block": "classifier"}],
        }
    )


def record(trial, error=0.5, latency_ms=1.0, params=100, macs=1000, state=TrialState.COMPLETED, **more):
    return TrialRecord(
        trial=trial,
        architecture=architecture(),
        choices={},
        state=state,
        accuracy=1 - error,
        cost=Cost(params, macs, reading(latency_ms)),
        **more,
    )


def numbers(records):
    return [each.trial for each in records]


def front_by_hand(points):
    """Indices of the points that no other point is at least as good as everywhere and better somewhere."""

    def dominates(a, b):
        return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))

    return [i for i, point in enumerate(points) if not any(dominates(other, point) for other in points)]


# --- the front

eighths = st.integers(0, 8).map(lambda n: n / 8)


@given(st.lists(st.tuples(eighths, st.integers(1, 6)), max_size=25))
def test_the_front_of_two_objectives_is_the_non_dominated_set(points):
    records = [record(i, error, latency) for i, (error, latency) in enumerate(points)]
    assert numbers(front_of(records, TWO, ())) == front_by_hand(points)


@given(st.lists(st.tuples(eighths, st.integers(1, 5), st.integers(1, 5)), max_size=25))
def test_the_front_of_three_objectives_is_the_non_dominated_set(points):
    records = [record(i, error, latency, params) for i, (error, latency, params) in enumerate(points)]
    assert numbers(front_of(records, THREE, ())) == front_by_hand(points)


@given(
    st.lists(
        st.tuples(eighths, st.floats(0.001, 1e3), st.integers(1, 10**12), st.sampled_from(list(TrialState))),
        max_size=20,
    ),
    st.none() | st.floats(0.001, 1e3),
)
def test_only_completed_trials_that_keep_the_constraints_count(trials, limit):
    constraints = () if limit is None else (Constraint("latency_ms", limit),)
    records = [
        record(i, error, latency, macs=macs, state=state) for i, (error, latency, macs, state) in enumerate(trials)
    ]
    allowed = [
        (i, (error, macs))
        for i, (error, latency, macs, state) in enumerate(trials)
        if state is TrialState.COMPLETED and (limit is None or latency <= limit)
    ]
    wanted = [allowed[j][0] for j in front_by_hand([point for _, point in allowed])]
    assert numbers(front_of(records, ("error", "macs"), constraints)) == wanted


def test_equal_points_are_all_kept_and_ties_in_one_objective_are_not():
    records = [record(0, 0.25, 1.0), record(1, 0.25, 1.0), record(2, 0.25, 2.0), record(3, 0.5, 1.0)]
    assert numbers(front_of(records, TWO, ())) == [0, 1]


@pytest.mark.parametrize("state", [TrialState.STOPPED, TrialState.FAILED, TrialState.INFEASIBLE])
def test_a_trial_that_did_not_complete_is_not_on_the_front_however_good(state):
    records = [record(0, 0.0, 0.5, state=state), record(1, 0.5, 1.0)]
    assert numbers(front_of(records, TWO, ())) == [1]


@pytest.mark.parametrize("name", ["latency_ms", "params", "macs"])
def test_what_breaks_a_constraint_hides_no_other(name):
    large = {"latency_ms": 2.0, "params": 200, "macs": 2000}
    records = [record(0, 0.125, **{name: large[name]}), record(1, 0.5)]
    limit = large[name] / 2
    assert numbers(front_of(records, TWO, (Constraint(name, limit),))) == [1]
    assert 0 in numbers(front_of(records, TWO, (Constraint(name, 2 * limit),)))


def test_a_cost_at_its_limit_keeps_the_constraint():
    assert numbers(front_of([record(0, params=100)], TWO, (Constraint("params", 100),))) == [0]


def test_trials_without_a_cost_do_not_stand_in_the_way():
    failed = TrialRecord(0, architecture(), {}, TrialState.FAILED, "MemoryError: ")
    assert numbers(front_of([failed, record(1)], TWO, (Constraint("params", 1000),))) == [1]


def test_the_front_of_nothing_is_empty():
    assert front_of([], TWO, ()) == []
    assert front_of([record(0, state=TrialState.FAILED)], THREE, ()) == []
    assert non_dominated(np.empty((0, 2))).tolist() == []


def test_the_front_does_not_depend_on_units():
    records = [record(i, error / 8, latency) for i, (error, latency) in enumerate([(1, 5), (2, 3), (3, 4), (4, 1)])]
    points = np.array([each.values(TWO) for each in records])
    assert non_dominated(points).tolist() == [True, True, False, True]
    assert non_dominated(points * [1e-9, 1e9]).tolist() == [True, True, False, True]


def test_constraints_are_those_that_are_set():
    constraints = make_config({"constraints": {"latency_ms": 2.5, "macs": 1000}}).constraints
    assert set(make_constraints(constraints)) == {Constraint("latency_ms", 2.5), Constraint("macs", 1000)}
    assert make_constraints(CONFIG.constraints) == ()


@pytest.mark.parametrize(("cost", "excess"), [(50, -0.5), (100, 0.0), (150, 0.5)])
def test_a_constraint_measures_its_excess_relative_to_its_limit(cost, excess):
    constraint = Constraint("params", 100)
    assert constraint.excess({"params": cost}) == pytest.approx(excess)
    broken = constraint.broken_by({"params": cost})
    assert (broken is None) == (excess <= 0)
    assert broken is None or broken == "params 150 is above constraints.params=100"


# --- the table


def some_records():
    return [
        dataclasses.replace(
            record(0, 0.25, 2.0, epochs=3, train_s=1.5, train_params=400, remeasured=True, test_accuracy=0.5),
            choices={"depth": 2, "block": "basic"},
        ),
        dataclasses.replace(
            record(1, 0.5, 1.0, epochs=3, train_s=2.5, train_params=300),
            choices={"block": "conv"},
            cost=Cost(100, 1000, reading(1.0, doubt="it drifts")),
        ),
        record(2, 0.5, 3.0),
        TrialRecord(
            3,
            architecture(16),
            {},
            TrialState.INFEASIBLE,
            "too large",
            cost=Cost(10**6, 10**9, reading(9.0, source="predicted")),
        ),
        TrialRecord(4, architecture(), {}, TrialState.FAILED, "diverged"),
    ]


def dtypes(table):
    return {name: str(table[name].dtype) for name in COLUMNS}


FLOATS = (
    "accuracy",
    "error",
    "latency_ms",
    "latency_iqr_ms",
    "latency_low_ms",
    "latency_high_ms",
    "train_s",
    "waited_s",
    "test_accuracy",
)


def test_the_table_has_one_row_a_trial_and_the_promised_columns_first():
    table = trial_table(some_records(), CONFIG)
    assert tuple(table.columns[: len(COLUMNS)]) == tuple(COLUMNS)
    assert set(table.columns[len(COLUMNS) :]) == {"depth", "block"}
    promised = (
        "trial arch_id deploy_id state accuracy error latency_ms params macs epochs train_s on_front test_accuracy"
    )
    assert set(promised.split()) <= set(COLUMNS)
    assert table["trial"].tolist() == [0, 1, 2, 3, 4]


def test_the_table_says_what_the_records_say():
    table = trial_table(some_records(), CONFIG).set_index("trial")
    assert table["state"].tolist() == ["completed"] * 3 + ["infeasible", "failed"]
    assert table["reason"].tolist() == ["", "", "", "too large", "diverged"]
    assert table["on_front"].tolist() == [True, True, False, False, False]
    assert table["error"].tolist()[:3] == [0.25, 0.5, 0.5]
    assert table["latency_ms"].tolist()[:4] == [2.0, 1.0, 3.0, 9.0]
    assert table["latency_source"].tolist() == ["measured"] * 3 + ["predicted", ""]
    assert table["latency_doubt"].tolist() == ["", "it drifts", "", "", ""]
    assert table["params"].tolist()[:4] == [100, 100, 100, 10**6]
    assert table["macs"].tolist()[3] == 10**9
    assert table["arch_id"].tolist()[3] == architecture(16).arch_id != table["arch_id"].tolist()[0]
    assert table["remeasured"].tolist() == [True] + [False] * 4
    assert table.loc[0, "test_accuracy"] == 0.5
    assert table.loc[0, "block"] == "basic"


def test_what_is_not_known_is_missing():
    table = trial_table(some_records(), CONFIG).set_index("trial")
    assert table.loc[4, ["accuracy", "error", "latency_ms", "params", "macs", "train_params"]].isna().all()
    assert table.loc[3, ["accuracy", "error", "test_accuracy"]].isna().all()
    assert table["test_accuracy"].notna().sum() == 1
    assert pd.isna(table.loc[1, "depth"])


def test_types_of_the_columns():
    found = dtypes(trial_table(some_records(), CONFIG))
    assert {name: found[name] for name in FLOATS} == dict.fromkeys(FLOATS, "float64")
    assert {found[name] for name in ("params", "macs", "train_params")} == {"Int64"}
    assert {found[name] for name in ("trial", "epochs")} == {"int64"}
    assert {found[name] for name in ("on_front", "remeasured")} == {"bool"}


@pytest.mark.parametrize(
    "which", [slice(0, 0), slice(4, 5), slice(3, 5)], ids=["none", "failed", "failed and infeasible"]
)
def test_types_do_not_depend_on_what_has_happened_so_far(which):
    table = trial_table(some_records()[which], CONFIG)
    assert len(table) == len(some_records()[which])
    assert dtypes(table) == dtypes(trial_table(some_records(), CONFIG))
    assert len(table[table["on_front"]]) == 0


def test_the_table_flags_the_front_of_the_objectives_and_constraints_configured():
    records = [record(0, 0.25, 1.0, params=300), record(1, 0.5, 2.0, params=100), record(2, 0.375, 3.0, params=200)]
    by_params = make_config({"objectives": ["error", "params"]})
    limited = make_config({"objectives": ["error", "params"], "constraints.params": 250})
    assert trial_table(records, CONFIG)["on_front"].tolist() == [True, False, False]
    assert trial_table(records, by_params)["on_front"].tolist() == [True, True, True]
    assert trial_table(records, limited)["on_front"].tolist() == [False, True, True]


def test_the_front_table_goes_by_the_last_objective_then_the_first():
    records = [
        record(0, 0.125, 4.0),
        record(1, 0.5, 1.0),
        record(2, 0.25, 2.0),
        record(3, 0.9, 9.0),
        record(4, 0.25, 2.0),
    ]
    front = front_table(trial_table(records, CONFIG), CONFIG.objectives)
    assert front["trial"].tolist() == [1, 2, 4, 0]
    assert front.index.tolist() == [0, 1, 2, 3]


# --- the picture


def drawn(figure):
    return {tuple(point) for layer in figure.axes[0].collections for point in np.asarray(layer.get_offsets())}


def test_the_picture_shows_every_completed_trial_and_the_front_as_stairs():
    figure = plot_front(trial_table(some_records(), CONFIG), TWO, "a title")
    (axes,) = figure.axes
    assert drawn(figure) == {(2.0, 0.25), (1.0, 0.5), (3.0, 0.5)}
    (stairs,) = axes.lines
    assert (list(stairs.get_xdata()), list(stairs.get_ydata())) == ([1.0, 2.0], [0.5, 0.25])
    assert "latency_ms" in axes.get_xlabel()
    assert "error" in axes.get_ylabel()
    assert axes.get_title() == "a title"


@pytest.mark.parametrize("objectives", [("error", "macs"), ("latency_ms", "params"), THREE])
def test_the_axes_are_the_first_two_objectives(objectives):
    axes = plot_front(trial_table(some_records(), CONFIG), objectives).axes[0]
    assert axes.get_xlabel().startswith(objectives[1])
    assert axes.get_ylabel().startswith(objectives[0])


def test_the_third_objective_is_told_by_colours():
    figure = plot_front(trial_table(some_records(), CONFIG), THREE)
    axes, scale = figure.axes
    assert scale.get_ylabel().startswith("params") and not axes.lines
    (coloured,) = [each for each in axes.collections if each.get_array() is not None]
    on_front = trial_table(some_records(), CONFIG).query("on_front").sort_values(["latency_ms", "error"])
    assert coloured.get_array().tolist() == on_front["params"].tolist()


def test_peak_memory_has_a_column_and_is_not_known_of_earlier_runs():
    old, new = record(0), record(1, latency_ms=2.0)
    new = dataclasses.replace(new, cost=dataclasses.replace(new.cost, peak_memory_mb=0.5))
    table = trial_table([old, new], CONFIG)
    assert table["peak_memory_mb"].isna().tolist() == [True, False]
    assert table["peak_memory_mb"][1] == 0.5


@pytest.mark.parametrize("records", [[], some_records()[3:], some_records()[:1]], ids=["none", "none completed", "one"])
def test_the_picture_of_little(records, tmp_path):
    plot_front(trial_table(records, CONFIG), TWO).savefig(tmp_path / "front.png")
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")


# --- a run's files


@pytest.fixture
def store(tmp_path):
    return RunStore.create(tmp_path / "runs", "x", CONFIG, SPACE, {})


def fill(store):
    for trial, (accuracy, latency) in enumerate([(0.75, 2.0), (0.5, 1.0), (0.25, 3.0)]):
        arch = architecture(8 * (trial + 1))
        choices = {"stem.out_channels": 8 * (trial + 1), "note": "a, b\nc"}
        store.append(Proposed(trial, arch.to_dict(), arch.arch_id, arch.deploy_id, choices))
        store.append(Priced(trial, 100, 1000, reading(latency)))
        store.append(Started(trial, 400))
        store.append(Ended(trial, TrialState.COMPLETED, "", accuracy, 2, 1.5))
    store.append(Remeasured(1, reading(2.5)))
    store.append(WasTested(0, 0.625))


def test_the_files_of_a_run_are_written_from_its_events(store):
    fill(store)
    write_results(store, store.records(), store.config())
    trials = pd.read_csv(store.path / "trials.csv")
    assert tuple(trials.columns[: len(COLUMNS)]) == tuple(COLUMNS)
    assert trials["trial"].tolist() == [0, 1, 2]
    assert trials["latency_ms"].tolist() == [2.0, 2.5, 3.0]
    assert trials["on_front"].tolist() == [True, False, False]
    assert trials["stem.out_channels"].tolist() == [8, 16, 24]
    front = pd.read_csv(store.path / "pareto.csv")
    assert (front["trial"].tolist(), front["test_accuracy"].tolist()) == ([0], [0.625])
    assert (store.path / "pareto.png").read_bytes().startswith(b"\x89PNG")


def test_writing_again_gives_the_same_tables(store):
    fill(store)
    write_results(store, store.records(), store.config())
    before = [(store.path / name).read_bytes() for name in ("trials.csv", "pareto.csv")]
    write_results(store, store.records(), store.config())
    assert [(store.path / name).read_bytes() for name in ("trials.csv", "pareto.csv")] == before


def test_the_files_of_an_empty_run_have_their_headers(store):
    write_results(store, store.records(), store.config())
    for name in ("trials.csv", "pareto.csv"):
        with (store.path / name).open(newline="") as file:
            assert list(csv.reader(file)) == [list(COLUMNS)]
    assert (store.path / "pareto.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_can_be_read_from_its_path(store):
    fill(store)
    run = Run(store.path)
    assert run.reason is None
    assert run.trials["trial"].tolist() == [0, 1, 2]
    assert run.front["trial"].tolist() == [0]
    store.write_end("budget")
    assert run.reason == "budget"


def test_an_empty_run_has_an_empty_front(store):
    assert len(Run(store.path).trials) == 0
    assert len(Run(store.path).front) == 0

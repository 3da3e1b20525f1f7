import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import analysis

EXAMPLE = Path(analysis.__file__).with_name("example")


def table(*rows, state="completed"):
    frame = pd.DataFrame(rows, columns=["error", "latency_ms", "macs", "params"])
    return frame.assign(state=state, trial=range(len(rows)), on_front=False)


def test_pareto_front_keeps_equal_points_and_drops_dominated_and_unfinished_ones():
    trials = table((0.1, 2, 5, 1), (0.1, 2, 5, 1), (0.2, 2, 1, 1), (0.3, 1, 1, 1), (0.3, 1.5, 1, 1))
    failed = table((0.0, 0.1, 0, 0), state="failed").assign(trial=9)
    front = analysis.pareto_front(pd.concat([trials, failed], ignore_index=True))
    assert front["trial"].tolist() == [3, 0, 1]


def test_pareto_front_of_other_objectives():
    trials = table((0.1, 1, 5, 1), (0.2, 9, 1, 1))
    assert len(analysis.pareto_front(trials)) == 1
    assert analysis.pareto_front(trials, ["error", "macs"])["trial"].tolist() == [1, 0]


def test_hypervolume_is_the_area_below_the_reference():
    trials = table((0.5, 1, 0, 0), (0.25, 2, 0, 0), (0.9, 3, 0, 0))
    assert analysis.hypervolume(trials, (1.0, 4.0)) == pytest.approx(0.5 * 3 + 0.25 * 2)
    assert analysis.hypervolume(trials, (0.1, 0.1)) == 0
    assert analysis.hypervolume(trials[:0], (1.0, 4.0)) == 0


def test_bad_questions_are_refused():
    with pytest.raises(ValueError, match="speed"):
        analysis.pareto_front(table((0.1, 1, 1, 1)), ["error", "speed"])
    with pytest.raises(ValueError, match="reference"):
        analysis.hypervolume(table((0.1, 1, 1, 1)), (1.0,))
    with pytest.raises(ValueError, match="not a run"):
        analysis.load_run("/nowhere")


def test_plot_shows_the_front_and_its_axes():
    trials = table((0.1, 2, 5, 1), (0.2, 1, 5, 1), (0.4, 100, 5, 1)).assign(on_front=[True, True, False])
    figure = analysis.plot_front(trials, ["error", "latency_ms"], "a run")
    (axes,) = figure.axes
    assert axes.get_title() == "a run"
    assert "ms" in axes.get_xlabel()
    assert "2 networks" in axes.get_legend().get_texts()[1].get_text()
    assert analysis.plot_front(trials[:0]).axes


def test_knee_is_that_of_the_front():
    trials = table((0.5, 1, 1, 1), (0.2, 1.5, 1, 1), (0.2, 9, 1, 1), (0.1, 4, 1, 1))
    assert analysis.knee(trials)["trial"].tolist() == [1]
    assert analysis.knee(trials.assign(macs=[9, 8, 7, 1]), ["error", "macs"])["trial"].tolist() == [3]
    assert analysis.knee(trials[:0]).empty
    assert analysis.knee(trials.assign(state="failed")).empty


def test_at_latency_is_the_most_accurate_that_is_as_fast():
    trials = table((0.3, 1, 0, 0), (0.1, 2, 0, 0), (0.1, 1.5, 0, 0), (0.0, 5, 0, 0))
    assert analysis.at_latency(trials, 2)["trial"].tolist() == [2]
    assert analysis.at_latency(trials, 1.0)["trial"].tolist() == [0]
    assert analysis.at_latency(trials, 99)["trial"].tolist() == [3]
    nothing = analysis.at_latency(trials, 0.5)
    assert nothing.empty and list(nothing.columns) == list(trials.columns)
    for ms in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="ms="):
            analysis.at_latency(trials, ms)


def test_at_latency_takes_no_trial_that_is_not_completed():
    trials = pd.concat([table((0.3, 1, 0, 0)), table((0.0, 1, 0, 0), state="stopped")], ignore_index=True)
    assert analysis.at_latency(trials, 2)["error"].tolist() == [0.3]


def test_a_figure_shows_itself_in_a_notebook():
    trials = table((0.1, 2, 5, 1), (0.2, 1, 5, 1))
    assert analysis.plot_front(trials)._repr_png_().startswith(b"\x89PNG")


def test_loading_is_quick_and_light():
    """What is slow to import (optuna, matplotlib, scipy.stats) is imported where it is used."""
    code = "import analysis, sys; print(sorted({'torch', 'ray', 'optuna', 'matplotlib', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- the example


def with_last_value_kept(source):
    """A cell whose last expression is assigned to `_`, as notebooks do."""
    tree = ast.parse(source)
    tree.body[-1] = ast.Assign([ast.Name("_", ast.Store())], tree.body[-1].value)
    return ast.fix_missing_locations(tree)


def test_the_example_notebook_runs_and_answers_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    notebook = json.loads(EXAMPLE.with_suffix(".ipynb").read_text(encoding="utf-8"))
    names: dict = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        exec(compile(with_last_value_kept("".join(cell["source"])), "cell", "exec"), names)
        shown = names["_"]
        (output,) = cell["outputs"]
        if "image/png" in output["data"]:
            assert shown._repr_png_().startswith(b"\x89PNG")
        else:  # not figure by figure: another version of scikit-learn grows another forest
            html = "".join(output["data"]["text/html"])
            assert len(shown) and html.count("<tr") - html.count("<thead") >= len(shown)
            assert all(f"<th>{column}</th>" in html for column in shown.columns)
    questions = [cell for cell in notebook["cells"] if "".join(cell["source"]).startswith("## ")]
    assert len(questions) == 5 and all("?" in "".join(cell["source"]) for cell in questions)

    # What its answers say.
    assert names["knee"]["trial"].tolist() == [20] and names["half"]["trial"].tolist() == [45]
    assert names["best"]["accuracy"] - names["knee"]["accuracy"][0] == pytest.approx(0.027, abs=5e-4)
    matters = names["matters"]
    assert matters["error"].idxmax() == "stage2.block" and matters["latency_ms"].idxmax() == "stage3.depth"
    assert matters.loc[["branches", "branch_count"], "latency_ms"].max() < 0.02
    assert names["had"]["stage2.out_channels"] == "64" and names["had"]["branch_count"] == "1"
    assert (names["gap"]["points"].min().round(1), names["gap"]["points"].max().round(1)) == (1.8, 6.6)
    steps = names["steps"].set_index("trained")
    assert steps["share_of_final"].idxmax() == 46 and steps.loc[46, "trial"] == 45
    assert steps.loc[[22, 35], "share_of_final"].round(2).tolist() == [0.95, 0.98]


def test_the_example_is_a_whole_run_that_names_no_machine():
    assert sum(file.stat().st_size for file in EXAMPLE.iterdir()) < 200_000
    trials = analysis.load_run(EXAMPLE)
    assert trials["on_front"].sum() == len(analysis.pareto_front(trials)) == 6
    written = pd.read_csv(EXAMPLE / "trials.csv")
    assert written["latency_ms"].tolist() == trials["latency_ms"].tolist()
    for file in [*EXAMPLE.iterdir(), EXAMPLE.with_suffix(".ipynb")]:
        assert not re.search(r"/(root|home|work|Users|tmp)\b", file.read_text(encoding="utf-8")), file

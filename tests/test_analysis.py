import pandas as pd
import pytest

import analysis


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

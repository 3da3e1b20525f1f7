import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.knee import knee_of, logarithmic

TWO = ("error", "latency_ms")


def front(*rows, names=TWO):
    return pd.DataFrame(rows, columns=list(names)).assign(trial=range(len(rows)))


def test_the_knee_is_the_point_farthest_below_the_line_between_the_ends():
    # Scaled: (1, 0), (0.5, 0.4), (0.2, 0.5), (0, 1); sums 1, 0.9, 0.7, 1.
    rows = front((0.5, 1.0), (0.3, 5.0), (0.18, 6.0), (0.1, 11.0))
    knee = knee_of(rows, TWO)
    assert knee["trial"].tolist() == [2]
    assert list(knee.columns) == list(rows.columns)


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(10, 99)), min_size=1, max_size=12, unique=True))
def test_of_two_objectives_it_is_the_farthest_by_the_distance_to_that_line(points):
    """Against the textbook's formula for the distance of a point to a line through two others."""
    best = [p for p in points if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)]
    rows = front(*[(error / 100, latency / 10) for error, latency in best])
    knee = knee_of(rows, TWO).iloc[0]
    xy = rows[["latency_ms", "error"]].to_numpy()
    if len(rows) < 3:
        assert knee["error"] == rows["error"].min()
        return
    unit = (xy - xy.min(0)) / np.ptp(xy, axis=0)
    # Ends at (0, 1) and (1, 0): positive below the line.
    (x0, y0), (x1, y1) = (0.0, 1.0), (1.0, 0.0)
    below = -((x1 - x0) * (unit[:, 1] - y0) - (y1 - y0) * (unit[:, 0] - x0)) / np.hypot(x1 - x0, y1 - y0)
    assert below[int(knee["trial"])] == pytest.approx(below.max(), abs=1e-9)


def test_a_cost_that_spans_more_than_twenty_fold_is_weighed_by_factors():
    rows = [(0.5, 1.0), (0.25, 2.0), (0.05, 20.0), (0.0, 100.0)]
    assert knee_of(front(*rows), TWO)["trial"].tolist() == [1]
    assert knee_of(front(*[(error, 100 + ms) for error, ms in rows]), TWO)["trial"].tolist() == [2]


def test_an_error_is_weighed_by_points_however_far_it_spans():
    rows = front((0.64, 1.0), (0.05, 1.5), (0.01, 2.0))
    assert knee_of(rows, TWO)["trial"].tolist() == [1]


def test_fronts_of_no_one_and_two_points():
    assert knee_of(front(), TWO).empty
    assert knee_of(front((0.1, 2.0)), TWO)["trial"].tolist() == [0]
    assert knee_of(front((0.3, 1.0), (0.1, 2.0)), TWO)["trial"].tolist() == [1]
    assert knee_of(front((0.1, 2.0), (0.1, 2.0)), TWO)["trial"].tolist() == [0]


def test_of_a_front_that_bulges_the_other_way_it_is_the_most_accurate_end():
    assert knee_of(front((0.5, 1.0), (0.45, 9.0), (0.1, 10.0)), TWO)["trial"].tolist() == [2]


def test_three_objectives():
    names = ("error", "latency_ms", "params")
    rows = front((0.0, 1.0, 1.0), (1.0, 0.5, 1.0), (1.0, 1.0, 0.5), (0.2, 0.6, 0.6), names=names)
    assert knee_of(rows, names)["trial"].tolist() == [3]


def test_an_unknown_objective_is_refused():
    with pytest.raises(ValueError, match="speed"):
        knee_of(front((0.1, 1.0)), ("error", "speed"))


def test_what_is_told_on_a_logarithmic_axis():
    assert logarithmic(np.array([1.0, 21.0]))
    assert not logarithmic(np.array([1.0, 20.0]))
    assert not logarithmic(np.array([0.0, 100.0]))
    assert not logarithmic(np.array([]))

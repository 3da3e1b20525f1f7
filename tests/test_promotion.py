"""Rungs: which trials go on, and which never do."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.results import non_dominated
from nas.tune.promotion import FEWEST_FINISHED, Ladder, rung_epochs

POINTS = st.lists(st.tuples(st.floats(0.01, 1), st.floats(0.1, 10)), min_size=1, max_size=30)


@pytest.mark.parametrize(
    ("epochs", "reduction", "rungs", "expected"),
    [(16, 4, 3, (1, 4, 16)), (16, 2, 2, (8, 16)), (1, 3, 3, (1,)), (5, 3, 4, (1, 2, 5)), (200, 4, 3, (12, 50, 200))],
)
def test_rungs_end_with_a_full_training(epochs, reduction, rungs, expected):
    assert rung_epochs(epochs, reduction, rungs) == expected


def climbed(points, reduction=3, rungs=(1, 3)):
    """A ladder whose first rung trials have reached in order, and who went on after each arrival."""
    ladder, promoted = Ladder(rungs, reduction), []
    for trial, (error, cost) in enumerate(points):
        ladder.reach(trial, rungs[0], error, (cost,))
        while (found := ladder.promoted(range(trial + 1))) is not None:
            promoted.append(found)
    return ladder, promoted


@given(POINTS)
def test_nobody_goes_on_twice_and_somebody_as_soon_as_there_are_enough(points):
    _, promoted = climbed(points)
    assert len(set(promoted)) == len(promoted)
    assert len(promoted) == len(points) // 3


@given(POINTS, st.integers(1, 60))
def test_where_the_budget_is_known_promotions_wait_for_the_last_trials_and_are_as_many(points, budget):
    ladder, promoted, after = Ladder((1, 3), 3, budget), [], []
    for trial, (error, cost) in enumerate(points):
        ladder.reach(trial, 1, error, (cost,))
        while (found := ladder.promoted(range(trial + 1))) is not None:
            promoted.append(found)
        after.append(len(promoted))
    assert len(set(promoted)) == len(promoted)
    assert after == [int((n + 1) / 3 * min(1, (n + 1) / budget)) for n in range(len(points))]


@given(POINTS)
def test_of_those_that_arrive_together_the_non_dominated_go_on_first(points):
    ladder = Ladder((1, 3), 3)
    for trial, (error, cost) in enumerate(points):
        ladder.reach(trial, 1, error, (cost,))
    promoted = []
    while (found := ladder.promoted(range(len(points)))) is not None:
        promoted.append(found)
    assert len(promoted) == len(points) // 3
    best = set(np.flatnonzero(non_dominated(np.array(points))).tolist())
    assert set(promoted) <= best or best <= set(promoted)


def test_among_equal_ranks_the_one_that_adds_most_goes_on_first():
    front = [(0.5, 1.0), (0.3, 2.0), (0.29, 2.1), (0.1, 4.0), (0.9, 9.0), (0.9, 9.0), (0.95, 9.5)]
    ladder = Ladder((1, 2), 2)
    for trial, (error, cost) in enumerate(front):
        ladder.reach(trial, 1, error, (cost,))
    promoted = [ladder.promoted(range(7)) for _ in range(3)]
    assert set(promoted) == {0, 1, 3}


def test_only_those_that_wait_are_promoted_from_the_highest_rung_on():
    ladder = Ladder((1, 2, 4), 2)
    for trial in range(4):
        ladder.reach(trial, 1, 0.1 * (trial + 1), (1.0,))
    assert ladder.promoted([1, 2, 3]) == 1
    ladder.reach(0, 2, 0.1, (1.0,))
    ladder.reach(1, 2, 0.2, (1.0,))
    assert (ladder.ahead_of(0), ladder.ahead_of(2)) == ((4,), (2, 4))
    assert ladder.promoted([0, 1, 2, 3]) == 0
    assert ladder.promoted([0, 1, 2, 3]) is None
    ladder.reach(0, 4, 0.05, (1.0,))
    assert ladder.ahead_of(0) == ()


def test_what_cannot_reach_the_front_any_more_does_not_go_on():
    ladder = Ladder((1, 3), 2)
    for trial in range(FEWEST_FINISHED):
        ladder.reach(trial, 1, 0.5, (1.0 + trial,))
        ladder.reach(trial, 3, 0.4, (1.0 + trial,))  # errors fall to .8 of what they were
    for trial in range(20, 30):
        ladder.reach(trial, 1, 0.9, (20.0,))
    hopeless, hopeful = 10, 11
    ladder.reach(hopeless, 1, 0.51, (9.0,))
    assert ladder.promoted([hopeless]) is None
    ladder.reach(hopeful, 1, 0.45, (9.0,))
    assert ladder.promoted([hopeless, hopeful]) == hopeful


def test_where_every_trial_trains_in_full_nobody_waits():
    ladder = Ladder((16,), 1)
    ladder.reach(0, 16, 0.1, (1.0,))
    assert ladder.ahead_of(0) == () and ladder.promoted([0]) is None

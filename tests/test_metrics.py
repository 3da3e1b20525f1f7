from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.command_line import make_config
from nas.results import front_of
from nas.trial import Ended, EpochEnded, Rung, Started, TrialState
from nas.tune.metrics import WINDOW_S, SearchMetrics, _Speed
from tests.searching import small_search
from tests.test_results import record

MACS = make_config({"space": "tiny", "objectives": ["error", "macs"]})


class Search:
    """A search whose trials end as they are told to, with what its metrics showed."""

    def __init__(self, config=MACS, before=(), show=None):
        self.shown, self.said = [], []
        self.state = SimpleNamespace(live=0, waiting=0, last=None, front=front_of(list(before), config.objectives, []))
        store = SimpleNamespace(records=lambda: list(before))
        self.names = config.objectives
        self.metrics = SearchMetrics(config, store, 100, show or self.shown.append, self.said.append)

    def end(self, ended):
        self.state.last = ended
        if ended.state is TrialState.COMPLETED:
            self.state.front = front_of([*self.state.front, ended], self.names, [])
        self.metrics.watch(Ended(ended.trial, ended.state), self.state)

    @property
    def now(self):
        self.metrics.__exit__(None, None, None)  # which shows what was not shown yet
        return self.shown[-1]


def test_what_earlier_sessions_have_judged_counts():
    search = Search(before=[record(0, error=0.2, macs=100), record(1, error=0.4, macs=100, waited_s=2.5)])
    search.state.live = 2
    search.end(record(2, state=TrialState.FAILED, waited_s=1.0))
    now = search.now
    assert now.trials == {
        "running": 2, "at_a_rung": 0, "completed": 2, "stopped": 0, "infeasible": 0, "failed": 1,
    }  # fmt: skip
    assert (now.best_accuracy_ratio, now.front_size, now.lane_waited_seconds) == (0.8, 1, 3.5)


def test_before_a_trial_has_completed_there_is_no_accuracy():
    search = Search()
    search.end(record(0, state=TrialState.INFEASIBLE))
    assert (search.now.best_accuracy_ratio, search.now.hypervolume_ratio, search.now.front_size) == (None, 0.0, 0)


def test_the_hypervolume_is_a_share_of_the_box():
    search = Search()
    search.end(record(0, error=0.25, macs=100))
    assert search.now.hypervolume_ratio == 0.0  # its cost is the highest there was
    search.end(record(1, error=0.5, macs=50))
    assert search.now.hypervolume_ratio == pytest.approx(0.5 * 0.5)


def test_of_a_cost_with_a_limit_that_is_the_reference():
    search = Search(make_config({"space": "tiny", "objectives": ["error", "macs"], "constraints.macs": 400}))
    search.end(record(0, error=0.25, macs=100))
    assert search.now.hypervolume_ratio == pytest.approx(0.75 * 0.75)


@given(st.lists(st.tuples(st.floats(0.01, 1), st.integers(1, 1000), st.integers(1, 1000)), min_size=1, max_size=12))
def test_the_hypervolume_never_falls_whatever_the_reference_does(points):
    search = Search(make_config({"space": "tiny", "objectives": ["error", "macs", "params"]}))
    volumes = [0.0]
    for trial, (error, macs, params) in enumerate(points):
        search.end(record(trial, error=error, macs=macs, params=params))
        volumes.append(search.now.hypervolume_ratio)
        assert -1e-9 <= volumes[-1] <= 1 and volumes[-1] >= volumes[-2] - 1e-9


def test_images_of_the_last_minute_are_counted():
    clock = iter([0.0, 10.0, 20.0, 30.0, 30.0, 50.0, 50.0, 30.0 + WINDOW_S + 1, 500.0])
    speed = _Speed(100, clock=lambda: next(clock))
    speed.watch(Started(0, 1))
    speed.watch(EpochEnded(0, 2, 1.0))  # at 10 s
    speed.watch(EpochEnded(0, 3, 1.0))
    speed.watch(Started(1, 1, epochs=4))  # goes on after four
    speed.watch(Rung(1, 6, 0.5, 1.0))  # at 30 s
    assert speed.images_per_second == pytest.approx(500 / 30)
    speed.watch(Started(0, 1))  # begins anew, after it was lost
    speed.watch(EpochEnded(0, 1, 1.0))  # at 50 s
    assert speed.images_per_second == pytest.approx(600 / 50)
    assert speed.images_per_second == pytest.approx(100 / WINDOW_S)
    assert speed.images_per_second == 0.0


def test_metrics_that_fail_are_left_and_said_once():
    def fail(figures):
        raise RuntimeError("no more\nof this")

    search = Search(show=fail)
    search.end(record(0))
    search.end(record(1))
    search.metrics.__exit__(None, None, None)
    assert search.said == ["live metrics are given up, the search goes on: no more"]


def test_metrics_are_shown_once_in_a_second_and_at_the_end():
    search = Search()
    for trial in range(50):
        search.end(record(trial))
    assert len(search.shown) <= 2
    assert search.now.trials["completed"] == 50


def test_nobody_is_told_without_a_dashboard(tmp_path, monkeypatch):
    monkeypatch.setattr("nas.tune.run.SearchMetrics", None)
    assert len(small_search(tmp_path, budget=1).trials) == 1

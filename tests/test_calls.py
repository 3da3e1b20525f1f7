"""Calls of several trials, without Ray: what is reported together, what is handed out, what a lost worker leaves."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import RayError
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

import nas
from nas.pipeline import Known
from nas.reading import Reading
from nas.trial import Ended, EpochEnded, Priced, Rung, Started, TrialState
from nas.tune.judging import Assignment
from nas.tune.searcher import LossCallback, StateScheduler, StateSearcher
from nas.tune.trainable import HELD_S, REPORT_EVERY_S, one_after_another, together

LAST = 4  # epochs of a full training


def priced(trial):
    return Priced(trial, 1, 1, Reading(1.0, 0.0, 1.0, 1.0))


def ended(trial):
    return Ended(trial, TrialState.COMPLETED, "", 0.5, LAST)


def results(*timed, is_last=lambda rung: rung.epochs == LAST):
    """The results of events that each take some seconds to come."""
    now = [0.0]

    def coming():
        for seconds, event in timed:
            now[0] += seconds
            yield event

    events, found = coming(), []
    while result := together(events, is_last, lambda: now[0]):
        found.append(result)
    return found


def test_short_trials_are_reported_together_until_a_fraction_of_a_second_has_passed():
    trials = [(0.04, event) for trial in range(8) for event in (priced(trial), ended(trial))]
    found = results(*trials)
    assert [each for result in found for each in result] == [event for _, event in trials]
    most = int(HELD_S / 0.04) + 1
    assert [len(result) for result in found] == [most] * (16 // most) + [16 % most] * bool(16 % most)


def test_nothing_waits_behind_a_training_or_a_decision():
    first, started, rung, full = priced(0), Started(0, 10), Rung(0, 2, 0.4, 1.0), Rung(0, LAST, 0.5, 1.0)
    found = results((0, first), (0, started), (0, rung), (0, started), (0, full), (0, ended(0)), (0, priced(1)))
    assert found == [[first, started], [rung], [started], [full, ended(0)], [priced(1)]]


def test_of_epochs_only_now_and_then_one_is_a_sign_of_life():
    epochs = [EpochEnded(0, number, 1.0) for number in range(1, 8)]
    found = results(*((0.4 * REPORT_EVERY_S, each) for each in epochs), (0, Rung(0, LAST, 0.5, 1.0)), (0, ended(0)))
    assert found == [[epochs[2]], [epochs[5]], [Rung(0, LAST, 0.5, 1.0)], [ended(0)]]


@dataclass
class FakeState:
    """A state with so many trials to hand out."""

    left: int
    handed: list[int] = field(default_factory=list)
    live: set[int] = field(default_factory=set)
    events: list[Any] = field(default_factory=list)
    back: list[int] = field(default_factory=list)
    time_is_up: bool = False

    @property
    def over(self):
        return None if self.left else "budget"

    def next_trial(self):
        if self.back:
            self.live.add(self.back[0])
            return Assignment(self.back.pop(0), {}, "id", Known(), (LAST,), alone=True)
        if not self.left:
            return None
        self.left -= 1
        self.handed.append(len(self.handed))
        self.live.add(self.handed[-1])
        return Assignment(self.handed[-1], {}, "id", Known(), (LAST,))

    def works_on(self, trial):
        return trial in self.live

    def record(self, *events):
        self.events += events
        self.live -= {each.trial for each in events if isinstance(each, Ended)}

    def hand_back(self, trials):
        self.back = sorted([*self.back, *(self.live & set(trials))])
        self.live -= set(trials)

    def fail(self, trial, reason):
        if trial in self.live:
            self.record(Ended(trial, TrialState.FAILED, reason))


class FakeCall(SimpleNamespace):
    """What is a trial to Ray."""


class FakeStore:
    """A run's folder that keeps what it receives."""

    def __init__(self):
        self.received = []

    def receive(self, files):
        self.received.append(files)


def numbers(config):
    return [each.trial for each in config["assignments"]]


def test_slots_are_calls_and_the_last_one_may_hold_fewer():
    searcher = StateSearcher(FakeState(12), lambda: 2, per_call=5)
    assert numbers(searcher.suggest("a")) == [0, 1, 2, 3, 4]
    assert numbers(searcher.suggest("b")) == [5, 6, 7, 8, 9]
    assert searcher.suggest("c") is None
    searcher.on_trial_complete("a")
    assert numbers(searcher.suggest("c")) == [10, 11]
    searcher.on_trial_complete("b", error=True)
    assert searcher.suggest("d") == Searcher.FINISHED


def told(state, call, *events, store=None, files=None):
    """What becomes of a call that reports events."""
    return StateScheduler(state, store or FakeStore()).on_trial_result(
        None, call, {"events": list(events), "files": files}
    )


def test_room_that_grows_is_used():
    room = [1]
    searcher = StateSearcher(FakeState(4), lambda: room[0], per_call=1)
    assert numbers(searcher.suggest("a")) == [0]
    assert searcher.suggest("b") is None
    room[0] = 3
    assert [numbers(searcher.suggest(name)) for name in "bc"] == [[1], [2]]
    room[0] = 0
    searcher.on_trial_complete("a")
    assert searcher.suggest("d") is None


def test_of_a_lost_call_each_trial_is_tried_by_itself_and_only_a_lone_one_fails():
    state = FakeState(4)
    searcher, losses = StateSearcher(state, lambda: 1, 3), LossCallback(state, retries=1)
    call = FakeCall(config=searcher.suggest("a"), error_file=None)
    assert told(state, call, priced(0), ended(0), priced(1)) == TrialScheduler.CONTINUE
    losses.on_trial_error(0, [], call)
    searcher.on_trial_complete("a", error=True)
    for name in "bc":  # once more, as `retries` says
        alone = searcher.suggest(name)
        assert numbers(alone) == [1] and not any(event.trial == 1 for event in state.events if isinstance(event, Ended))
        losses.on_trial_error(0, [], FakeCall(config=alone, error_file=None))
        searcher.on_trial_complete(name, error=True)
    assert (state.events[-1].trial, state.events[-1].state) == (1, TrialState.FAILED)
    assert state.events[-1].reason == "worker lost: Ray does not say why"
    assert numbers(searcher.suggest("d")) == [2]
    searcher.on_trial_complete("d")
    assert numbers(searcher.suggest("e")) == [3]


def test_a_node_that_is_lost_is_not_its_trials_fault(tmp_path):
    state = FakeState(1)
    searcher, losses = StateSearcher(state, lambda: 1, 1), LossCallback(state, retries=0)
    error = tmp_path / "error.txt"
    error.write_text("The actor died because its node has died.")
    for name in "abc":
        losses.on_trial_error(0, [], FakeCall(config=searcher.suggest(name), error_file=str(error)))
        searcher.on_trial_complete(name, error=True)
    assert not state.events and numbers(searcher.suggest("d")) == [0]


def test_files_are_written_before_the_events_that_need_them(monkeypatch):
    state, store = FakeState(2), FakeStore()
    store.receive = lambda files: store.received.append((files, list(state.events)))
    monkeypatch.setattr(ray, "get", lambda answer, timeout: answer)
    call = FakeCall(config=StateSearcher(state, lambda: 1, 2).suggest("a"))
    assert told(state, call, ended(0), store=store, files=(("weights/0.safetensors", b"w"),)) == TrialScheduler.CONTINUE
    assert store.received == [((("weights/0.safetensors", b"w"),), [])] and state.events == [ended(0)]


def test_a_trial_whose_files_are_lost_with_their_node_is_judged_again(monkeypatch):
    def lost(answer, timeout):
        raise RayError("the object is gone")

    state = FakeState(1)
    monkeypatch.setattr(ray, "get", lost)
    searcher = StateSearcher(state, lambda: 1, 1)
    call = FakeCall(config=searcher.suggest("a"))
    assert told(state, call, ended(0), files="somewhere") == TrialScheduler.STOP
    searcher.on_trial_complete("a")
    assert not state.events and numbers(searcher.suggest("b")) == [0]


def test_a_call_is_over_with_its_last_trial():
    state = FakeState(2)
    call = FakeCall(config=StateSearcher(state, lambda: 1, 2).suggest("a"))
    assert told(state, call, ended(0), ended(1)) == TrialScheduler.STOP


def test_trials_of_a_call_are_judged_in_order():
    assignments = [Assignment(trial, {}, "id", Known(), (LAST,)) for trial in (3, 1, 2)]
    begun = []
    judged = one_after_another(assignments, lambda each: (ended(each.trial) for _ in range(1)), begun.append)
    assert [event.trial for event in judged] == [3, 1, 2] == [each.trial for each in begun]


def test_calls_of_several_trials_are_refused_where_one_may_be_taken_off(tmp_path):
    with pytest.raises(ValueError, match=r"^trials\.per_call=2 is not allowed with scheduler=mo_asha; allowed: 1$"):
        nas.run_search(verbose=False, runs_dir=str(tmp_path), scheduler="mo_asha", **{"trials.per_call": 2})
    assert not list(tmp_path.iterdir())

import dataclasses
import json

import pytest

from nas.architecture import architecture_from_dict
from nas.trial import (
    EVENT_VERSION,
    EVENTS,
    Cost,
    Ended,
    EpochEnded,
    Priced,
    Proposed,
    Reading,
    Remeasured,
    Rung,
    Started,
    TrialRecord,
    TrialState,
    Unfused,
    event_from_dict,
    event_to_dict,
    records_of,
    unfinished,
)
from nas.trial import Tested as WasTested
from tests.helpers import reading

ARCHITECTURE = architecture_from_dict(
    {
        "schema": 1,
        "stem": [{"block": "conv", "out_channels": 8}],
        "stages": [],
        "head": [{"block": "classifier"}],
    }
)


def proposed(trial=0, **choices):
    return Proposed(trial, ARCHITECTURE.to_dict(), ARCHITECTURE.arch_id, ARCHITECTURE.deploy_id, choices)


def priced(trial=0, latency_ms=1.5):
    return Priced(trial, 1000, 20_000, reading(latency_ms), prepare_s=0.25, measure_s=0.5)


def completed(trial=0, accuracy=0.75):
    return Ended(trial, TrialState.COMPLETED, "", accuracy, epochs=3, train_s=2.5, waited_s=0.5)


ALL_EVENTS = [
    proposed(4, **{"stages.0.depth": 2, "stages.0.block": "basic", "width": 0.5, "se": True}),
    priced(4),
    Started(4, 5000),
    Rung(4, 3, 0.875, 0.25),
    completed(4),
    Priced(5, 1, 2, Reading(1.5, 0.0, 1.25, 1.75, "predicted")),
    Priced(6, 1, 2, reading(1.5, doubt="it drifts", reference_ms=0.25, merges=(("a", "b"), ("c", "d", "e")))),
    Ended(5, TrialState.FAILED, "ValueError: “groups” ≠ 3"),
    Ended(6, TrialState.INFEASIBLE, "latency_ms 3 is above constraints.latency_ms=2"),
    Ended(7, TrialState.STOPPED, "", 0.5, 1, 0.5),
    Remeasured(4, reading(1.25)),
    Unfused(4, reading(2.5)),
    WasTested(4, 0.9375),
]


# --- events


def test_every_stored_kind_of_event_is_tried_here():
    assert {event.kind for event in ALL_EVENTS} == set(EVENTS)
    assert set(EVENTS) == {"proposed", "priced", "started", "rung", "ended", "remeasured", "unfused", "tested"}
    assert EpochEnded.kind not in EVENTS


@pytest.mark.parametrize("event", ALL_EVENTS, ids=lambda event: event.kind)
def test_events_survive_json(event):
    again = event_from_dict(json.loads(json.dumps(event_to_dict(event))))
    assert again == event
    assert type(again) is type(event)
    if isinstance(event, Ended):
        assert again.state is event.state


def test_events_are_written_with_their_version_and_kind():
    words = event_to_dict(WasTested(4, 0.5))
    assert words == {"v": EVENT_VERSION, "event": "tested", "trial": 4, "test_accuracy": 0.5}
    assert json.loads(json.dumps(event_to_dict(completed())))["state"] == "completed"


def test_keys_that_are_not_known_are_left_out():
    assert event_from_dict({**event_to_dict(WasTested(4, 0.5)), "time": 1.0, "host": "x"}) == WasTested(4, 0.5)


def test_values_with_a_default_may_be_missing():
    assert event_from_dict({"v": EVENT_VERSION, "event": "ended", "trial": 3, "state": "failed"}) == Ended(
        3, TrialState.FAILED
    )


@pytest.mark.parametrize("version", [0, 1, 3, "2", None, 1.5])
def test_another_version_is_refused(version):
    with pytest.raises(ValueError, match=f"version {EVENT_VERSION}"):
        event_from_dict({**event_to_dict(WasTested(4, 0.5)), "v": version})


@pytest.mark.parametrize(
    "words",
    [
        None,
        5,
        [],
        "tested",
        {},
        {"v": EVENT_VERSION},
        {"v": EVENT_VERSION, "event": "sneezed", "trial": 1},
        {"v": EVENT_VERSION, "event": "epoch", "trial": 1, "epochs": 1, "loss": 0.5},
        {"v": EVENT_VERSION, "event": ["tested"], "trial": 1},
        {"v": EVENT_VERSION, "event": {}, "trial": 1},
        {"v": EVENT_VERSION, "event": "tested", "trial": 1},
        {"v": EVENT_VERSION, "event": "tested", "test_accuracy": 0.5},
        {"v": EVENT_VERSION, "event": "ended", "trial": 1},
        {"v": EVENT_VERSION, "event": "priced", "trial": 1, "params": 1, "macs": 1, "latency": 1.5},
        {"v": EVENT_VERSION, "event": "priced", "trial": 1, "params": 1, "macs": 1, "latency": {"median_ms": 1.5}},
        {"v": EVENT_VERSION, "event": "priced", "trial": 1, "params": 1, "macs": 1, "latency": None},
        {"v": EVENT_VERSION, "event": "ended", "trial": 1, "state": "tired"},
        {"v": EVENT_VERSION, "event": "ended", "trial": 1, "state": []},
        {"v": EVENT_VERSION, "event": "ended", "trial": 1, "state": None},
    ],
    ids=str,
)
def test_what_is_not_an_event_is_refused(words):
    with pytest.raises(ValueError, match="event"):
        event_from_dict(words)


# --- records


def test_a_completed_trial_adds_up():
    events = [proposed(4, depth=2), priced(4), Started(4, 5000), Rung(4, 3, 0.75, 0.25), completed(4)]
    assert records_of(events) == [
        TrialRecord(
            trial=4,
            architecture=ARCHITECTURE,
            choices={"depth": 2},
            state=TrialState.COMPLETED,
            reason="",
            accuracy=0.75,
            cost=Cost(1000, 20_000, reading(1.5)),
            remeasured=False,
            epochs=3,
            train_s=2.5,
            waited_s=0.5,
            train_params=5000,
            test_accuracy=None,
        )
    ]


def test_the_latest_latency_wins_and_nothing_else_changes():
    before = [proposed(), priced(latency_ms=1.5), completed()]
    after = [*before, Remeasured(0, reading(1.25, 0.5)), WasTested(0, 0.625)]
    (first,), (last,) = records_of(before), records_of(after)
    assert (first.cost, first.remeasured, first.test_accuracy) == (Cost(1000, 20_000, reading(1.5)), False, None)
    assert (last.cost, last.remeasured, last.test_accuracy) == (Cost(1000, 20_000, reading(1.25, 0.5)), True, 0.625)
    assert (last.accuracy, last.epochs, last.train_s) == (first.accuracy, first.epochs, first.train_s)


def test_a_train_forms_latency_leaves_the_costs_of_what_ships_as_they_are():
    before = [proposed(), priced(latency_ms=1.5), completed()]
    (record,) = records_of([*before, Unfused(0, reading(4.5))])
    assert (record.unfused, record.cost) == (reading(4.5), records_of(before)[0].cost)
    assert records_of(before)[0].unfused is None


def test_of_two_remeasurements_the_later_counts():
    events = [proposed(), priced(), completed(), Remeasured(0, reading(1.25, 0.5)), Remeasured(0, reading(1.0, 0.25))]
    assert records_of(events)[0].cost == Cost(1000, 20_000, reading(1.0, 0.25))


def test_unfinished_trials_have_no_record():
    events = [proposed(0), priced(0), proposed(1), priced(1), completed(1), proposed(2), Started(0, 5000)]
    assert [record.trial for record in records_of(events)] == [1]


def test_an_end_without_a_proposal_makes_no_record():
    assert records_of([priced(0), completed(0)]) == []


def test_records_are_in_the_order_of_their_trials_however_their_events_are_mixed():
    events = [proposed(2), proposed(0), proposed(10), priced(10), completed(10, 0.125), priced(0), completed(0, 0.5)]
    events += [priced(2), completed(2, 0.25)]
    assert [(record.trial, record.accuracy) for record in records_of(events)] == [(0, 0.5), (2, 0.25), (10, 0.125)]


def test_a_trial_that_failed_before_it_was_priced_has_no_cost():
    (record,) = records_of([proposed(), Ended(0, TrialState.FAILED, "MemoryError: ")])
    assert (record.state, record.reason, record.cost, record.accuracy) == (
        TrialState.FAILED,
        "MemoryError: ",
        None,
        None,
    )
    assert record.costs == {}
    assert record.error is None


def test_an_infeasible_trial_keeps_its_cost():
    (record,) = records_of([proposed(), priced(latency_ms=9), Ended(0, TrialState.INFEASIBLE, "too slow")])
    assert record.costs == {
        "params": 1000,
        "macs": 20_000,
        "latency_ms": 9,
        "latency_iqr_ms": 0.125,
        "latency_low_ms": 9,
        "latency_high_ms": 9,
    }
    assert (record.epochs, record.train_s, record.train_params) == (0, 0.0, None)


def test_records_can_be_rebuilt_from_json():
    events = [*ALL_EVENTS, proposed(5), proposed(6), proposed(7), priced(7)]
    again = [event_from_dict(json.loads(json.dumps(event_to_dict(event)))) for event in events]
    assert records_of(again) == records_of(events)
    assert [record.trial for record in records_of(events)] == [4, 5, 6, 7]


def test_what_earlier_versions_did_not_count_is_not_known():
    words = event_to_dict(priced())
    del words["peak_memory_mb"]
    (record,) = records_of([proposed(), event_from_dict(words), completed()])
    assert record.cost == Cost(1000, 20_000, reading(1.5)) and record.cost.peak_memory_mb is None
    assert "peak_memory_mb" not in record.costs
    assert record.values(["error", "macs"]) is not None


def test_peak_memory_is_a_cost():
    cost = dataclasses.replace(priced(), peak_memory_mb=0.5)
    (record,) = records_of([proposed(), cost, completed(accuracy=0.75), Remeasured(0, reading(2.5))])
    assert record.values(["peak_memory_mb", "latency_ms", "error"]) == (0.5, 2.5, 0.25)
    assert event_from_dict(event_to_dict(cost)) == cost


def test_values_are_in_the_order_that_was_asked_for():
    (record,) = records_of([proposed(), priced(), completed(accuracy=0.75)])
    assert record.error == 0.25
    assert record.values(["error", "latency_ms"]) == (0.25, 1.5)
    assert record.values(["macs", "params", "error"]) == (20_000.0, 1000.0, 0.25)


@pytest.mark.parametrize("state", [TrialState.STOPPED, TrialState.FAILED, TrialState.INFEASIBLE])
def test_only_completed_trials_have_values(state):
    (record,) = records_of([proposed(), priced(), Ended(0, state, "", 0.75, 1)])
    assert record.values(["error", "latency_ms"]) is None


def test_every_state_but_infeasible_counts_as_trained():
    assert [state.value for state in TrialState if state.trained] == ["completed", "stopped", "failed"]


@pytest.mark.parametrize(
    "changed",
    [{"accuracy": 1.5}, {"accuracy": -0.1}, {"accuracy": None}, {"cost": None}, {"trial": -1}],
    ids=str,
)
def test_a_record_that_cannot_be_is_refused(changed):
    (record,) = records_of([proposed(), priced(), completed()])
    with pytest.raises(ValueError, match=next(iter(changed))):
        dataclasses.replace(record, **changed)


# --- unfinished


def test_unfinished_gives_the_proposals_in_flight():
    first, second, third = proposed(0, depth=1), proposed(1, depth=2), proposed(2, depth=3)
    events = [first, priced(0), second, priced(1), completed(1), third, Started(0, 5000)]
    assert unfinished(events) == [first, third]
    assert unfinished([*events, Ended(0, TrialState.FAILED, "x"), completed(2)]) == []
    assert unfinished([]) == []


def test_an_unfinished_trial_that_is_proposed_again_is_there_once():
    first, again = proposed(3, depth=1), proposed(3, depth=2)
    assert unfinished([first, priced(3), again]) == [again]

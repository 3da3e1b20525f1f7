"""What happens to a trial, as events, and the TrialRecord that its events add up to.

Events are the truth and are only ever appended; records are derived from them by `records_of`.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from nas.architecture import Architecture, architecture_from_dict
from nas.block_fields import Value
from nas.bounded import one_line, shown
from nas.reading import Cost, Reading, count_of, is_number, number_of, reading_from_dict, word_of

EVENT_VERSION = 2
LAST_TRIAL = 10**9  # the next one's number has to be one as well


class TrialState(enum.StrEnum):
    """How a trial ended."""

    COMPLETED = "completed"  # trained in full
    STOPPED = "stopped"  # trained in part: its accuracy is a lower-fidelity one
    INFEASIBLE = "infeasible"  # broke a constraint, never trained
    FAILED = "failed"  # an error, NaN or time-out; the reason says which

    @property
    def trained(self) -> bool:
        """Whether the trial counts towards the budget."""
        return self is not TrialState.INFEASIBLE


@dataclass(frozen=True)
class Event:
    """Something that happened to a trial."""

    kind: ClassVar[str]
    trial: int


@dataclass(frozen=True)
class Proposed(Event):
    """A sampler proposed an architecture; `choices` are its space's, `why` is for people."""

    kind: ClassVar[str] = "proposed"
    architecture: dict[str, Any]
    arch_id: str
    deploy_id: str
    choices: dict[str, Value]
    why: str = ""


@dataclass(frozen=True)
class Priced(Event):
    """The cost of the deploy form is known, before any training.

    `prepare_s` are the seconds that exporting and loading it for its runtime took, `measure_s` those for which the
    device was kept quiet. `peak_memory_mb` is None in runs of versions that did not count it.
    """

    kind: ClassVar[str] = "priced"
    params: int
    macs: int
    latency: Reading
    prepare_s: float = 0.0
    measure_s: float = 0.0
    peak_memory_mb: float | None = None

    @property
    def cost(self) -> Cost:
        """The cost as it was known then."""
        return Cost(self.params, self.macs, self.latency, self.peak_memory_mb)


@dataclass(frozen=True)
class Started(Event):
    """Training begins, or goes on after so many `epochs` of an earlier process; size and work of the train form."""

    kind: ClassVar[str] = "started"
    train_params: int
    epochs: int = 0
    train_macs: int = 0


@dataclass(frozen=True)
class EpochEnded(Event):
    """An epoch of training is over; for live views and time limits, never stored."""

    kind: ClassVar[str] = "epoch"
    epochs: int
    loss: float


@dataclass(frozen=True)
class Rung(Event):
    """The fused network of a training of `epochs`, which ended as a full one does, was evaluated."""

    kind: ClassVar[str] = "rung"
    epochs: int
    accuracy: float
    loss: float
    train_s: float = 0.0
    waited_s: float = 0.0


@dataclass(frozen=True)
class Ended(Event):
    """The trial is over; every trial has exactly one of these. `waited_s` of its time went to others' measurements."""

    kind: ClassVar[str] = "ended"
    state: TrialState
    reason: str = ""
    accuracy: float | None = None
    epochs: int = 0
    train_s: float = 0.0
    waited_s: float = 0.0


@dataclass(frozen=True)
class Remeasured(Event):
    """The latency of a network on the front was measured once more, on the idle machine."""

    kind: ClassVar[str] = "remeasured"
    latency: Reading


@dataclass(frozen=True)
class Unfused(Event):
    """The latency of the train form of a network on the front was measured: what fusing it has won."""

    kind: ClassVar[str] = "unfused"
    latency: Reading


@dataclass(frozen=True)
class Tested(Event):
    """The final network was evaluated on test data, once."""

    kind: ClassVar[str] = "tested"
    test_accuracy: float


# The events that a run stores.
EVENTS: dict[str, type[Event]] = {
    event.kind: event for event in (Proposed, Priced, Started, Rung, Ended, Remeasured, Unfused, Tested)
}


def event_to_dict(event: Event) -> dict[str, Any]:
    """JSON-ready words of an event."""
    return {"v": EVENT_VERSION, "event": event.kind, **dataclasses.asdict(event)}


def event_from_dict(words: Any) -> Event:
    """The event that `event_to_dict` wrote down; keys that it does not know (a time stamp) are left out.

    Raises:
        ValueError: another version, an unknown event, missing values, or values of other types.
    """
    name = words.get("event") if isinstance(words, dict) and words.get("v") == EVENT_VERSION else None
    if not isinstance(name, str) or name not in EVENTS:
        raise ValueError(f"not an event of version {EVENT_VERSION}: {shown(words)}")
    kind, values = EVENTS[name], {}
    try:
        for field, read in _READERS[name]:
            if field in words:
                values[field] = read(field, words[field])
        event = kind(**values)
        if not 0 <= event.trial <= LAST_TRIAL:
            raise ValueError(f"trial {event.trial} is not allowed; allowed: 0 to {LAST_TRIAL}")
        accuracy = values.get("accuracy")
        if accuracy is not None and not 0 <= accuracy <= 1:
            raise ValueError(f"accuracy: {accuracy} is not allowed; allowed: 0 to 1")
        return event
    except (TypeError, ValueError) as error:  # TypeError: a value is missing
        raise ValueError(f"bad {kind.kind} event: {one_line(str(error), 500)}") from None


def _choices(field: str, raw: Any) -> dict[str, Value]:
    fine = type(raw) is dict and all(
        type(name) is str and (type(value) in (bool, str) or is_number(value)) for name, value in raw.items()
    )
    if not fine:
        raise ValueError(f"{field}: {shown(raw)} is not allowed; allowed: names with numbers, words, true or false")
    return raw


def _state(field: str, raw: Any) -> str:
    if raw not in list(TrialState):
        raise ValueError(f"{field}: {shown(raw)} is not allowed; allowed: {', '.join(TrialState)}")
    return raw


def _mapping(field: str, raw: Any) -> dict[str, Any]:
    if type(raw) is not dict:
        raise ValueError(f"{field}: {shown(raw)} is not allowed; allowed: a mapping")
    return raw


# What reads a field of an event, by its type: a record of another person may hold anything.
_READER: dict[str, Callable[[str, Any], Any]] = {
    "int": count_of,
    "float": number_of,
    "float | None": lambda field, raw: None if raw is None else number_of(field, raw),
    "str": word_of,
    "TrialState": lambda field, raw: TrialState(_state(field, raw)),
    "Reading": lambda _, raw: reading_from_dict(raw),
    "dict[str, Any]": _mapping,
    "dict[str, Value]": _choices,
}
_READERS = {
    name: [(field.name, _READER[str(field.type)]) for field in dataclasses.fields(kind)]
    for name, kind in EVENTS.items()
}


@dataclass(frozen=True)
class TrialRecord:
    """All that is known of one trial that has ended.

    Attributes:
        trial: its number in the run.
        architecture: what was judged.
        choices: the space's choices that made it.
        state: how it ended.
        reason: why, where it did not complete.
        accuracy: of the fused network on validation data, in [0, 1].
        cost: of the deploy form, as last measured; None if it failed before it was priced.
        remeasured: whether the latency was measured again at the end of the run.
        epochs: epochs of the training that its accuracy is of.
        train_s: seconds spent training, for all its rungs.
        waited_s: seconds that it waited for others' measurements.
        rungs: epochs and accuracy of the shorter trainings before.
        train_params: parameters of the train form.
        train_macs: its multiply-adds for an image that goes through it: what a training is paid in.
        test_accuracy: of the fused network on test data; only for networks that were on the front when their
            run ended (a resumed run may have found better ones since).
        unfused: latency of the train form; only where `test_accuracy` may be, in runs that weigh latency.
    """

    trial: int
    architecture: Architecture
    choices: dict[str, Value]
    state: TrialState
    reason: str = ""
    accuracy: float | None = None
    cost: Cost | None = None
    remeasured: bool = False
    epochs: int = 0
    train_s: float = 0.0
    waited_s: float = 0.0
    rungs: tuple[tuple[int, float], ...] = ()
    train_params: int | None = None
    train_macs: int | None = None
    test_accuracy: float | None = None
    unfused: Reading | None = None

    def __post_init__(self) -> None:
        if self.trial < 0:
            raise ValueError(f"trial {self.trial} is not allowed; allowed: 0 and more")
        for accuracy in (self.accuracy, self.test_accuracy):
            if accuracy is not None and not 0 <= accuracy <= 1:
                raise ValueError(f"trial {self.trial}: accuracy {accuracy} is not allowed; allowed: 0 to 1")
        if self.state is TrialState.COMPLETED and (self.accuracy is None or self.cost is None):
            raise ValueError(f"trial {self.trial} is completed, but has no accuracy or no cost")

    @property
    def error(self) -> float | None:
        """1 - accuracy."""
        return None if self.accuracy is None else 1 - self.accuracy

    @property
    def costs(self) -> dict[str, float]:
        """The cost by objective name; empty where there is none."""
        return {} if self.cost is None else self.cost.by_name()

    def values(self, names: Iterable[str]) -> tuple[float, ...] | None:
        """Objective values of a completed trial, in the order of `names`; None for any other.

        Raises:
            ValueError: it has no such value.
        """
        if self.state is not TrialState.COMPLETED or self.error is None:
            return None
        known = {"error": self.error, **self.costs}
        names = list(names)
        if lacking := [name for name in names if name not in known]:
            raise ValueError(f"trial {self.trial} is completed, but has no {', '.join(lacking)}")
        return tuple(float(known[name]) for name in names)


def records_of(events: Iterable[Event]) -> list[TrialRecord]:
    """The records that events add up to, by trial number; trials without an end are left out."""
    by_trial: dict[int, list[Event]] = {}
    for event in events:
        by_trial.setdefault(event.trial, []).append(event)
    records = (_record(by_trial[trial]) for trial in sorted(by_trial))
    return [record for record in records if record is not None]


def unfinished(events: Iterable[Event]) -> list[Proposed]:
    """Proposals whose trial has not ended: those in flight when a run was interrupted."""
    proposals: dict[int, Proposed] = {}
    for event in events:
        if isinstance(event, Proposed):
            proposals[event.trial] = event
        elif isinstance(event, Ended):
            proposals.pop(event.trial, None)
    return list(proposals.values())


def _record(events: list[Event]) -> TrialRecord | None:
    last: dict[str, Event] = {event.kind: event for event in events}
    proposed, ended = last.get("proposed"), last.get("ended")
    if not isinstance(proposed, Proposed) or not isinstance(ended, Ended):
        return None
    priced, started = last.get("priced"), last.get("started")
    before = rungs_before(events, ended)
    record = TrialRecord(
        trial=proposed.trial,
        architecture=architecture_from_dict(proposed.architecture),
        choices=proposed.choices,
        state=ended.state,
        reason=ended.reason,
        accuracy=ended.accuracy,
        cost=priced.cost if isinstance(priced, Priced) else None,
        epochs=ended.epochs,
        train_s=ended.train_s + sum(each.train_s for each in before),
        waited_s=ended.waited_s + sum(each.waited_s for each in before),
        rungs=tuple((each.epochs, each.accuracy) for each in before),
        train_params=started.train_params if isinstance(started, Started) else None,
        train_macs=(started.train_macs or None) if isinstance(started, Started) else None,
    )
    for kind in (Remeasured.kind, Unfused.kind, Tested.kind):
        if kind in last:
            record = with_event(record, last[kind])
    return record


def with_event(record: TrialRecord, event: Event) -> TrialRecord:
    """The record of a trial to which this happened after it had ended."""
    if isinstance(event, Remeasured):
        cost = record.cost and dataclasses.replace(record.cost, latency=event.latency)
        return dataclasses.replace(record, cost=cost, remeasured=True)
    if isinstance(event, Unfused):
        return dataclasses.replace(record, unfused=event.latency)
    assert isinstance(event, Tested)
    return dataclasses.replace(record, test_accuracy=event.test_accuracy)


def rungs_before(events: Iterable[Event], ended: Ended | None) -> list[Rung]:
    """The rungs of a trial, without the one that it ended with: the last of each number of epochs."""
    rungs = {event.epochs: event for event in events if isinstance(event, Rung)}
    if ended is not None and ended.accuracy is not None:
        rungs.pop(ended.epochs, None)
    return [rungs[epochs] for epochs in sorted(rungs)]

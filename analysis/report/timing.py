"""Where a run's time went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nas.trial import Ended, Event, Priced, Proposed, Rung, TrialRecord, TrialState


@dataclass(frozen=True)
class Timing:
    """Seconds of a run; None where events carry no time of day.

    Attributes:
        search_s: from the first event until the last trial had ended, by the clock, pauses included.
        after_s: from then until the last event: what the front took that was measured again and tested.
        trials_s: of all trials that ended, from proposal to end, added up: several run at a time.
        training_s: of these, spent training, its evaluations included.
        waiting_s: waited while others were measured.
        measuring_s: for which the device was kept quiet.
        preparing_s: in which networks were exported and loaded for their runtime.
        resting_s: that trials spent between rungs, until it was decided whether they go on.
    """

    search_s: float | None
    after_s: float | None
    trials_s: float | None
    training_s: float
    waiting_s: float
    measuring_s: float
    preparing_s: float
    resting_s: float

    @property
    def overhead_s(self) -> float | None:
        """What is left of `trials_s`."""
        known = self.training_s + self.waiting_s + self.measuring_s + self.preparing_s + self.resting_s
        return None if self.trials_s is None else max(0.0, self.trials_s - known)


def timing_of(timed: Sequence[tuple[Event, float | None]], records: Sequence[TrialRecord]) -> Timing:
    """Where time went, by a run's events with their times of day, and its records."""
    ended = {record.trial for record in records}
    priced = [event for event, _ in timed if isinstance(event, Priced) and event.trial in ended]
    search_s, after_s, trials_s = _clocked(timed, ended)
    return Timing(
        search_s,
        after_s,
        trials_s,
        sum(record.train_s for record in records),
        sum(record.waited_s for record in records),
        sum(event.measure_s for event in priced),
        sum(event.prepare_s for event in priced),
        sum(_rests(timed, ended)),
    )


def _rests(timed: Sequence[tuple[Event, float | None]], ended: set[int]) -> list[float]:
    """Seconds between each rung but a trial's last and what happened next to the trial."""
    rests: list[float] = []
    at_rung: dict[int, float] = {}
    for event, time in timed:
        if time is not None and event.trial in ended:
            began = at_rung.pop(event.trial, None)
            if began is not None and not (isinstance(event, Ended) and event.state is TrialState.COMPLETED):
                rests.append(time - began)
            if isinstance(event, Rung):
                at_rung[event.trial] = time
    return rests


def _clocked(
    timed: Sequence[tuple[Event, float | None]], ended: set[int]
) -> tuple[float | None, float | None, float | None]:
    """`search_s`, `after_s` and `trials_s`."""
    known = [(event, time) for event, time in timed if time is not None]
    begun: dict[int, float] = {}
    for event, time in known:
        if isinstance(event, Proposed):
            begun.setdefault(event.trial, time)
    ends = {event.trial: time for event, time in known if isinstance(event, Ended)}
    if not ends or len(known) < len(timed):
        return None, None, None
    last = max(ends.values())
    spans = [ends[trial] - begun[trial] for trial in ended]
    return last - known[0][1], max(time for _, time in known) - last, sum(spans)

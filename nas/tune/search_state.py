"""The state of a search, and the one place where its events are written down. Knows no Ray."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nas.architecture import Architecture
from nas.config import SearchConfig
from nas.latency.memory import LatencyMemory
from nas.pipeline import Known
from nas.reading import Reading
from nas.store import RunStore
from nas.training.checkpoint import Checkpoint
from nas.trial import Ended, EpochEnded, Event, Priced, TrialRecord, TrialState, records_of, unfinished
from nas.tune.forecast import Forecast
from nas.tune.study import Study, Suggestion, as_proposal

INFEASIBLE_PER_TRAINED = 20  # infeasible trials allowed for each trial of the budget


@dataclass(frozen=True)
class Assignment:
    """A trial to run: what a worker needs to know of it."""

    trial: int
    architecture: dict[str, Any]
    arch_id: str
    known: Known


class SearchState:
    """Hands out trials and takes in their events, for whichever executor runs them.

    Attributes:
        records: of the trials that have ended.
        over: why no trial is handed out any more: budget, exhausted, time_budget, infeasible or interrupted;
            None while the search goes on.
    """

    def __init__(
        self,
        config: SearchConfig,
        store: RunStore,
        study: Study,
        memory: LatencyMemory,
        time_budget_s: float | None,
        watch: Callable[[Event, SearchState], None],
        forecast: Forecast | None = None,
    ) -> None:
        self._config, self._store, self._study = config, store, study
        self._memory, self._watch, self._forecast = memory, watch, forecast
        self._ends_at = None if time_budget_s is None else time.monotonic() + time_budget_s
        self.over: str | None = None
        events = store.events()
        self.records: list[TrialRecord] = records_of(events)
        self._to_repeat = unfinished(events)
        self._next_trial = 1 + max((event.trial for event in events), default=-1)
        self._live: dict[int, tuple[Suggestion, list[Event]]] = {}
        study.restore(self.records)
        for record in self.records:
            if record.cost is not None:
                self._take_in(record.architecture, record.cost.latency)
        study.open_journal(store.path / "study.log", store.name, self.records)
        self._seen = {record.architecture.arch_id for record in self.records}
        self._seen |= {proposal.arch_id for proposal in self._to_repeat}

    @property
    def trained(self) -> int:
        """Trials that count towards the budget."""
        return sum(record.state.trained for record in self.records)

    @property
    def live(self) -> int:
        """Trials that were handed out and have not ended."""
        return len(self._live)

    @property
    def seconds_left(self) -> float | None:
        """Seconds of the time budget that are left; None without one."""
        return None if self._ends_at is None else max(0.0, self._ends_at - time.monotonic())

    @property
    def time_is_up(self) -> bool:
        """Whether the time budget is spent."""
        return self.seconds_left == 0.0

    def next_trial(self) -> Assignment | None:
        """The next trial to run; None if there is none now (`live` trials may decide) or at all (`over`)."""
        if self.over:
            return None
        if self.time_is_up:
            self.over = "time_budget"
        elif self.trained + self.live >= self._config.budget:
            self.over = "budget" if not self.live else None
        elif len(self.records) - self.trained >= INFEASIBLE_PER_TRAINED * self._config.budget:
            self.over = "infeasible"
        else:
            return self._propose()
        return None

    def record(self, event: Event) -> None:
        """Writes an event down and draws the conclusions."""
        if isinstance(event, EpochEnded):
            self._watch(event, self)
            return
        self._store.append(event)
        suggestion, events = self._live[event.trial]
        events.append(event)
        if isinstance(event, Priced):
            self._take_in(suggestion.architecture, event.latency)
        if isinstance(event, Ended):
            (record,) = records_of(events)
            del self._live[event.trial]
            Checkpoint(self._store.checkpoint_file(event.trial)).discard()
            self.records.append(record)
            self._study.tell(suggestion, record)
        self._watch(event, self)

    def fail(self, trial: int, reason: str) -> None:
        """Ends a trial whose worker was lost, unless it has ended."""
        if trial in self._live:
            self.record(Ended(trial, TrialState.FAILED, reason))

    def _propose(self) -> Assignment | None:
        repeated = self._to_repeat.pop(0) if self._to_repeat else None
        suggestion = self._study.suggest_again(repeated.choices) if repeated else self._study.suggest(self._seen)
        if suggestion is None:
            self.over = "exhausted" if not self.live else None
            return None
        proposal = repeated or as_proposal(suggestion, self._next_trial)
        self._next_trial += 0 if repeated else 1
        self._seen.add(proposal.arch_id)
        self._live[proposal.trial] = (suggestion, [proposal])
        if not repeated:
            self._store.append(proposal)
        self._watch(proposal, self)
        return Assignment(proposal.trial, proposal.architecture, proposal.arch_id, self._known(suggestion.architecture))

    def _known(self, arch: Architecture) -> Known:
        remembered = self._memory.get(arch.deploy_id)
        if remembered is not None or self._forecast is None:
            return Known(remembered)
        return Known(predicted=self._forecast.predict(arch))

    def _take_in(self, arch: Architecture, reading: Reading) -> None:
        self._memory.remember(arch.deploy_id, reading)
        if self._forecast is not None:
            self._forecast.learn(arch, reading)

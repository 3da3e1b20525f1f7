"""The state of a search, and the one place where its events are written down. Knows no Ray."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from nas.config import first_line
from nas.results import front_of
from nas.store import RunStore
from nas.training.checkpoint import Checkpoint
from nas.trial import (
    Ended,
    EpochEnded,
    Event,
    Priced,
    Proposed,
    Rung,
    TrialRecord,
    TrialState,
    records_of,
    rungs_before,
    unfinished,
)
from nas.tune.beforehand import published_members
from nas.tune.judging import Assignment
from nas.tune.plan import Plan
from nas.tune.pricing import PricedArchitectures
from nas.tune.study import Study, Suggestion, as_proposal

GIVEN_UP = "given_up"  # something is to be mended first: it is as if the driver had been killed
INFEASIBLE_PER_TRAINED = 20  # infeasible trials allowed for each trial of the budget


class _Begun(NamedTuple):
    """A trial that has not ended: what was proposed, and its events so far."""

    suggestion: Suggestion
    events: list[Event]


Watch = Callable[[Event, "SearchState"], None]  # is told of each event when it is written down


class SearchState:
    """Hands out trials and takes in their events, for whichever executor runs them.

    Attributes:
        judged: trials that have ended.
        last: the record of the latest of them.
        front: of those that are on the front.
        trained: trials that count towards the budget.
        over: why no trial is handed out any more (`ENDINGS` in `nas.tune.progress`, or `GIVEN_UP`); None while the
            search goes on.
        given_up_for: what kept the search from going on, if it was given up.
    """

    def __init__(
        self,
        plan: Plan,
        store: RunStore,
        study: Study,
        prices: PricedArchitectures,
        watches: Sequence[Watch] = (),
    ) -> None:
        self._config, self._store, self._study = plan.config, store, study
        self._prices, self._watches = prices, watches
        self._constraints = plan.job.constraints
        self._ends_at = None if plan.time_budget_s is None else time.monotonic() + plan.time_budget_s
        self.over: str | None = None
        self.given_up_for = ""
        self.last: TrialRecord | None = None
        self.front: list[TrialRecord] = []
        self.judged = self.trained = self._epochs = self._without_change = 0
        self._live: dict[int, _Begun] = {}
        self._waiting: dict[int, _Begun] = {}  # at a rung
        self._handed_back: dict[int, _Begun] = {}
        self._to_repeat: list[Proposed] = []
        self._published = list(published_members(plan.space, plan.job)) if plan.config.zoo_first else []
        self._seen: set[str] = set()
        self._next_trial = 0
        events = store.events()
        self._ladder = plan.ladder(
            stopped=sum(isinstance(each, Ended) and each.state is TrialState.STOPPED for each in events)
        )
        self._restore(events)

    @property
    def live(self) -> int:
        """Trials that were handed out and have neither ended nor are waiting at a rung."""
        return len(self._live)

    @property
    def waiting(self) -> int:
        """Trials that wait at a rung."""
        return len(self._waiting)

    def works_on(self, trial: int) -> bool:
        """Whether a trial that was handed out is to go on."""
        return trial in self._live

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
        if self._handed_back and not self.time_is_up:  # what was begun is finished, whatever else is enough by now
            trial = min(self._handed_back)
            self._live[trial] = self._handed_back.pop(trial)
            return replace(self._assignment(trial), alone=True)
        if reason := self._enough():
            return self._end(reason)
        with self._or_give_up():
            return self._next_of_ladder_or_space()
        return None

    def _next_of_ladder_or_space(self) -> Assignment | None:
        if (promoted := self._ladder.promoted(self._waiting, self._foreseen)) is not None:
            self._live[promoted] = self._waiting.pop(promoted)
            return self._assignment(promoted)
        if self.trained + self.live + len(self._waiting) >= self._config.budget:
            return self._end("budget")
        return self._propose()

    def record(self, *events: Event) -> None:
        """Writes events down, all at once, and draws the conclusions of each; nothing more once it was given up."""
        if self.over == GIVEN_UP:
            return
        with self._or_give_up():
            self._store.append(*(each for each in events if not isinstance(each, EpochEnded)))
            for event in events:
                if not isinstance(event, EpochEnded):
                    self._conclude(event)
                self._tell(event)

    def _tell(self, event: Event) -> None:
        for watch in self._watches:
            watch(event, self)

    def give_up(self, reason: str) -> None:
        """Ends the search where it stands, without another word in its run."""
        self.over, self.given_up_for = GIVEN_UP, reason
        self._live.clear()

    def give_up_writing(self, error: Exception) -> None:
        """The same, where the run cannot be written to."""
        self.give_up(f"{self._store.path} cannot be written: {first_line(error)}")

    @contextlib.contextmanager
    def _or_give_up(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.give_up_writing(error)

    def fail(self, trial: int, reason: str) -> None:
        """Ends a trial whose worker was lost, unless it has ended."""
        if trial in self._live:
            self.record(Ended(trial, TrialState.FAILED, reason))

    def hand_back(self, trials: Sequence[int]) -> None:
        """Takes back trials of a call whose worker was lost, nobody knows for which of them: each is to run alone."""
        self._handed_back |= {trial: self._live.pop(trial) for trial in trials if trial in self._live}

    def close(self) -> None:
        """Ends the trials that wait at a rung: the search is over, and nobody will promote them."""
        for trial, begun in sorted(self._waiting.items()):
            self._live[trial] = begun
            last = rungs_before(begun.events, None)[-1]
            reason = f"stopped at the rung of {last.epochs} epochs"
            self.record(
                Ended(trial, TrialState.STOPPED, reason, last.accuracy, last.epochs, last.train_s, last.waited_s)
            )
        self._waiting.clear()

    def _conclude(self, event: Event) -> None:
        begun = self._live[event.trial]
        begun.events.append(event)
        if isinstance(event, Priced):
            self._prices.learn(begun.suggestion.architecture, event.macs, event.latency)
        elif isinstance(event, Rung):
            self._reach(begun, event)
        elif isinstance(event, Ended):
            (record,) = records_of(begun.events)
            del self._live[event.trial]
            Checkpoint(self._store.checkpoint_file(event.trial)).discard()
            self._take_in(record)
            self._study.tell(begun.suggestion, record)

    def _enough(self) -> str | None:
        """Why no more work is handed out, if so."""
        epochs, patience = self._config.budget_epochs, self._config.stop.hypervolume_patience
        ahead = sum(next(iter(self._ladder.ahead_of(trial)), 0) for trial in self._live) if epochs else 0
        if self.time_is_up:
            return "time_budget"
        if epochs and self._epochs + ahead >= epochs:
            return "budget_epochs"
        if patience and self._without_change >= patience:
            return "patience"
        if self.judged - self.trained >= INFEASIBLE_PER_TRAINED * self._config.budget:
            return "infeasible"
        return None

    def _end(self, reason: str) -> None:
        """Ends the search, but for a budget only when nothing runs any more that may make way for other trials."""
        if reason in ("time_budget", "infeasible") or not self.live:
            self.over = reason

    def _reach(self, begun: _Begun, rung: Rung) -> None:
        """Takes in a rung; a trial that is not at once among the best waits there."""
        again = self._ladder.has_gone_on(rung.trial, rung.epochs)  # its worker was lost later on
        self._climb(begun.events, rung)
        if self._ladder.ahead_of(rung.trial) and not again:
            self._study.note_rungs(begun.suggestion, begun.events)
            self._waiting[rung.trial] = self._live.pop(rung.trial)
            if not self._enough() and self._ladder.next_up(self._waiting, self._foreseen) == rung.trial:
                self._ladder.go_on(rung.trial)
                self._live[rung.trial] = self._waiting.pop(rung.trial)

    def _foreseen(self, trials: Sequence[int]) -> list[float] | None:
        """What errors the sampler expects of some that wait, were they trained in full; None if it does not know."""
        return self._study.foreseen([self._waiting[each].suggestion for each in trials])

    def _climb(self, events: list[Event], rung: Rung) -> None:
        priced = next((event for event in reversed(events) if isinstance(event, Priced)), None)
        costs = priced.cost.by_name() if priced else {}
        names = [name for name in self._config.objectives if name != "error"]
        if lacking := [name for name in names if name not in costs]:
            raise ValueError(f"trial {rung.trial} is at a rung without {', '.join(lacking)}")
        if rung.epochs not in self._ladder.rungs:
            raise ValueError(f"trial {rung.trial}: a rung of {rung.epochs} epochs; allowed: {self._ladder.rungs}")
        self._ladder.reach(rung.trial, rung.epochs, 1 - rung.accuracy, [costs[name] for name in names])
        self._epochs += rung.epochs

    def _take_in(self, record: TrialRecord) -> None:
        """Counts a trial that has ended."""
        self.last = record
        self.judged += 1
        self.trained += record.state.trained
        self._epochs += record.epochs if record.state is TrialState.FAILED else 0  # others have rungs
        if record.state.trained:
            names, before = self._config.objectives, self.front
            self.front = front_of([*before, record], names, self._constraints)
            moved = record in self.front and record.values(names) not in [each.values(names) for each in before]
            self._without_change = 0 if moved else self._without_change + 1

    def _propose(self) -> Assignment | None:
        repeated = self._to_repeat.pop(0) if self._to_repeat else None
        if repeated:
            suggestion = self._study.suggest_again(repeated.choices)
        else:
            suggestion = self._next_published() or self._study.suggest(self._seen)
        if suggestion is None:
            return self._end("exhausted")
        proposal = repeated or as_proposal(suggestion, self._next_trial)
        self._next_trial += 0 if repeated else 1
        self._seen.add(proposal.arch_id)
        self._live[proposal.trial] = _Begun(suggestion, [proposal])
        if not repeated:
            self._store.append(proposal)
        self._tell(proposal)
        return self._assignment(proposal.trial)

    def _next_published(self) -> Suggestion | None:
        """The next published network that was not proposed yet."""
        while self._published:
            name, choices = self._published.pop(0)
            suggestion = replace(self._study.suggest_again(choices), why=f"published: {name}")
            if suggestion.architecture.arch_id not in self._seen:
                return suggestion
            self._study.withdraw(suggestion)
        return None

    def _assignment(self, trial: int) -> Assignment:
        suggestion = self._live[trial].suggestion
        arch = suggestion.architecture
        rungs = self._ladder.ahead_of(trial) or self._ladder.rungs[-1:]  # of some the end alone was not written down
        return Assignment(trial, arch.to_dict(), arch.arch_id, self._prices.known(arch), rungs)

    def _restore(self, events: list[Event]) -> None:
        """Takes in what an earlier session has judged, and what it has left at a rung or in the middle."""
        of_trial: dict[int, list[Event]] = {}
        records = records_of(events)
        given_up = {record.trial for record in records if record.state is TrialState.STOPPED}
        for event in events:
            of_trial.setdefault(event.trial, []).append(event)
            if isinstance(event, Rung) and event.trial in given_up:
                self._epochs += event.epochs  # among the best or not, it does not go on, nor keep others from it
            elif isinstance(event, Rung):
                self._climb(of_trial[event.trial], event)
        for record in records:
            self._take_in(record)
            if record.cost is not None:
                self._prices.learn(record.architecture, record.cost.macs, record.cost.latency)
        self._study.restore(records)
        self._study.open_journal(self._store.path / "study.log", self._store.name, records)
        for proposal in unfinished(events):
            if rungs_before(of_trial[proposal.trial], None) and self._ladder.ahead_of(proposal.trial):
                begun = _Begun(self._study.suggest_again(proposal.choices), of_trial[proposal.trial])
                self._study.note_rungs(*begun)
                self._waiting[proposal.trial] = begun
            else:
                self._to_repeat.append(proposal)
        self._seen = {event.arch_id for event in events if isinstance(event, Proposed)}
        self._next_trial = 1 + max(of_trial, default=-1)

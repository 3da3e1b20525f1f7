"""The Optuna side of a search: proposals without repeats, and results under their true state."""

from __future__ import annotations

import random
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from nas.architecture import Architecture
from nas.block_fields import Value
from nas.objectives import Constraint, Objective
from nas.samplers.exact_cost import WHY, foreseen
from nas.samplers.history import ELSEWHERE, RUNGS, TRAIN_MACS
from nas.space import SearchSpace
from nas.trial import Event, Proposed, Started, TrialRecord, TrialState, rungs_before
from nas.tune.journal import Journal

REPEATS_ALLOWED = 20  # duplicate proposals before an unseen architecture is drawn at random
UNSEEN_DRAWS = 1000  # random draws for an unseen architecture
ENUMERABLE = 100_000  # spaces up to this size are gone through to tell whether they are exhausted

STATES = {
    TrialState.COMPLETED: OptunaState.COMPLETE,
    TrialState.STOPPED: OptunaState.PRUNED,
    TrialState.INFEASIBLE: OptunaState.PRUNED,  # with its constraints' excess, which samplers see
    TrialState.FAILED: OptunaState.FAIL,
}


@dataclass(frozen=True)
class Suggestion:
    """An architecture that was not judged before, with its choices, Optuna's trial, and why it is proposed."""

    architecture: Architecture
    choices: dict[str, Value]
    optuna_trial: optuna.Trial
    why: str


class Study:
    """Asks a sampler and tells it what became of its proposals.

    Proposals are made in memory; the journal `study.log` gets each trial once, when it has ended, so that it
    holds what `events.jsonl` says and can be rebuilt from it.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        sampler: optuna.samplers.BaseSampler,
        seed: int,
        full_epochs: int,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space, self._objectives, self._constraints = space, objectives, constraints
        self._random, self._full_epochs = random.Random(seed), full_epochs
        self._study = optuna.create_study(directions=[each.direction for each in objectives], sampler=sampler)
        self._journal: Journal | None = None

    def suggest(self, seen: Container[str]) -> Suggestion | None:
        """An architecture whose `arch_id` is not in `seen`; None when the space has no other left."""
        for _ in range(REPEATS_ALLOWED):
            trial = self._study.ask()
            arch = self._space.suggest(trial)
            if arch.arch_id not in seen:
                return self._suggestion(arch, trial)
            self._study.tell(trial, state=OptunaState.FAIL)
        choices = self._unseen_choices(seen)
        return None if choices is None else self.suggest_again(choices)

    def suggest_again(self, choices: dict[str, Value]) -> Suggestion:
        """The suggestion of choices that are given: those of an interrupted trial, or drawn at random."""
        self._study.enqueue_trial(choices)
        trial = self._study.ask()
        arch = self._space.suggest(trial)
        return self._suggestion(arch, trial)

    def _suggestion(self, arch: Architecture, trial: optuna.Trial) -> Suggestion:
        stored = self._study.get_trials(deepcopy=False)[trial.number]  # `trial` itself knows what it was made with
        return Suggestion(arch, dict(trial.params), trial, str(stored.user_attrs.get(WHY, "")))

    def tell(self, suggestion: Suggestion, record: TrialRecord) -> None:
        """Tells the sampler how the trial of a suggestion ended."""
        for name, excess in self._excess(record).items():
            suggestion.optuna_trial.set_constraint(name, excess)
        for name, value in self._learned(record).items():
            suggestion.optuna_trial.set_user_attr(name, value)
        values = record.values(self._names)
        self._study.tell(suggestion.optuna_trial, values, state=STATES[record.state])
        if self._journal is not None:
            self._journal.add(self._frozen(record))

    def note_rungs(self, suggestion: Suggestion, events: Sequence[Event]) -> None:
        """Tells the sampler what a suggestion that has not ended was judged by so far."""
        rungs = [(each.epochs, each.accuracy) for each in rungs_before(events, None)]
        suggestion.optuna_trial.set_user_attr(RUNGS, self._shares(rungs))
        started = [event.train_macs for event in events if isinstance(event, Started)]
        suggestion.optuna_trial.set_user_attr(TRAIN_MACS, float(started[-1]) if started else 0.0)

    def foreseen(self, suggestions: Sequence[Suggestion]) -> list[float] | None:
        """The errors that the sampler expects of suggestions that were trained in part, were they trained in full.

        None where it does not know, as Optuna's own samplers never do.
        """
        return foreseen(self._study, [each.optuna_trial.number for each in suggestions])

    def withdraw(self, suggestion: Suggestion) -> None:
        """Tells the sampler that a suggestion is not followed."""
        self._study.tell(suggestion.optuna_trial, state=OptunaState.FAIL)

    def learn_from(self, records: Sequence[TrialRecord]) -> None:
        """Tells the sampler of trials of other runs, which are none of this one's."""
        for record in records:
            trial = self._frozen(record)
            trial.set_user_attr(ELSEWHERE, True)
            self._study.add_trial(trial)

    def restore(self, records: Sequence[TrialRecord]) -> None:
        """Tells the sampler of trials that an earlier session judged."""
        for record in records:
            self._study.add_trial(self._frozen(record))

    def open_journal(self, file: Path, name: str, records: Sequence[TrialRecord]) -> None:
        """Writes the journal anew from records, and keeps it from now on."""
        self._journal = Journal(file, name, self._study.directions, self._names)
        for record in records:
            self._journal.add(self._frozen(record))

    def _learned(self, record: TrialRecord) -> dict[str, Any]:
        """What samplers learn from besides values."""
        last = [(record.epochs, record.accuracy)] if record.accuracy is not None else []
        return {RUNGS: self._shares([*record.rungs, *last]), TRAIN_MACS: float(record.train_macs or 0)}

    def _shares(self, rungs: Sequence[tuple[int, float]]) -> list[list[float]]:
        """Errors of shorter trainings, with their share of a full one."""
        return [[epochs / self._full_epochs, 1 - accuracy] for epochs, accuracy in rungs if epochs < self._full_epochs]

    @property
    def _names(self) -> list[str]:
        return [objective.name for objective in self._objectives]

    def _frozen(self, record: TrialRecord) -> FrozenTrial:
        fixed = optuna.trial.FixedTrial(record.choices)
        self._space.suggest(fixed)
        return optuna.trial.create_trial(
            state=STATES[record.state],
            params=record.choices,
            distributions=fixed.distributions,
            values=record.values(self._names),
            user_attrs={
                "trial": record.trial,
                "arch_id": record.architecture.arch_id,
                "state": record.state.value,
                "reason": record.reason,
                **self._learned(record),
            },
            constraints=self._excess(record),
        )

    def _excess(self, record: TrialRecord) -> dict[str, float]:
        """How far each cost is above its limit; at most 0 where it is kept."""
        return {each.name: each.excess(record.costs) for each in self._constraints} if record.costs else {}

    def _unseen_choices(self, seen: Container[str]) -> dict[str, Value] | None:
        """Random choices of an unseen architecture; None if there is none, or none is found in a large space."""
        for _ in range(UNSEEN_DRAWS):
            choices = self._space.sample_choices(self._random)
            if self._space.architecture(choices).arch_id not in seen:
                return choices
        if self._space.size > ENUMERABLE:
            return None
        every = self._space.enumerate()
        return next((choices for choices in every if self._space.architecture(choices).arch_id not in seen), None)


def as_proposal(suggestion: Suggestion, trial: int) -> Proposed:
    """The event that a suggestion makes as a run's trial."""
    return Proposed(
        trial,
        suggestion.architecture.to_dict(),
        suggestion.architecture.arch_id,
        suggestion.architecture.deploy_id,
        suggestion.choices,
        suggestion.why,
    )

"""What an Optuna study tells a sampler: which members were judged, with what result, and which still run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from nas.block_fields import Value
from nas.samplers.candidates import Candidate, PricedSpace

# Attributes of an Optuna trial.
TRAIN_MACS = "train_macs"  # multiply-adds of its train form; 0 or absent where they are not known
ELSEWHERE = "elsewhere"  # whether it is of an earlier run: learned from, and judged again if it is worth it
RUNGS = "rungs"  # what it was judged by on the way: [[share of a full training, error], ...]


@dataclass(frozen=True, eq=False)
class Judged:
    """An error that was seen.

    Attributes:
        candidate: with its costs as they are known now.
        error: of its fused network.
        train_macs: multiply-adds of its train form; 0 where that is not known.
        share: of a full training, after which it was judged.
    """

    candidate: Candidate
    error: float
    train_macs: float = 0.0
    share: float = 1.0


class History(NamedTuple):
    """What has become of the proposals so far.

    Attributes:
        judged: trained in full.
        partly: errors after a part of the training, also of those that were judged in full since.
        running: proposed, and not judged yet.
        partial: judged after a part of the training only.
        elsewhere: errors of earlier runs.
        taken: identities of all proposals.
    """

    judged: list[Judged]
    partly: list[Judged]
    running: list[Candidate]
    partial: list[Candidate]
    elsewhere: list[Judged]
    taken: set[str]

    @property
    def proposed(self) -> list[Candidate]:
        """All that were trained at all, or are to be."""
        return [*(each.candidate for each in self.judged), *self.running, *self.partial]


@dataclass(frozen=True, eq=False)
class HistoryReader:
    """Reads studies; remembers which member a trial's parameters make, as it was priced while the trial ran.

    Attributes:
        space: whose members are proposed.
        objectives: names of the study's, "error" among them.
    """

    space: PricedSpace
    objectives: Sequence[str]
    _members: dict[int, Candidate | None] = field(default_factory=dict)
    _judged: dict[int, Judged] = field(default_factory=dict)

    def read(self, study: optuna.Study, but: FrozenTrial | None = None) -> History:
        """The trials of a study, but for one that is still to be proposed."""
        history = History([], [], [], [], [], set())
        left_out = -1 if but is None else but.number
        trials = [each for each in study.get_trials(deepcopy=False) if each.number != left_out and each.params]
        self._meet(trials)
        for trial in trials:
            member = self._members[trial.number]
            if member is None:
                continue
            if trial.user_attrs.get(ELSEWHERE):
                history.elsewhere.extend(_of_another_run(trial, member, self.objectives))
                continue
            history.taken.add(member.identity)
            macs, rungs = trial.user_attrs.get(TRAIN_MACS, 0.0), trial.user_attrs.get(RUNGS, [])
            if trial.state is OptunaState.RUNNING and not rungs:
                history.running.append(member)
            elif trial.state is OptunaState.COMPLETE:
                if trial.number not in self._judged:
                    self._judged[trial.number] = self._in_full(trial, member, macs)
                history.judged.append(self._judged[trial.number])
            elif rungs and trial.state is not OptunaState.FAIL:
                history.partial.append(member)
            history.partly.extend(Judged(member, error, macs, share) for share, error in rungs if share < 1)
        return history

    def member(self, number: int) -> Candidate:
        """What a trial that was read proposes."""
        member = self._members[number]
        assert member is not None
        return member

    def _in_full(self, trial: FrozenTrial, member: Candidate, macs: float) -> Judged:
        values = dict(zip(self.objectives, trial.values, strict=True))
        error = values.pop("error")
        return Judged(Candidate(member.choices, member.identity, {**member.costs, **values}), error, macs)

    def _meet(self, trials: Sequence[FrozenTrial]) -> None:
        """Replays the choices of trials that are new, or were not all made, and prices those anew that still run."""
        running = {each.number for each in trials if each.state is OptunaState.RUNNING}
        known = {number: member for number in sorted(running) if (member := self._members.get(number))}
        self._members.update(zip(known, self.space.repriced(list(known.values())), strict=True))
        for trial in trials:
            if trial.number not in self._members or (trial.number in running and trial.number not in known):
                self._members[trial.number] = _replayed(self.space, trial.params)


def _of_another_run(trial: FrozenTrial, member: Candidate, objectives: Sequence[str]) -> list[Judged]:
    """What a trial of an earlier run was judged by, at the costs that are known now."""
    macs = trial.user_attrs.get(TRAIN_MACS, 0.0)
    full = [[1.0, trial.values[objectives.index("error")]]] if trial.state is OptunaState.COMPLETE else []
    return [Judged(member, error, macs, share) for share, error in [*trial.user_attrs.get(RUNGS, []), *full]]


def _replayed(space: PricedSpace, choices: Mapping[str, Value]) -> Candidate | None:
    """The member that choices make; None where they are not (yet) all there."""
    try:
        return space.candidates([lambda name, options: choices[name]])[0]
    except KeyError:
        return None

"""A search through a table by one sampler, and the trainings that it would have been."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import optuna
from optuna.trial import TrialState

from analysis.table_space import TableSpace
from nas.samplers.exact_cost import ExactCostSampler, foreseen
from nas.samplers.history import RUNGS
from nas.tune.promotion import Ladder

FILTER = "+filter"
SKIPS = 20  # skipped proposals before the filter draws a row that is left at random, as nas.search does


class Search(NamedTuple):
    """One search: each proposal's row and seconds, in order, and how many proposals were made when each row was known.

    Attributes:
        rows: proposed.
        seconds: that each proposal took.
        judged: rows of which the true error is known, with the number of proposals before.
        epochs: of all trainings after each proposal.
    """

    rows: list[int]
    seconds: list[float]
    judged: list[tuple[int, int]]
    epochs: list[int]


def _ours(space: TableSpace, seed: int) -> optuna.samplers.BaseSampler:
    return ExactCostSampler(space, ["error", "cost"], (), seed)


# As their users run them: nothing but what Optuna asks for. NSGA's population of 50 would have had two generations.
SAMPLERS: dict[str, Callable[[TableSpace, int], optuna.samplers.BaseSampler]] = {
    "ours": _ours,
    "tpe": lambda space, seed: optuna.samplers.TPESampler(seed=seed),
    "nsga2": lambda space, seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=20),
    "nsga3": lambda space, seed: optuna.samplers.NSGAIIISampler(seed=seed, population_size=20),
    "gp": lambda space, seed: optuna.samplers.GPSampler(seed=seed),
    "random": lambda space, seed: optuna.samplers.RandomSampler(seed=seed),
    "qmc": lambda space, seed: optuna.samplers.QMCSampler(seed=seed, scramble=True),
}


def search(space: TableSpace, sampler: str, budget: int, seed: int, ladder: Ladder | None = None) -> Search:
    """Searches a table; `sampler` may end in "+filter"; with a ladder, not all that is proposed is trained in full."""
    make, filtered = SAMPLERS[sampler.removesuffix(FILTER)], sampler.endswith(FILTER)
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=make(space, seed))
    draw, trainings = random.Random(seed), Trainings(space, study, ladder or Ladder((1,), 1))
    found = Search([], [], [], [])
    judged: dict[int, float] = {}  # the least cost of each architecture
    spent, skips = 0.0, 0
    while len(found.rows) < budget:
        begin = time.perf_counter()
        trial = study.ask()
        row = space.suggest(trial)
        spent += time.perf_counter() - begin
        idle = row is None or (filtered and judged.get(int(space.same[row]), np.inf) <= space.costs[row])
        if idle:
            study.tell(trial, state=TrialState.FAIL)
            skips += 1
            if skips % SKIPS == 0 and not _enqueue_left(study, space, judged, draw):
                break
            continue
        assert row is not None
        cost, same = float(space.costs[row]), int(space.same[row])
        judged[same] = min(cost, judged.get(same, np.inf))
        found.rows.append(row)
        found.seconds.append(spent)
        found.judged.extend((each, len(found.rows)) for each in trainings.train(trial, row))
        found.epochs.append(trainings.epochs)
        spent, skips = 0.0, 0
    return found


class Trainings:
    """The trainings of one search: what is proposed, and what goes on after it.

    Attributes:
        epochs: of all so far.
    """

    def __init__(self, space: TableSpace, study: optuna.Study, ladder: Ladder) -> None:
        self._space, self._study, self._ladder = space, study, ladder
        self._waiting: dict[int, tuple[optuna.Trial, int]] = {}
        self.epochs = 0

    def train(self, trial: optuna.Trial, row: int) -> list[int]:
        """Trains a row to the first rung, and all that may go on then; the rows that were trained in full."""
        self._waiting[trial.number] = (trial, row)
        number: int | None = trial.number
        full = []
        while number is not None:
            if self._reach_next(number):
                full.append(self._waiting.pop(number)[1])
            number = self._ladder.promoted(self._waiting, self._foreseen)
        return full

    def _foreseen(self, numbers: Sequence[int]) -> list[float] | None:
        return foreseen(self._study, numbers)

    def _reach_next(self, number: int) -> bool:
        """Trains a trial to its next rung; whether that is the last one."""
        trial, row = self._waiting[number]
        ahead = self._ladder.ahead_of(number)
        level = len(self._ladder.rungs) - len(ahead)
        error, cost = float(self._space.levels[level][row]), float(self._space.costs[row])
        self.epochs += ahead[0]
        self._ladder.reach(number, ahead[0], error, (cost,))
        if len(ahead) > 1:
            share = ahead[0] / self._ladder.rungs[-1]
            trial.set_user_attr(RUNGS, [*trial.user_attrs.get(RUNGS, []), [share, error]])
            return False
        self._study.tell(trial, [error, cost])
        return True


def _enqueue_left(study: optuna.Study, space: TableSpace, judged: dict[int, float], draw: random.Random) -> bool:
    """Has a random row proposed next that was not judged; whether there is any."""
    left = [row for row in range(len(space.costs)) if int(space.same[row]) not in judged]
    if left:
        study.enqueue_trial(dict(zip(space.options, space.combinations[draw.choice(left)], strict=True)))
    return bool(left)

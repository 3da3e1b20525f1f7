"""Which trials go on to the next rung: asynchronous successive halving for several objectives (`mo_asha`).

A rung is a number of epochs. Every trial is trained for those of the first; the best share of those that reached a rung
so far goes on to the next one (ASHA, Li et al. 2020, which promotes whenever somebody asks for work). Best is by
non-dominated rank, where costs are exact at every rung and only the error is of a shorter training; among equal ranks
by what a trial adds to the hypervolume of its rank (MO-ASHA, Schmucker et al. 2021, compares ways to break these ties).
Where a sampler can tell from some full trainings what a short one says, ranks are by the errors that it foresees.

ASHA promotes as many of the first, which are little more than random, as of the last, which a sampler proposes after it
has learned. So where it is known how many trials there will be, fewer go on at first, and the last of them at the end,
when all are there to choose from.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

import moocore
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

Foresee = Callable[[Sequence[int]], Sequence[float] | None]

FEWEST_FINISHED = 5  # trials that went all the way, before it is told from them what others can still reach


def rung_epochs(epochs: int, reduction: int, rungs: int) -> tuple[int, ...]:
    """Epochs of each rung, rising, the last one being a full training.

    >>> rung_epochs(16, 4, 3)
    (1, 4, 16)

    Args:
        epochs: of a full training.
        reduction: by how much a rung has more epochs than the one before.
        rungs: at most so many.
    """
    return tuple(sorted({max(1, round(epochs / reduction**rung)) for rung in range(rungs)}))


def not_at_all(_trials: Sequence[int]) -> None:
    """Foresees nothing."""


class Ladder:
    """Who has reached which rung, and who goes on.

    Attributes:
        rungs: epochs of each, rising.
    """

    def __init__(self, rungs: Sequence[int], reduction: float, budget: int | None = None) -> None:
        """A ladder that nobody has climbed.

        Args:
            rungs: epochs of each, rising; the last one is a full training.
            reduction: of so many that reach a rung, one goes on in the end.
            budget: trials that there will be; None if that is not known, as where time decides.
        """
        self.rungs, self._reduction, self._budget = tuple(rungs), reduction, budget
        self._points: list[dict[int, tuple[float, ...]]] = [{} for _ in rungs]
        self._gone_on: list[set[int]] = [set() for _ in rungs]

    def reach(self, trial: int, epochs: int, error: float, costs: Sequence[float]) -> None:
        """Notes that a trial was judged at a rung, so has gone on from those below; all objectives are minimized."""
        rung = self.rungs.index(epochs)
        self._points[rung][trial] = (error, *costs)
        for below in self._gone_on[:rung]:
            below.add(trial)

    def has_gone_on(self, trial: int, epochs: int) -> bool:
        """Whether a trial has gone on from a rung."""
        return trial in self._gone_on[self.rungs.index(epochs)]

    def ahead_of(self, trial: int) -> tuple[int, ...]:
        """The rungs that a trial has not reached."""
        return tuple(epochs for epochs, there in zip(self.rungs, self._points, strict=True) if trial not in there)

    def promoted(self, waiting: Container[int], foresee: Foresee = not_at_all) -> int | None:
        """The one that goes on now (`next_up`), which is noted."""
        trial = self.next_up(waiting, foresee)
        if trial is not None:
            self.go_on(trial)
        return trial

    def go_on(self, trial: int) -> None:
        """Notes that a trial goes on from the rung that it has reached."""
        self._gone_on[max(rung for rung, there in enumerate(self._points) if trial in there)].add(trial)

    def next_up(self, waiting: Container[int], foresee: Foresee = not_at_all) -> int | None:
        """One of those that wait at some rung and may go on now, from the highest rung on.

        Args:
            waiting: who waits.
            foresee: is asked what errors of some that wait at a rung would be after full trainings.
        """
        for rung in reversed(range(len(self.rungs) - 1)):
            gone_on = self._gone_on[rung]
            if len(gone_on) >= int(len(self._points[rung]) / self._reduction * self._share_of_budget()):
                continue  # the best of today would else push as many out as the best of yesterday let in
            may = [each for each in self._points[rung] if each in waiting and each not in gone_on]
            may = [each for each in may if self._may_reach_the_front(rung, each)]
            errors = foresee(may) if may else None
            best = self._best(rung) if errors is None else self._best_foreseen(rung, may, errors)
            trial = next((each for each in best if each in may), None)
            if trial is not None:
                return trial
        return None

    def _share_of_budget(self) -> float:
        """Of the trials that there will be, the share that was begun; 1 where it is not known."""
        return min(1.0, len(self._points[0]) / self._budget) if self._budget else 1.0

    def _best_foreseen(self, rung: int, trials: list[int], errors: Sequence[float]) -> list[int]:
        """Trials of a rung, best first, by what is foreseen of them, among those that were trained in full."""
        hoped = [(error, *self._points[rung][trial][1:]) for trial, error in zip(trials, errors, strict=True)]
        order = _order(np.array([*hoped, *self._points[-1].values()]))[: len(trials)]
        return [trials[place] for place in np.argsort(order, kind="stable")]

    def _best(self, rung: int) -> list[int]:
        """The trials of a rung that go on, best first."""
        there = self._points[rung]
        share = int(len(there) / self._reduction)
        if not share:
            return []
        order = np.argsort(_order(np.array(list(there.values()))), kind="stable")
        trials = list(there)
        return [trials[place] for place in order[:share]]

    def _may_reach_the_front(self, rung: int, trial: int) -> bool:
        """Whether a trial would be on the front if its error fell as far as any trial's has from this rung on."""
        here, last = self._points[rung], self._points[-1]
        falls = [last[each][0] / here[each][0] for each in last if each in here and here[each][0] > 0]
        if len(falls) < FEWEST_FINISHED:
            return True
        error, *costs = here[trial]
        hoped = np.array([error * min(falls), *costs])
        finished = np.array(list(last.values()))
        return not bool(((finished <= hoped).all(axis=1) & (finished < hoped).any(axis=1)).any())


def _order(points: Array) -> Array:
    """A number for each point, lower for better ones: its rank, and below 1 how little it adds to the hypervolume."""
    ranks = np.asarray(moocore.pareto_rank(points), dtype=np.float64)
    low, high = points.min(axis=0), points.max(axis=0)
    scaled = (points - low) / np.where(high > low, high - low, 1.0)
    order = np.empty(len(points))
    for rank in np.unique(ranks):
        members = ranks == rank
        added = np.asarray(moocore.hv_contributions(scaled[members], ref=np.full(points.shape[1], 1.1)))
        order[members] = rank + 1 - added / (1 + added.max(initial=0))
    return order

"""Candidates: members of a space with what they cost, which is known before anything is trained."""

from __future__ import annotations

import random
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from nas.block_fields import Value
from nas.objectives import Constraint
from nas.space import Choose, random_choose

if TYPE_CHECKING:
    import optuna

UNIFORM, MUTATED, CROSSED = 48, 112, 32  # candidates that are made for each proposal, by how they are made
MOST_CHANGES = 3  # choices that a mutation draws anew
KEPT = 600  # candidates that wait for the next proposal
FEWER = 1.5  # by which fewer are made once so many wait: to make and to price them is most of a proposal's time
ROUNDS, LEAST_BROKEN = 20, 8  # of mutations towards the constraints, where none keeps them; and of how many parents


@dataclass(frozen=True, eq=False)
class Candidate:
    """A member of a space that might be proposed.

    Attributes:
        choices: what makes it, by parameter name.
        identity: equal members have the same, and are judged once.
        costs: exact or predicted, by objective name; all positive.
        member: what its space knows it by, to price it again.
    """

    choices: Mapping[str, Value]
    identity: str
    costs: Mapping[str, float]
    member: object = None


class PricedSpace(Protocol):
    """What a sampler has to know of a search space."""

    def candidates(self, ways: Sequence[Choose]) -> list[Candidate | None]:
        """The members that these make, choice by choice, with their prices; None for what cannot be."""
        ...

    def repriced(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The same with the prices of now: more may be known of them."""
        ...

    def suggest(self, trial: optuna.trial.BaseTrial) -> object:
        """Asks a trial for all choices, define-by-run."""
        ...


class CandidatePool:
    """Candidates that are renewed for each proposal: uniform ones, mutations and crossovers of the best, and the best
    of those that were there before.

    Those that were proposed, and those that break a constraint, are never in it.
    """

    def __init__(self, space: PricedSpace, constraints: Sequence[Constraint], seed: int) -> None:
        self._space, self._constraints = space, constraints
        self._random = random.Random(seed)
        self._waiting: dict[str, Candidate] = {}
        self._rounds = ROUNDS
        self._nearest: Sequence[Mapping[str, Value]] = ()  # to the limits, where none was found that keeps them

    def renewed(self, parents: Sequence[Mapping[str, Value]], taken: Container[str]) -> list[Candidate]:
        """The candidates for a proposal, none of them in `taken`.

        Args:
            parents: choices of the members whose neighbourhood is worth a look.
            taken: identities that are not to be proposed.
        """
        waiting = self._space.repriced([each for name, each in self._waiting.items() if name not in taken])
        found = {each.identity: each for each in waiting if not self._excess(each)}
        parents = self._nearest or parents
        for _ in range(self._rounds):
            made = [each for each in self._space.candidates(self._ways(parents)) if each is not None]
            fresh = [each for each in made if each.identity not in taken]
            found |= {each.identity: each for each in fresh if not self._excess(each)}
            if found or not fresh:
                break
            parents = [each.choices for each in sorted(fresh, key=self._excess)[:LEAST_BROKEN]]
        self._waiting = found
        # What was looked for in vain is not looked for at such length again; the search for it goes on where it was.
        self._rounds, self._nearest = (ROUNDS, ()) if found else (1, parents)
        return list(found.values())

    def keep(self, best_first: Sequence[Candidate]) -> None:
        """Lets all but the first ones go."""
        self._waiting = {each.identity: each for each in best_first[:KEPT]}

    def _excess(self, candidate: Candidate) -> float:
        """How far it is above the limits, relative to them; 0 if it keeps them."""
        return sum(max(0.0, each.excess(candidate.costs)) for each in self._constraints)

    def _ways(self, parents: Sequence[Mapping[str, Value]]) -> list[Choose]:
        fewer = FEWER if len(self._waiting) >= KEPT / FEWER else 1
        uniform, mutated, crossed = (int(each / fewer) for each in (UNIFORM, MUTATED, CROSSED))
        ways = [random_choose(self._random)] * (uniform if parents else uniform + mutated + crossed)
        if parents:
            ways += [self._mutation(self._random.choice(parents)) for _ in range(mutated)]
            ways += [self._crossover(*self._random.choices(parents, k=2)) for _ in range(crossed)]
        return ways

    def _mutation(self, parent: Mapping[str, Value]) -> Choose:
        changed = self._random.sample(sorted(parent), min(len(parent), self._random.randint(1, MOST_CHANGES)))
        return self._like({name: value for name, value in parent.items() if name not in changed})

    def _crossover(self, mother: Mapping[str, Value], father: Mapping[str, Value]) -> Choose:
        return self._like({name: self._random.choice((mother, father)).get(name) for name in {**mother, **father}})

    def _like(self, wanted: Mapping[str, Value | None]) -> Choose:
        """Takes what is wanted where that is an option, and draws the rest."""
        anything = random_choose(self._random)

        def choose(name: str, options: tuple[Value, ...]) -> Value:
            value = wanted.get(name)
            return value if value is not None and value in options else anything(name, options)

        return choose

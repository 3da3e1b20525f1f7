"""Candidates as rows of numbers for a regression of their error."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nas.block_fields import Value
from nas.samplers.candidates import Candidate
from nas.samplers.gaussian_process import Array, Columns

Codes = NDArray[np.intp]

NOTHING = 1e-4  # instead of 0, where all are
FEWEST_SHARING = 3  # choices of the same options, before what they have in common is told from all of them


class Encoding:
    """Which columns there are.

    For each choice one for each of its options, which trusts no order, and its rank where the options are numbers,
    which does. For options that several choices have in common, how often each is taken. The logarithm of each cost.
    """

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        """Takes choices, options and units from `candidates`; no others can be encoded."""
        self._options = _options(candidates)
        self._costs = sorted(candidates[0].costs)
        logs = self._log_costs(candidates)
        self._mean, self._unit = logs.mean(axis=0), np.maximum(logs.std(axis=0), 1e-9)

    def encoded(self, candidates: Sequence[Candidate]) -> Columns:
        """Rows of candidates."""
        codes = {name: _codes(name, options, candidates) for name, options in self._options.items()}
        groups = [_one_hot(codes[name], len(options)) for name, options in self._options.items()]
        groups += [_rank(codes[name], len(options)) for name, options in self._options.items() if _ordered(options)]
        groups += [_counts([codes[name] for name in names], size) for names, size in self._alphabets()]
        logs = (self._log_costs(candidates) - self._mean) / self._unit
        known = len(groups)
        groups += [logs[:, [cost]] for cost in range(logs.shape[1])]
        numbers = np.repeat(np.arange(len(groups)), [group.shape[1] for group in groups])
        shared = self._shared()
        options = np.append(shared, np.full(len(numbers) - len(shared), -1))
        return Columns(np.hstack(groups), numbers, options, numbers >= known)

    def _shared(self) -> Codes:
        """The numbers of options that several choices have in common, for the first columns, one an option; else -1."""
        numbers: dict[str, Codes] = {}
        first = 0
        for names, size in self._alphabets():
            numbers |= dict.fromkeys(names, np.arange(first, first + size + 1))
            first += size + 1
        return np.concatenate([numbers.get(name, np.full(len(each) + 1, -1)) for name, each in self._options.items()])

    def _alphabets(self) -> list[tuple[list[str], int]]:
        """Options that several choices have in common: the choices' names, and how many options."""
        having: dict[tuple[Value, ...], list[str]] = {}
        for name, options in self._options.items():
            having.setdefault(options, []).append(name)
        return [(names, len(options)) for options, names in having.items() if len(names) >= FEWEST_SHARING]

    def _log_costs(self, candidates: Sequence[Candidate]) -> Array:
        return np.column_stack([logarithms([each.costs[name] for each in candidates]) for name in self._costs])


def logarithms(values: ArrayLike) -> Array:
    """Logarithms of errors or costs (n,); what is not above 0 counts as half of the least that is, or as `NOTHING`."""
    numbers = np.asarray(values, dtype=np.float64)
    above = numbers[numbers > 0]
    return np.log(np.maximum(numbers, above.min() / 2 if len(above) else NOTHING))


def _options(candidates: Sequence[Candidate]) -> dict[str, tuple[Value, ...]]:
    """The options of each choice that some candidates took, in order."""
    taken: dict[str, set[Value]] = {}
    for each in candidates:
        for name, value in each.choices.items():
            taken.setdefault(name, set()).add(value)
    return {name: tuple(sorted(taken[name], key=lambda value: (str(type(value)), value))) for name in sorted(taken)}


def _ordered(options: tuple[Value, ...]) -> bool:
    return len(options) > 2 and all(isinstance(each, int | float) and not isinstance(each, bool) for each in options)


def _codes(name: str, options: tuple[Value, ...], candidates: Sequence[Candidate]) -> Codes:
    """The place of each candidate's option; one after the last where it does not have this choice."""
    places = {option: place for place, option in enumerate(options)}
    codes = [places[each.choices[name]] if name in each.choices else len(options) for each in candidates]
    return np.array(codes, dtype=np.intp)


def _one_hot(codes: Codes, size: int) -> Array:
    """Two rows that differ have the distance 1."""
    return np.eye(size + 1)[codes] / np.sqrt(2)


def _rank(codes: Codes, size: int) -> Array:
    """From 0 to 1; without this choice, in the middle."""
    return np.append(np.linspace(0, 1, size), 0.5)[codes][:, None]


def _counts(codes: Sequence[Codes], size: int) -> Array:
    """The share of choices for which each option was taken."""
    return np.mean([np.eye(size + 1)[each] for each in codes], axis=0)

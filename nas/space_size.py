"""How many ways there are to make all choices of a space, counted without making them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from nas.block_fields import Value
from nas.choice import Shared
from nas.space_weight import Steps
from nas.stage import Stage

Table = tuple[tuple[str, ...], dict[tuple[Value, ...], int]]


def count_encodings(stages: Sequence[Stage], shared: Shared) -> int:
    """Number of ways to make all choices: the sum, over the values of the shared ones, of the stages' product.

    The shared choices are summed out one after another (variable elimination), each over only those stages that
    depend on it: choices of separate stages multiply instead of being combined with each other.

    Raises:
        ValueError: too many choices depend on one another.
    """
    steps = Steps("count")
    tables = [_table(stage, shared, steps) for stage in stages]
    left = sorted(shared)
    while left:
        name = min(left, key=lambda each: _entries(_scope(each, tables), shared))
        left.remove(name)
        touched = [table for table in tables if name in table[0]]
        tables = [table for table in tables if name not in table[0]] + [_summed_out(name, touched, shared, steps)]
    return math.prod(counts[()] for _, counts in tables)


def _table(stage: Stage, shared: Shared, steps: Steps) -> Table:
    """The stage's encodings by the values of those shared choices that change their number."""
    deciding = {stage.depth.given, stage.block.given, *(c.given for c in stage.choices() if c.varies)}
    names = tuple(sorted(name for name in deciding if name))
    blocks = len(stage.block.options) if stage.block.per_block else 1
    steps.take(_entries(names, shared) * 3**blocks * len(stage.depth.options), stage.where)
    counts = {}
    for values in itertools.product(*(shared[name] for name in names)):
        counts[values] = stage.resolve(dict(zip(names, values, strict=True))).encodings()
    return names, counts


def _scope(name: str, tables: Sequence[Table]) -> tuple[str, ...]:
    """The other choices in the tables that have the choice `name`."""
    return tuple(sorted({each for names, _ in tables if name in names for each in names} - {name}))


def _entries(names: tuple[str, ...], shared: Shared) -> int:
    return math.prod(len(shared[name]) for name in names)


def _summed_out(name: str, tables: Sequence[Table], shared: Shared, steps: Steps) -> Table:
    """The product of the tables, summed over the options of `name`."""
    scope = _scope(name, tables)
    steps.take(_entries((name, *scope), shared), f"choices.{name}")
    sums = {}
    for values in itertools.product(*(shared[each] for each in scope)):
        at = dict(zip(scope, values, strict=True))
        total = 0
        for option in shared[name]:
            at[name] = option
            total += math.prod(counts[tuple(at[each] for each in names)] for names, counts in tables)
        sums[values] = total
    return scope, sums

"""A table of a whole search space as a space to be searched: each row an architecture with its error and its cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import moocore
import numpy as np
import optuna
import pandas as pd
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from nas.block_fields import Value
from nas.config import first_line
from nas.samplers.candidates import Candidate
from nas.space import Choose

Array = NDArray[np.float64]

MOST_CELLS, MOST_CSV_BYTES = 10_000_000, 200_000_000
READERS = {".parquet": pd.read_parquet, ".csv": pd.read_csv}


@dataclass(frozen=True, eq=False)
class TableSpace:
    """What is known of every member of a space.

    Attributes:
        options: of each choice, by its column's name.
        rows: the row of each combination of options.
        levels: (n,) each, errors after rising numbers of epochs; the last is the truth that a search is judged by.
        costs: (n,), known before a row is judged.
        same: (n,), a number that rows of equal architectures have in common.
    """

    options: dict[str, tuple[Value, ...]]
    rows: dict[tuple[Value, ...], int]
    levels: tuple[Array, ...]
    costs: Array
    same: NDArray[np.intp]

    @property
    def errors(self) -> Array:
        """(n,), of full trainings."""
        return self.levels[-1]

    def in_full(self) -> TableSpace:
        """The same without the errors of shorter trainings."""
        return replace(self, levels=self.levels[-1:])

    @cached_property
    def cheapest(self) -> NDArray[np.intp]:
        """(n,), the cheapest row that is equal to each: all that is worth proposing, since costs are known."""
        order = np.lexsort((self.costs, self.same))
        _, first, group = np.unique(self.same[order], return_index=True, return_inverse=True)
        found = np.empty(len(order), dtype=np.intp)
        found[order] = order[first][group]
        return found

    @cached_property
    def combinations(self) -> list[tuple[Value, ...]]:
        """The combination of each row."""
        return list(self.rows)

    def candidates(self, ways: Sequence[Choose]) -> list[Candidate | None]:
        """The cheapest rows that are equal to the chosen ones; see `PricedSpace`."""
        return [self._candidate(choose) for choose in ways]

    def repriced(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The same: a table tells no more."""
        return list(candidates)

    def _candidate(self, choose: Choose) -> Candidate | None:
        row = self.rows.get(tuple(choose(name, options) for name, options in self.options.items()))
        if row is None:
            return None
        row = int(self.cheapest[row])
        choices = dict(zip(self.options, self.combinations[row], strict=True))
        return Candidate(choices, str(self.same[row]), {"cost": float(self.costs[row])})

    def suggest(self, trial: optuna.trial.BaseTrial) -> int | None:
        """The row that a trial proposes; None where the table has none."""
        chosen = tuple(trial.suggest_categorical(name, options) for name, options in self.options.items())
        return self.rows.get(chosen)  # pyright: ignore[reportArgumentType]

    @cached_property
    def _scale(self) -> tuple[Array, Array, float]:
        """Utopia and nadir of the true front, as (error, cost), and its hypervolume between them."""
        points = np.column_stack([self.errors, self.costs])
        front = points[np.asarray(moocore.is_nondominated(points))]
        utopia, nadir = front.min(axis=0), front.max(axis=0)
        extent = np.where(nadir > utopia, nadir - utopia, 1.0)
        return utopia, extent, float(moocore.hypervolume((front - utopia) / extent, ref=np.ones(2)))

    def hypervolume(self, rows: Sequence[int]) -> float:
        """The normalised hypervolume of some rows: 1 for the true front's.

        Errors and costs are scaled by the true front's best (0) and worst (1), the reference point is the worst, and
        the hypervolume is divided by the true front's own (EvoXBench, Lu et al. 2023).
        """
        if not len(rows):
            return 0.0
        utopia, extent, whole = self._scale
        points = (np.column_stack([self.errors[rows], self.costs[rows]]) - utopia) / extent
        return float(moocore.hypervolume(points, ref=np.ones(2))) / whole if whole > 0 else 1.0


def read_table(path: Path) -> pd.DataFrame:
    """A table from a file.

    Raises:
        ValueError: neither parquet nor CSV, or not readable.
    """
    if path.suffix not in READERS:
        raise ValueError(f"table={path} is not allowed; allowed: a file that ends in {' or '.join(READERS)}")
    try:
        _check_cells(path)
        return READERS[path.suffix](path)
    except Exception as error:  # pandas hands through whatever its readers raise
        raise ValueError(f"table={path} cannot be read: {first_line(error)}") from None


def _check_cells(path: Path) -> None:
    """Holds the size of a table against what is read: a parquet file of some bytes can hold very many equal rows.

    Raises:
        ValueError: it is too large.
    """
    if path.suffix == ".parquet":
        stated = parquet.read_metadata(path)
        if (cells := stated.num_rows * stated.num_columns) > MOST_CELLS:
            raise ValueError(f"{cells:,} cells are too many; allowed: {MOST_CELLS:,}")
    elif path.stat().st_size > MOST_CSV_BYTES:
        raise ValueError(f"it is larger than {MOST_CSV_BYTES:,} bytes")


def numbers(table: pd.DataFrame, key: str, column: str) -> Array:
    """A column's numbers.

    Raises:
        ValueError: there is no such column, or it holds other things than numbers.
    """
    if column not in table.columns:
        raise ValueError(f"{key}={column}: no such column; the table has {', '.join(map(str, table.columns))}")
    try:
        return np.asarray(pd.to_numeric(table[column]), dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{key}={column} is not a column of numbers: {first_line(error)}") from None


def make_space(
    table: pd.DataFrame, choices: Sequence[str], levels: Sequence[Array], costs: Array, same: str | None
) -> TableSpace:
    """The space of a table's rows whose error and cost are finite numbers.

    Raises:
        ValueError: columns that are missing or named twice, rows of equal choices, or fewer than two rows.
    """
    if not choices or len(set(choices)) < len(choices):
        raise ValueError(f"choices={list(choices)} is not allowed; allowed: one or more columns, each once")
    for key, column in [*(("choices", each) for each in choices), *([("same", same)] if same else [])]:
        if column not in table.columns:
            raise ValueError(f"{key}={column}: no such column; the table has {', '.join(map(str, table.columns))}")
    usable = np.isfinite([*levels, costs]).all(axis=0)
    kept = table.loc[usable]
    if len(kept) < 2:
        raise ValueError(f"{len(kept)} rows of the table have an error and a cost; needed: 2")
    columns = [kept[name].tolist() for name in choices]  # of Python's own types
    combinations = list(zip(*columns, strict=True))
    rows = {combination: row for row, combination in enumerate(combinations)}
    if len(rows) < len(combinations):
        raise ValueError(f"choices: {len(combinations) - len(rows)} rows have the same choices as another one")
    options = {
        name: tuple(sorted(set(column), key=lambda each: (str(type(each)), each)))
        for name, column in zip(choices, columns, strict=True)
    }
    groups = pd.factorize(kept[same])[0] if same else np.arange(len(kept))
    return TableSpace(
        options, rows, tuple(each[usable] for each in levels), costs[usable], np.asarray(groups, dtype=np.intp)
    )

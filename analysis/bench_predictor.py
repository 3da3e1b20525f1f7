"""How well latency is predicted from choices, on a table of measured latencies: ours, ridge regression, random forest.

    python -m analysis.bench_predictor table=fbnet_latency.parquet "choices=[op00,op01,op02]" latency=lat_ms_pixel2 \
        train=200 out=predictor.csv

Each seed draws `train` rows that all models learn from, and judges them on all other rows of positive latency: median
and 90th percentile of the relative error, and Kendall's tau. Ridge regression (its penalty chosen by leave-one-out) and
the random forest learn log latency from one-hot choices. Ours is `nas.latency.regression`, on the same one-hot choices
and on counts of each choice over the columns of one vocabulary, whole, in halves and in quarters. The CSV holds means
over seeds, the printed table their spread too.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from omegaconf import MISSING
from scipy.stats import kendalltau

from analysis.predictor_contestants import MODELS, Array, Choices, Guess
from analysis.settings import from_words, new_file
from nas.config import first_line

RESULTS = ["median_error", "p90_error", "kendall"]  # of the CSV, after the model
READERS = {".parquet": pd.read_parquet, ".csv": pd.read_csv}


@dataclass(frozen=True)
class Settings:
    """What the command line may say.

    Attributes:
        table: a file, .parquet or .csv.
        choices: the columns that describe a network, in the order of its layers; categories.
        latency: the column to predict, in ms; rows where it is not finite and positive are left out.
        train: rows that models learn from.
        seeds: random splits.
        out: CSV of the results; must not exist.
    """

    table: str = MISSING
    choices: tuple[str, ...] = MISSING
    latency: str = MISSING
    train: int = 200
    seeds: int = 5
    out: str = MISSING


class Row(NamedTuple):
    """One model on one split: relative errors, tau, coverage of the intervals, seconds of learning and predicting."""

    model: str
    median_error: float
    p90_error: float
    kendall: float
    coverage: float
    seconds: float


def load(settings: Settings) -> tuple[Choices, Array]:
    """Choices as text, (n, columns), and latencies in ms, (n,), of the rows of finite positive latency.

    Raises:
        ValueError: a table that cannot be read, missing or repeated columns, a latency that is not a number, or too
            few rows.
    """
    path = Path(settings.table)
    if path.suffix not in READERS:
        raise ValueError(f"table={path} is not allowed; allowed: a file that ends in {' or '.join(READERS)}")
    try:
        table = READERS[path.suffix](path)
    except Exception as error:  # pandas hands through whatever its readers raise
        raise ValueError(f"table={path} cannot be read: {first_line(error)}") from None
    names = [*settings.choices, settings.latency]
    if missing := [name for name in names if name not in table.columns]:
        raise ValueError(
            f"table={path} has no column {', '.join(missing)}; it has {', '.join(map(str, table.columns))}"
        )
    if len(set(names)) < len(names):
        raise ValueError(f"choices, latency: a column is named twice among {', '.join(names)}")
    try:
        latency = np.asarray(pd.to_numeric(table[settings.latency]), dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise ValueError(f"latency={settings.latency} is not a column of numbers: {first_line(error)}") from None
    usable = np.isfinite(latency) & (latency > 0)
    if settings.train + 2 > usable.sum():
        raise ValueError(f"train={settings.train} needs 2 rows more to judge by; {usable.sum()} have positive latency")
    choices = np.asarray(table[list(settings.choices)].astype(str), dtype=np.str_)
    return choices[usable], latency[usable]


def judged(guess: Guess, true: Array) -> tuple[float, float, float, float]:
    """Median and 90th percentile of the relative error, Kendall's tau, and the share of rows in their intervals."""
    error = np.abs(guess.median - true) / true
    result: Any = kendalltau(guess.median, true)
    tau = 0.0 if np.isnan(result.statistic) else float(result.statistic)  # a constant ranks nothing
    inside = np.nan
    if guess.low is not None and guess.high is not None:
        inside = float(np.mean((guess.low <= true) & (true <= guess.high)))
    return float(np.median(error)), float(np.quantile(error, 0.9)), tau, inside


def trials(choices: Choices, latency: Array, train: int, seeds: int) -> Iterator[Row]:
    """The results of each model on each split."""
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(latency))
        seen, unseen = order[:train], order[train:]
        for name, model in MODELS.items():
            start = time.perf_counter()
            guess = model(choices[seen], latency[seen], choices[unseen], seed)
            seconds = time.perf_counter() - start
            yield Row(name, *judged(guess, latency[unseen]), seconds)
        print(f"split {seed + 1} of {seeds}: done", flush=True)


def twins(choices: Choices, latency: Array) -> str:
    """What the table's own noise allows: the error of rows as rows of equal choices predict them."""
    frame = pd.DataFrame({"log": np.log(latency), "key": pd.DataFrame(choices).agg("\0".join, axis=1)})
    groups = frame.groupby("key").log
    size = groups.transform("size")
    others = (groups.transform("sum") - frame.log) / (size - 1).clip(lower=1)
    error = np.abs(np.exp(others - frame.log) - 1)[size > 1]
    if error.empty:
        return "noise ceiling: unknown, no rows have equal choices"
    low, high = error.quantile([0.5, 0.9])
    return f"noise ceiling: rows predicted by their {len(error)} twins: median_error {low:.4f}, p90_error {high:.4f}"


def run(settings: Settings) -> None:
    """Runs the benchmark, prints its table and writes its CSV.

    Raises:
        ValueError: settings that cannot be followed.
    """
    out = new_file(settings.out)
    if not settings.choices:
        raise ValueError("choices=[] is not allowed; allowed: at least one column")
    for name, value, least in (("train", settings.train, 2), ("seeds", settings.seeds, 1)):
        if value < least:
            raise ValueError(f"{name}={value} is not allowed; allowed: {least} or more")
    choices, latency = load(settings)
    grouped = pd.DataFrame(list(trials(choices, latency, settings.train, settings.seeds))).groupby("model", sort=False)
    mean = grouped.agg(dict.fromkeys([*RESULTS, "coverage", "seconds"], "mean"))
    spread = grouped.agg(dict.fromkeys(RESULTS, "std")).add_suffix("_std")
    mean.loc[list(MODELS), RESULTS].to_csv(out, index_label="model", mode="x")
    print(f"{settings.latency}: {settings.train} of {len(latency)} rows, {settings.seeds} seeds; coverage aims at 0.9")
    print(mean.join(spread).round(4).to_string(na_rep="-"))
    print(twins(choices, latency))


def main() -> int:
    """Runs the benchmark of the command line; 2 for what it cannot follow, said in one line."""
    try:
        run(from_words(sys.argv[1:], Settings))
    except (ValueError, OSError) as error:
        print(f"analysis.bench_predictor: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

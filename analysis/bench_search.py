"""How fast samplers find the Pareto front of a table that holds a whole search space.

    python -m analysis.bench_search table=nasbench_macro.parquet "choices=[l0,l1,l2,l3,l4,l5,l6,l7]" \
        accuracy=test_acc_mean cost=flops same=unique_id "samplers=[ours,tpe,nsga2,random,gp]" out=search.csv

A sampler proposes the choices of a row and is told its error and cost. `ours` is the default of `nas.search`,
`exact_cost`, which may ask the price of any row beforehand, as it can in a search, where latency is known before
training. The others are Optuna's, as their users run them; and once more, marked `+filter`, behind a filter that skips,
without an evaluation, what is known to be dominated whatever its accuracy turns out to be: a row that equals a judged
one of at most its cost.

With `fidelity=[COLUMN,...]`, errors (or accuracies) after fewer epochs, each sampler runs once more, marked
`+mo_asha`: a row that is proposed is told its error of the first such column, and the others only while it is among the
best (`nas.tune.promotion`). Then `epochs` is the share of the epochs that full trainings of all proposals would take.

Printed, and written as CSV and plot: the normalised hypervolume (`TableSpace.hypervolume`) after 25, 50, 100
evaluations and the budget, its mean and standard deviation over seeds, the share of distinct architectures, and the
seconds that a proposal takes.
"""

from __future__ import annotations

import itertools
import multiprocessing
import re
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import optuna
import pandas as pd
from omegaconf import MISSING
from scipy.optimize import brentq

from analysis.settings import from_words, new_file
from analysis.table_search import FILTER, SAMPLERS, Search, search
from analysis.table_space import TableSpace, make_space, numbers, read_table
from nas.config import first_line
from nas.cores import cores
from nas.tune.promotion import Ladder

EVALUATIONS = (25, 50, 100)
ASHA = "+mo_asha"
THRIFT = 1 / 3  # of the epochs of full trainings


@dataclass(frozen=True)
class Settings:
    """What the command line may say.

    Attributes:
        table: a file, .parquet or .csv; a row for every combination of choices.
        choices: the columns that make an architecture.
        error: the column of errors; or else
        accuracy: of accuracies, in percent or as fractions.
        cost: the column of costs.
        fidelity: columns of the same after fewer epochs, rising; or none.
        epochs: of the fidelities and of a full training; by default the numbers that end their names.
        reduction: of so many that have the same fidelity, one goes on to the next; by default such that all trainings
            take a third of the epochs that full ones take.
        same: a column that is equal for equal architectures; without it each row is one.
        samplers: which; ours, or Optuna's.
        budget: evaluations of a search; at most as many as rows are distinct.
        seeds: searches of each sampler.
        processes: searches at a time; default: as many as there are cores.
        out: CSV of the results; must not exist. The plot is beside it, with .png for .csv.
    """

    table: str = MISSING
    choices: tuple[str, ...] = MISSING
    error: str | None = None
    accuracy: str | None = None
    cost: str = MISSING
    fidelity: tuple[str, ...] = ()
    epochs: tuple[int, ...] = ()
    reduction: float | None = None
    same: str | None = None
    samplers: tuple[str, ...] = ("ours", "tpe", "nsga2", "random", "gp")
    budget: int = 100
    seeds: int = 20
    processes: int | None = None
    out: str | None = None


def compare(space: TableSpace, settings: Settings) -> pd.DataFrame:
    """All searches; a row for each sampler and number of evaluations."""
    names = [name for each in settings.samplers for name in ([each] if each == "ours" else [each, each + FILTER])]
    if settings.fidelity:
        names += [each + ASHA for each in settings.samplers]
    at = sorted({each for each in (*EVALUATIONS, settings.budget) if each <= settings.budget})
    processes, reduction = min(settings.processes or cores(), settings.seeds), reduction_of(settings)
    rows = []
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _prepare) as pool:
        for name in names:
            rungs = epochs_of(settings) if name.endswith(ASHA) else epochs_of(settings)[-1:]
            full = space if name.endswith(ASHA) else space.in_full()
            ladder = Ladder(rungs, reduction, settings.budget)
            jobs = [
                pool.submit(search, full, name.removesuffix(ASHA), settings.budget, seed, ladder)
                for seed in range(settings.seeds)
            ]
            searches = [job.result() for job in jobs]
            rows += [_row(space, name, searches, evaluations, rungs[-1]) for evaluations in at]
            print(
                pd.DataFrame(rows[-len(at) :]).round(4).to_string(index=False, header=len(rows) == len(at)), flush=True
            )
    return pd.DataFrame(rows)


def _row(
    space: TableSpace, name: str, searches: Sequence[Search], evaluations: int, full_epochs: int
) -> dict[str, object]:
    known = [[row for row, before in each.judged if before <= evaluations] for each in searches]
    volumes = np.array([space.hypervolume(rows) for rows in known])
    begun = [each.rows[:evaluations] for each in searches]
    unique = [len(set(space.same[rows].tolist())) / len(rows) for rows in begun]
    seconds = list(itertools.chain(*(each.seconds[:evaluations] for each in searches)))
    epochs = [
        each.epochs[:evaluations][-1] / (full_epochs * len(rows)) for each, rows in zip(searches, begun, strict=True)
    ]
    return {
        "sampler": name,
        "evaluations": evaluations,
        "mean": volumes.mean(),
        "std": volumes.std(ddof=1) if len(volumes) > 1 else 0.0,
        "unique": float(np.mean(unique)),
        "seconds_per_proposal": float(np.mean(seconds)),
        "epochs": float(np.mean(epochs)),
    }


def _prepare() -> None:
    """In each process: one thread, and nothing but results is printed."""
    import torch  # of Optuna's GP

    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)


def plot(table: pd.DataFrame, title: str, file: Path) -> None:
    """The hypervolume against evaluations, with standard deviations."""
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for name, rows in table.groupby("sampler", sort=False):
        style = "--" if str(name).endswith(FILTER) else "-"
        axes.errorbar(rows["evaluations"], rows["mean"], rows["std"], label=str(name), capsize=3, linestyle=style)
    axes.set(xlabel="evaluations", ylabel="normalised hypervolume", title=title)
    axes.legend()
    figure.savefig(file, dpi=120)
    plt.close(figure)


def load(settings: Settings) -> TableSpace:
    """The space of the settings' table.

    Raises:
        ValueError: settings that cannot be followed.
    """
    if unknown := [each for each in settings.samplers if each not in SAMPLERS]:
        raise ValueError(f"samplers: {unknown[0]!r} is unknown; known: {', '.join(SAMPLERS)}")
    for name, value, least in (
        ("samplers", len(settings.samplers), 1),
        ("budget", settings.budget, 1),
        ("seeds", settings.seeds, 1),
        ("processes", settings.processes or 1, 1),
        ("reduction", settings.reduction or 2, 2),
    ):
        if value < least:
            raise ValueError(f"{name}={value} is not allowed; allowed: {least} or more")
    if (settings.error is None) == (settings.accuracy is None):
        raise ValueError("exactly one of error=COLUMN and accuracy=COLUMN is needed")
    if settings.out is not None:
        new_file(settings.out, ".csv")
    table = read_table(Path(settings.table).expanduser())
    kind, full = ("error", settings.error) if settings.error is not None else ("accuracy", settings.accuracy)
    assert full is not None
    levels = [numbers(table, "fidelity", each) for each in settings.fidelity] + [numbers(table, kind, full)]
    if kind == "accuracy":
        levels = [1 - each / (100 if np.nanmax(each) > 1 else 1) for each in levels]
    reduction_of(settings)
    return make_space(table, settings.choices, levels, numbers(table, "cost", settings.cost), settings.same)


def epochs_of(settings: Settings) -> tuple[int, ...]:
    """Epochs of each fidelity and of a full training; 1 where there is but one.

    Raises:
        ValueError: they cannot be told, or do not rise.
    """
    if not settings.fidelity:
        return (1,)
    ending = [re.search(r"(\d+)$", name) for name in (*settings.fidelity, settings.error or settings.accuracy or "")]
    epochs = settings.epochs or tuple(int(each[1]) for each in ending if each)
    if len(epochs) != len(settings.fidelity) + 1 or list(epochs) != sorted(set(epochs)) or epochs[0] < 1:
        raise ValueError(
            f"epochs={list(epochs)} is not allowed; allowed: rising numbers, one for each of fidelity and a full one"
        )
    return epochs


def reduction_of(settings: Settings) -> float:
    """Of how many that have the same fidelity one goes on.

    Raises:
        ValueError: as `epochs_of`; or the first fidelity alone takes more epochs than are allowed.
    """
    *short, full = epochs_of(settings)
    if settings.reduction or not short:
        return settings.reduction or 1.0
    if short[0] >= THRIFT * full:
        raise ValueError(f"epochs={[*short, full]}: the first is over {THRIFT:.0%} of a full training; give reduction")

    def excess(reduction: float) -> float:
        return sum(each / reduction**rung for rung, each in enumerate((*short, full))) - THRIFT * full

    enough = 2 * len(short) * full / (THRIFT * full - short[0])
    return float(brentq(excess, 1.0, enough))  # pyright: ignore[reportArgumentType]


def main() -> int:
    """Runs the benchmark of the command line; 2 for what it cannot follow, said in one line."""
    try:
        settings = from_words(sys.argv[1:], Settings)
        space = load(settings)
    except (ValueError, OSError) as error:
        print(f"analysis.bench_search: {first_line(error)}", file=sys.stderr)
        return 2
    distinct = len(np.unique(space.same))
    settings = replace(settings, budget=min(settings.budget, distinct))
    print(
        f"{len(space.costs)} rows, {distinct} distinct; {settings.seeds} seeds, {settings.budget} evaluations",
        flush=True,
    )
    table = compare(space, settings)
    if settings.out is not None:
        out = Path(settings.out).expanduser()
        table.to_csv(out, index=False)
        plot(
            table,
            f"{Path(settings.table).name}: {settings.error or settings.accuracy}, {settings.cost}",
            out.with_suffix(".png"),
        )
        print(f"{out}, {out.with_suffix('.png')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

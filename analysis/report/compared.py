"""What a report tells of a run beside others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.attainment import attainment
from analysis.comparison import compare, hypervolumes
from analysis.front import completed, reference_of
from analysis.load import load_runs
from analysis.progress import progress
from nas.config import SearchConfig, first_line
from nas.config_fields import leaves
from nas.store import RunStore

MAY_DIFFER = ("run", "runs_dir", "resume", "budget")  # what may differ between repetitions, besides the seed
FEWEST = 3  # runs on each side of a test, and of attainment surfaces


@dataclass(frozen=True)
class Comparison:
    """Several runs, the report's own first.

    Attributes:
        trials: of all, see `analysis.load_runs`.
        runs: how they are called.
        differing: a row a run (index `run`), a column for each setting that is not the same for all.
        hypervolumes: see `analysis.hypervolumes`, the groups being the runs; empty if no trial is completed.
        progress: see `analysis.progress`, by run, with `share`, of the hypervolume of all fronts together.
        groups: runs that differ in their seed only, by what sets them apart.
        tests: see `analysis.compare`, of these groups; None unless there are two of them with enough runs.
        attainment: see `analysis.attainment`, by group, of those with enough runs and two objectives.
    """

    trials: pd.DataFrame
    runs: tuple[str, ...]
    differing: pd.DataFrame
    hypervolumes: pd.DataFrame
    progress: dict[str, pd.DataFrame]
    groups: dict[str, tuple[str, ...]]
    tests: pd.DataFrame | None
    attainment: dict[str, pd.DataFrame]


def compared(store: RunStore, others: Sequence[RunStore]) -> Comparison:
    """A run beside others.

    Raises:
        ValueError: a run is damaged, is given twice, has no trial that has ended, or has other objectives or metrics.
    """
    stores = [store, *others]
    try:
        trials = load_runs([each.path for each in stores])
        configs = [each.config() for each in stores]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"compare: {first_line(error)}") from None
    names = [each.name for each in stores]
    runs = tuple(name if names.count(name) == 1 else str(each.path) for name, each in zip(names, stores, strict=True))
    if empty := [run for run in runs if run not in set(trials["run"])]:
        raise ValueError(f"compare: run {empty[0]} has no trial that has ended")
    tables = {run: trials.loc[trials["run"] == run] for run in runs}
    objectives = list(configs[0].objectives)
    done = {run for run, table in tables.items() if len(completed(table, objectives))}
    differing = _differing(runs, configs)
    groups = _groups(differing)
    enough = {group: table for group, table in groups.items() if len(table) >= FEWEST and done.issuperset(table)}
    by_group = {group: trials.loc[trials["run"].isin(members)] for group, members in enough.items()}
    return Comparison(
        trials,
        runs,
        differing,
        hypervolumes(tables) if done else pd.DataFrame(columns=["run", "trials", "hypervolume"]),
        _progress(trials, tables, objectives) if done else {},
        groups,
        compare(by_group) if len(enough) > 1 else None,
        {group: attainment(table) for group, table in by_group.items()} if len(objectives) == 2 else {},
    )


def _differing(runs: Sequence[str], configs: Sequence[SearchConfig]) -> pd.DataFrame:
    words = [{key: str(value) for key, (_, value) in leaves(each).items()} for each in configs]
    keys = [key for key in words[0] if key not in MAY_DIFFER[:-1] and len({each[key] for each in words}) > 1]
    return pd.DataFrame([{key: each[key] for key in keys} for each in words], index=pd.Index(runs, name="run"))


def _groups(differing: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    apart = [key for key in differing.columns if key not in (*MAY_DIFFER, "seed")]
    groups: dict[str, list[str]] = {}
    for run, row in differing.iterrows():
        groups.setdefault(", ".join(f"{key}={row[key]}" for key in apart) or "all runs", []).append(str(run))
    return {name: tuple(members) for name, members in groups.items()}


def _progress(trials: pd.DataFrame, tables: dict[str, pd.DataFrame], objectives: list[str]) -> dict[str, pd.DataFrame]:
    """The runs' progress, all by the reference and as shares of the hypervolume of their common front."""
    reference = reference_of(trials, objectives)
    alone = {run: progress(table, reference, objectives) for run, table in tables.items()}
    shares = hypervolumes(tables, reference, objectives).set_index("run")["hypervolume"]
    best = shares.idxmax()
    whole = alone[str(best)]["hypervolume"].iloc[-1] / shares[best]
    return {run: table.assign(share=table["hypervolume"] / whole) for run, table in alone.items()}

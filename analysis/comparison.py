"""Whether groups of runs differ: samplers, schedulers, spaces."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import pandas as pd

from analysis.front import hypervolume, objectives_of, reference_of
from analysis.load import Runs, as_runs


def hypervolumes(
    runs: Mapping[str, Runs],
    reference: Sequence[float] | None = None,
    objectives: Sequence[str] | None = None,
) -> pd.DataFrame:
    """The hypervolume of each run of some groups, as a share of that of the front of all of them together.

    Args:
        runs: for each group its runs: a table of `load_runs`, or what that takes.
        reference: by default that of the front of all runs together, see `analysis.front.reference_of`.
        objectives: by default those of the runs.

    Returns:
        Columns `group`, `run`, `trials` (completed ones) and `hypervolume`, in [0, 1].

    Raises:
        ValueError: a group without runs, runs of other objectives or metrics, no completed trial, or none that is
            better than the reference.
    """
    tables = {group: _table(group, each) for group, each in runs.items()}
    if not tables:
        raise ValueError("no groups of runs are given")
    for what in ("objectives", "metric"):
        if len(kinds := {str(table.attrs.get(what)) for table in tables.values()}) > 1:
            raise ValueError(f"{what} of the groups differ: {', '.join(sorted(kinds))}")
    names = objectives_of(next(iter(tables.values())), objectives)
    union = pd.concat(list(tables.values()), ignore_index=True)
    reference = reference_of(union, names) if reference is None else reference
    whole = hypervolume(union, reference, names)
    if whole <= 0:
        raise ValueError(f"no completed trial is better than reference {list(reference)} in all of {list(names)}")
    rows = [
        {
            "group": group,
            "run": run,
            "trials": len(trials.loc[trials["state"] == "completed"]),
            "hypervolume": hypervolume(trials, reference, names) / whole,
        }
        for group, table in tables.items()
        for run, trials in table.groupby("run", sort=False)
    ]
    return pd.DataFrame(rows, columns=["group", "run", "trials", "hypervolume"])


def compare(
    runs: Mapping[str, Runs],
    reference: Sequence[float] | None = None,
    objectives: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Whether groups of runs reach different hypervolumes: one row for each pair of groups, `a` and `b`.

    Hypervolumes are those of `hypervolumes`, whose arguments these are. `p_value` is of the two-sided Mann-Whitney
    U test (exact for small groups without ties), for the pair by itself: of many pairs, some are small by chance. It
    cannot be small for few runs: three against three give 0.1 at the least, four against four 0.029, five against five
    0.008. `a12` is the chance that a run of `a` has more than one of `b`, ties counting half (Vargha and Delaney, "A
    critique and improvement of the CL common language effect size statistics of McGraw and Wong", 2000): 0.5 where
    neither is ahead.

    Returns:
        Columns `a`, `b`, `runs_a`, `runs_b`, `mean_a`, `mean_b`, `sd_a`, `sd_b` (empty for one run), `p_value`, `a12`.

    Raises:
        ValueError: fewer than two groups, or as `hypervolumes` does.
    """
    from scipy.stats import mannwhitneyu  # only now: it takes longer than all else here

    if len(runs) < 2:
        raise ValueError(f"groups {list(runs)} are too few to compare; allowed: two or more")
    table = hypervolumes(runs, reference, objectives)
    groups = {str(group): rows["hypervolume"] for group, rows in table.groupby("group", sort=False)}
    rows = []
    for (a, of_a), (b, of_b) in itertools.combinations(groups.items(), 2):
        statistic, p_value = mannwhitneyu(of_a, of_b, alternative="two-sided")
        rows.append(
            {
                **{"a": a, "b": b, "runs_a": len(of_a), "runs_b": len(of_b)},
                **{"mean_a": of_a.mean(), "mean_b": of_b.mean(), "sd_a": of_a.std(), "sd_b": of_b.std()},
                **{"p_value": float(p_value), "a12": float(statistic) / (len(of_a) * len(of_b))},
            }
        )
    return pd.DataFrame(rows)


def _table(group: str, runs: Runs) -> pd.DataFrame:
    try:
        return as_runs(runs)
    except ValueError as error:
        raise ValueError(f"group {group!r}: {error}") from None

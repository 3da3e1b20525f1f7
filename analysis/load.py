"""Loading runs as tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import pandas as pd

from nas.config import user_path
from nas.results import COLUMNS, trial_table
from nas.store import RunStore, run_path

RunPath: TypeAlias = str | Path
Runs: TypeAlias = pd.DataFrame | RunPath | Sequence[RunPath]  # a table of `load_runs`, or what that takes
ENDED_S = "ended_s"
BESIDE = (*COLUMNS, ENDED_S, "run")  # columns of a table of trials that are no choices of a space


def load_run(path: RunPath) -> pd.DataFrame:
    """The trials of a run that have ended, derived from its events: one row a trial.

    The columns are those of `nas.results.COLUMNS` (units in their names; `on_front` marks the Pareto front by
    the latest latencies), then one for each choice of the search space, empty where a trial did not have it, and
    `ended_s`: seconds from the run's first event until the trial had ended, by the clock, pauses included.
    `attrs["objectives"]` holds the names of the run's objectives, `attrs["metric"]` what its accuracy is taken of.

    Args:
        path: the run's folder, e.g. `runs/latest`.

    Raises:
        ValueError: no run is there, or its events are damaged before their last line.
    """
    store = RunStore.open(path)
    config = store.config()
    table = trial_table(store.records(), config)
    times = store.end_times()
    table[ENDED_S] = [times.get(trial, float("nan")) for trial in table["trial"]]
    table.attrs["objectives"] = list(config.objectives)
    table.attrs["metric"] = config.metric
    return table


def load_runs(runs: RunPath | Sequence[RunPath], runs_dir: RunPath = "runs") -> pd.DataFrame:
    """The trials of several runs below each other, as `load_run` gives them, with a first column `run`.

    A run goes by its name, or by its path where two have one name. `on_front` is within each run; choices that only
    some runs have are empty in the others.

    Args:
        runs: paths or names of runs, or one folder that holds runs (`runs/latest` and hidden folders are left out).
        runs_dir: where runs that are given by name lie.

    Raises:
        ValueError: there is no such run, none at all or one twice, one is damaged, or their objectives or metrics
            differ.
    """
    home = user_path("runs_dir", runs_dir)
    folders = [run_path("runs", each, home) for each in ([runs] if isinstance(runs, RunPath) else runs)]
    if isinstance(runs, RunPath) and not (folders[0] / "events.jsonl").is_file():
        folders = run_folders(user_path("runs", runs))
    if not folders:
        raise ValueError(f"no runs in {runs}" if isinstance(runs, RunPath) else "no runs are given")
    resolved = [folder.resolve() for folder in folders]
    if twice := [folder for folder, place in zip(folders, resolved, strict=True) if resolved.count(place) > 1]:
        raise ValueError(f"{twice[0]} is given twice")
    tables = [load_run(folder) for folder in folders]
    for what in ("objectives", "metric"):
        if differing := [i for i, table in enumerate(tables) if table.attrs[what] != tables[0].attrs[what]]:
            first, other = tables[0].attrs[what], tables[differing[0]].attrs[what]
            raise ValueError(f"{what} of {folders[0]} are {first}, of {folders[differing[0]]} {other}: not comparable")
    names = [place.name for place in resolved]
    labels = [name if names.count(name) == 1 else str(folder) for name, folder in zip(names, folders, strict=True)]
    merged = pd.concat(
        [table.assign(run=label) for table, label in zip(tables, labels, strict=True)], ignore_index=True
    )
    choices = [column for column in merged.columns if column not in BESIDE]
    merged = merged.reindex(columns=["run", *COLUMNS, *choices, ENDED_S])
    merged.attrs.update(tables[0].attrs)
    return merged


def as_runs(runs: Runs) -> pd.DataFrame:
    """A table of several runs' trials: as it is, or loaded.

    Raises:
        ValueError: a table without trials or the column `run`, or as `load_runs` does.
    """
    table = runs if isinstance(runs, pd.DataFrame) else load_runs(runs)
    if "run" not in table.columns or not len(table):
        raise ValueError("no trials with a column 'run'; analysis.load_runs gives them")
    return table


def run_folders(runs_dir: Path) -> list[Path]:
    """The folders of runs in a folder, by name; links such as `latest` and hidden folders are none."""
    inside = sorted(runs_dir.iterdir()) if runs_dir.is_dir() else []
    return [
        each
        for each in inside
        if not each.name.startswith(".") and not each.is_symlink() and (each / "events.jsonl").is_file()
    ]

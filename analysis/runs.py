"""`python -m analysis.runs`: the runs of a folder as a table; `remove=[NAME,...]` removes those that are named."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.table import Table
from rich.text import Text

from analysis.front import completed, hypervolume
from analysis.load import load_run, run_folders
from nas.command_line import exit_code, make, settings_from_words, table_of_keys
from nas.config import first_line, user_path
from nas.config_fields import key
from nas.console import table_console
from nas.store import NAME, RunStore

USAGE = """Lists the runs of a folder, or removes some of them.

    python -m analysis.runs
    python -m analysis.runs runs_dir=~/searches
    python -m analysis.runs "remove=[2026-11-22_10-00-00,first]"

What other runs use stays: latencies that are remembered for the device, in runs/.latency/. Nothing is removed unless
everything that is named can be.

"""
HYPERVOLUME = (
    "hypervolume: share of the box between zero and the worst values of the completed trials of all runs listed here\n"
    "that have the same space, data, metric and objectives; it is comparable among these only."
)
COLUMNS = ("run", "space", "data", "objectives", "metric", "state", "trained", "best", "hypervolume", "size_mb")
SAME = ["space", "data", "metric", "objectives"]


@dataclass(frozen=True)
class RunsConfig:
    """`python -m analysis.runs`: which runs are listed, and which are removed."""

    runs_dir: str = key("runs", "folder of all runs")
    remove: str | None = key(None, "names of runs to remove, e.g. [first,second]")


def list_runs(runs_dir: str | Path = "runs") -> pd.DataFrame:
    """The runs of a folder, by name: columns `COLUMNS`.

    `state` is "running" (a driver of this machine has it), "unfinished" (it was broken off and may be resumed),
    "ended: " with the reason, or "damaged: " with what is wrong; then nothing else is told. `trained` counts trials,
    `best` is the highest accuracy (as the metric says) of a completed one, `size_mb` (10^6 bytes) what its files take.
    `hypervolume` is the share of the box between zero and the worst values of the completed trials of all runs in
    the folder that have the same space, data, metric and objectives: comparable among these only.

    Raises:
        ValueError: there is no such folder.
    """
    folder = user_path("runs_dir", runs_dir)
    if not folder.is_dir():
        raise ValueError(f"runs_dir={runs_dir} is not a folder")
    loaded = [_row(each) for each in run_folders(folder)]
    table = pd.DataFrame([row for row, _ in loaded], columns=COLUMNS)
    trials = {row["run"]: found for row, found in loaded if found is not None}
    for _, alike in table.loc[table["run"].isin(trials)].groupby(SAME):
        for name, share in _hypervolumes({name: trials[name] for name in alike["run"]}).items():
            table.loc[table["run"] == name, "hypervolume"] = share
    return table.astype({"trained": "Int64", "best": float, "hypervolume": float, "size_mb": float})


def _row(folder: Path) -> tuple[dict[str, object], pd.DataFrame | None]:
    """What is told of a run by itself, with its trials; None of a damaged one."""
    row: dict[str, object] = {"run": folder.name, "size_mb": size_bytes(folder) / 1e6}
    try:
        store = RunStore.open(folder)
        config, trials = store.config(), load_run(folder)
        reason = store.end_reason()
        ended = "unfinished" if reason is None else f"ended: {reason}"
        state = "running" if store.being_searched() else ended
    except (ValueError, OSError, KeyError, TypeError) as error:  # whatever was done to its files, the others are listed
        return {**row, "state": f"damaged: {first_line(error)}"}, None
    done = trials.loc[trials["state"] == "completed"]
    told = {
        "space": Path(config.space).stem,
        "data": Path(config.data).name,
        "objectives": ", ".join(config.objectives),
        "metric": config.metric,
        "state": state,
        "trained": len(trials.loc[trials["state"] != "infeasible"]),
        "best": done["accuracy"].max(),
    }
    return {**row, **told}, trials


def _hypervolumes(runs: dict[str, pd.DataFrame]) -> dict[str, float]:
    """Each run's share of the box between zero and the worst values of all; empty where the box has no volume."""
    names = next(iter(runs.values())).attrs["objectives"]
    worst = pd.concat([completed(trials, names)[list(names)].astype(float) for trials in runs.values()]).max()
    volume = worst.prod(skipna=False)
    return {run: hypervolume(trials, worst.tolist(), names) / volume for run, trials in runs.items() if volume > 0}


def size_bytes(folder: Path) -> int:
    """What the files below a folder take on disk; those that vanish meanwhile, as drafts do, are left out."""
    total = 0
    for each in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += each.lstat().st_blocks * 512
    return total


def remove_runs(names: Sequence[str], runs_dir: str | Path = "runs") -> pd.DataFrame:
    """Removes runs: all that are named, or none.

    What else is in the folder stays, latencies that are remembered for other runs too. `latest` then points to the run
    that was begun or resumed last of those that are left, and is removed with the last one.

    Returns:
        What was removed: columns `run` and `size_mb`.

    Raises:
        ValueError: a name that is none of a run in the folder, or a run that is being searched; nothing is removed
            then. Or the system refused while runs were being removed.
    """
    home = user_path("runs_dir", runs_dir)
    if not names:
        raise ValueError("remove is empty; allowed: names of runs")
    folders = [_to_remove(name, home) for name in dict.fromkeys(names)]
    removed = []
    with contextlib.ExitStack() as locks:
        for folder in folders:
            locks.enter_context(_held(RunStore(folder)))
        for folder in folders:
            size_mb = size_bytes(folder) / 1e6
            # Renamed first: what is removed in part only, as by Ctrl-C, is not taken for a run.
            doomed = folder.with_name(f".{folder.name}.removed.tmp")
            try:
                folder.rename(doomed)
                shutil.rmtree(doomed)
            except OSError as error:
                raise ValueError(f"remove={folder.name}: {folder} cannot be removed: {first_line(error)}") from None
            finally:
                _mend_latest(home)
            removed.append({"run": folder.name, "size_mb": size_mb})
    return pd.DataFrame(removed, columns=["run", "size_mb"])


def _to_remove(name: str, home: Path) -> Path:
    """The folder of a run in `home`."""
    folder = home / name
    if not NAME.fullmatch(name):
        raise ValueError(f"remove={name} is not allowed; allowed: the names of runs in {home}, without a path")
    if folder.is_symlink():
        raise ValueError(f"remove={name} is a link; allowed: the run itself, {folder.resolve().name}")
    if not (folder / "events.jsonl").is_file():
        raise ValueError(f"remove={name}: {folder} is not a run: it has no events.jsonl")
    return folder


@contextlib.contextmanager
def _held(store: RunStore) -> Iterator[None]:
    """Keeps drivers out of a run that is to be removed."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(store.locked())
        except (ValueError, OSError) as error:
            raise ValueError(f"remove={store.name} is not allowed: {first_line(error)}") from None
        yield


def _mend_latest(home: Path) -> None:
    """Makes a `latest` that points to nothing point to the run begun or resumed last; both write config.yaml."""
    link = home / "latest"
    if not link.is_symlink() or link.exists():
        return
    begun = {file: file.stat().st_mtime for each in run_folders(home) if (file := each / "config.yaml").is_file()}
    if begun:
        RunStore(max(begun, key=lambda file: begun[file]).parent).point_latest()
    else:
        link.unlink()


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 0, 2 for bad input, 130 for Ctrl-C."""
    words = sys.argv[1:] if words is None else list(words)
    if any(word in ("-h", "--help", "help") for word in words):
        print(USAGE + table_of_keys(RunsConfig()))
        return 0
    return exit_code("analysis.runs", lambda: _act(make(settings_from_words(words, RunsConfig), RunsConfig)))


def _act(config: RunsConfig) -> None:
    console = table_console()
    if config.remove is not None:
        names = [name.strip() for name in config.remove.removeprefix("[").removesuffix("]").split(",")]
        for row in remove_runs([name for name in names if name], config.runs_dir).to_dict("records"):
            console.print(f"removed {row['run']}, {row['size_mb']:,.1f} MB", highlight=False, markup=False)
        return
    runs = list_runs(config.runs_dir)
    if runs.empty:
        console.print(f"no runs in {config.runs_dir}", highlight=False, markup=False)
        return
    console.print(_as_shown(runs))
    console.print(HYPERVOLUME, highlight=False)


def _as_shown(runs: pd.DataFrame) -> Table:
    several = [name for name in ("objectives", "metric") if len(set(runs[name].dropna())) > 1]
    shown = dict.fromkeys(("run", "space", "data", *several, "state"), "{}")
    shown |= {"trained": "{:,}", "best": "{:.4f}", "hypervolume": "{:.4f}", "size_mb": "{:,.1f}"}
    table = Table()
    for name, form in shown.items():
        title = {"best": "best accuracy", "size_mb": "size MB"}.get(name, name)
        table.add_column(title, justify="left" if form == "{}" else "right", overflow="fold")
    for row in runs.to_dict("records"):
        # Text, not markup: a folder may be called whatever its maker liked.
        table.add_row(*(Text("" if pd.isna(row[name]) else form.format(row[name])) for name, form in shown.items()))
    return table


if __name__ == "__main__":
    sys.exit(main())

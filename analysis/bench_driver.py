"""What a trial costs besides its own work, and whether that and the driver's memory stay as they are over a long run.

    python -m analysis.bench_driver trials=10000 "per_call=[1,20]" out=driver.csv

The trials of `space` are looked up in a table instead of being measured and trained, and Optuna's random sampler
proposes them, in `optuna` (a plain loop of ask and tell in one process), `ray` (stock Ray Tune with OptunaSearch, as
fast as it can be set up; see `analysis.driver_contestants.stock`) and `ours`, once for each of `per_call`: events,
study, journal and progress view of `nas.search`, through Ray. The latter two have two trials at a time. Each has a
process of its own, one after another.

Printed, and written as CSV, for each: the time of a trial, which is the wall time of the run over its trials without
what comes before the first proposal; its median over windows of `window` trials; that without the seconds of proposing
(in Optuna's sampler and the space); that of the last window over that of the second; the driver's memory after 1,000,
3,000 and all trials; and the seconds from the last trial's end until the results are written.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from omegaconf import MISSING

from analysis.driver_contestants import Timeline, optuna_loop, ours, stock
from analysis.settings import from_words, new_file
from nas.config import first_line
from nas.samplers import SAMPLERS
from nas.space_file import load_space

RUNS = ("optuna", "ray", "ours")
MEMORY_AT = (1_000, 3_000)


@dataclass(frozen=True)
class Settings:
    """What the command line may say.

    Attributes:
        runs: which, of optuna, ray and ours.
        trials: of a run.
        stock_trials: of `ray`, which may take long; default: as many.
        per_call: of `ours`, trials that a worker is given at a time.
        space: whose members are proposed; it needs many more than trials.
        sampler: of `ours`; the others always have `random`.
        window: trials whose time is looked at together.
        out: CSV of the figures; must not exist.
    """

    runs: tuple[str, ...] = RUNS
    trials: int = 10_000
    stock_trials: int | None = None
    per_call: tuple[int, ...] = (1, 20)
    space: str = "mobile"
    sampler: str = "random"
    window: int = 500
    out: str = MISSING


def contestants(settings: Settings, folder: Path) -> Iterator[tuple[str, Callable[[], Timeline]]]:
    """Names and what runs them, each picklable."""
    stock_trials = settings.stock_trials or settings.trials
    for name in settings.runs:
        if name == "optuna":
            yield name, partial(optuna_loop, settings.space, settings.trials)
        elif name == "ray":
            yield name, partial(stock, settings.space, stock_trials, folder)
        else:
            for per_call in settings.per_call:
                own = folder / f"per_call_{per_call}"
                own.mkdir()
                act = partial(ours, settings.space, settings.trials, own, per_call, settings.sampler)
                yield f"ours, per_call={per_call}", act


def row(name: str, line: Timeline, window: int) -> dict[str, float | str | int | None]:
    """The figures of a run."""
    ended, proposing = (
        np.array([first, *rest]) for first, rest in ((line.begun_s, line.ended_s), (0, line.proposing_s))
    )
    trials = len(line.ended_s)
    edges = np.arange(0, trials + 1, window)
    each_s, proposing_s = (np.diff(values[edges]) / window for values in (ended, proposing))
    memory = {f"rss_mb_{at}": line.rss_mb[at - 1] if at <= trials else None for at in MEMORY_AT}
    return {
        "run": name,
        "trials": trials,
        "trial_s": (ended[-1] - ended[0]) / trials,
        "median_trial_s": float(np.median(each_s)),
        "median_without_proposing_s": float(np.median(each_s - proposing_s)),
        "last_over_second": float(each_s[-1] / each_s[1]),
        "last_over_second_without_proposing": float((each_s - proposing_s)[-1] / (each_s - proposing_s)[1]),
        **memory,
        "rss_mb_end": line.rss_mb[-1],
        "finish_s": line.finish_s,
    }


def compare(settings: Settings) -> None:
    """All runs, a row each, printed and written as they end."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, act in contestants(settings, Path(folder)):
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
                rows.append(row(name, alone.submit(act).result(), settings.window))
            table = pd.DataFrame(rows)
            table.to_csv(Path(settings.out).expanduser(), index=False)
            print(table.tail(1).T.to_string(header=False), flush=True)


def check(settings: Settings) -> None:
    """Holds that the settings can be followed.

    Raises:
        ValueError: they cannot.
    """
    if unknown := [each for each in settings.runs if each not in RUNS]:
        raise ValueError(f"runs: {unknown[0]!r} is unknown; known: {', '.join(RUNS)}")
    if not settings.runs or ("ours" in settings.runs and not settings.per_call):
        raise ValueError(f"runs={list(settings.runs)}, per_call={list(settings.per_call)} leave nothing to run")
    if settings.sampler not in SAMPLERS:
        raise ValueError(f"sampler={settings.sampler} is unknown; known: {', '.join(SAMPLERS)}")
    if settings.window < 1:
        raise ValueError(f"window={settings.window} is not allowed; allowed: 1 or more")
    least = 2 * settings.window
    for key, value in (("trials", settings.trials), ("stock_trials", settings.stock_trials or settings.trials)):
        if value < least:
            raise ValueError(f"{key}={value} is not allowed; allowed: {least} or more, two windows")
    if bad := [each for each in settings.per_call if not 1 <= each <= 10_000]:
        raise ValueError(f"per_call={bad[0]} is not allowed; allowed: 1 to 10,000")
    if load_space(settings.space).size < 10 * settings.trials:
        raise ValueError(f"space={settings.space} is too small for trials={settings.trials}")
    new_file(settings.out, ".csv")


def main() -> int:
    """Runs the benchmark of the command line; 2 for what it cannot follow, said in one line."""
    try:
        settings = from_words(sys.argv[1:], Settings)
        check(settings)
    except (ValueError, OSError) as error:
        print(f"analysis.bench_driver: {first_line(error)}", file=sys.stderr)
        return 2
    compare(settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())

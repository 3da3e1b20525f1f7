"""How a search came along."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.front import completed, hypervolume, objectives_of, points, reference_of
from analysis.load import ENDED_S


def progress(
    trials: pd.DataFrame, reference: Sequence[float] | None = None, objectives: Sequence[str] | None = None
) -> pd.DataFrame:
    """What a search had reached after each trial that was trained, in the order in which they ended.

    Latencies are the latest ones: those of the front were measured again when the search had ended, so that the last
    row's hypervolume is that of `pareto_front`. No constraints are looked at.

    Args:
        trials: the trials of one run, see `load_run`.
        reference: of the hypervolume; by default a tenth of the final front's range beyond its worst values, see
            `analysis.front.reference_of`. What lies beyond it adds nothing.
        objectives: by default those of the run.

    Returns:
        Columns `trained` (1, 2, ...), `trial`, `ended_s` (seconds from the run's first event, pauses included; where
        events carry no time it is empty, and the order is that of the trials' numbers), `error`, `best_error` (both of
        completed trials) and `hypervolume` (not normalised).

    Raises:
        ValueError: the trials of several runs, unknown objectives or a reference of another length.
    """
    names = objectives_of(trials, objectives)
    if "run" in trials.columns and len(given := set(trials["run"])) > 1:
        raise ValueError(f"progress is of one run; given: {', '.join(sorted(given))}")
    timed = trials if ENDED_S in trials.columns else trials.assign(**{ENDED_S: np.nan})
    order = ["trial"] if np.isnan(timed[ENDED_S].to_numpy(dtype=float)).any() else [ENDED_S, "trial"]
    trained = timed.loc[timed["state"] != "infeasible"].sort_values(order, ignore_index=True)
    done = completed(trained, names)
    if reference is None:
        reference = reference_of(done, names) if len(done) else [1.0] * len(names)
    error = trained["error"].where(trained["state"] == "completed")
    return pd.DataFrame(
        {
            "trained": np.arange(1, len(trained) + 1),
            "trial": trained["trial"],
            ENDED_S: trained[ENDED_S],
            "error": error,
            "best_error": error.cummin().ffill(),
            "hypervolume": _reached(done, reference, names).reindex(trained.index).ffill().fillna(0.0),
        }
    )


def _reached(done: pd.DataFrame, reference: Sequence[float], objectives: Sequence[str]) -> pd.Series:
    """The hypervolume after each completed trial, by its index."""
    reached = pd.Series(0.0, index=done.index)
    front, last = done.iloc[:0], hypervolume(done.iloc[:0], reference, objectives)
    for i, point in zip(done.index, points(done, objectives), strict=True):
        # What an earlier one dominates or equals leaves the hypervolume as it was.
        if not (points(front, objectives) <= point).all(axis=1).any():
            front = pd.concat([front, done.loc[[i]]])
            last = hypervolume(front, reference, objectives)
        reached[i] = last
    return reached

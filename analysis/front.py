"""The Pareto front of a table of trials, its hypervolume and its picture."""

from __future__ import annotations

from collections.abc import Sequence

import moocore
import numpy as np
import pandas as pd

from nas.objectives import get_objectives
from nas.results import non_dominated, plot_front

__all__ = ["hypervolume", "pareto_front", "plot_front"]

OBJECTIVES = ("error", "latency_ms")


def pareto_front(trials: pd.DataFrame, objectives: Sequence[str] | None = None) -> pd.DataFrame:
    """The completed trials that no other one dominates, by the last objective; equal ones are all kept.

    Unlike the column `on_front`, this looks at no constraints and takes whichever objectives are asked for;
    by default those of the run that the table was loaded from.

    Raises:
        ValueError: unknown objectives.
    """
    objectives = _of(trials, objectives)
    done = _completed(trials, objectives)
    kept = done.loc[non_dominated(_points(done, objectives))]
    return kept.sort_values([objectives[-1], objectives[0]]).reset_index(drop=True)


def hypervolume(trials: pd.DataFrame, reference: Sequence[float], objectives: Sequence[str] | None = None) -> float:
    """The hypervolume that the completed trials dominate, not normalised.

    Args:
        trials: a table of trials.
        reference: a point that is worse in every objective, in their order and units.
        objectives: names of the objectives; by default those of the run that the table was loaded from.

    Raises:
        ValueError: unknown objectives, or a reference of another length.
    """
    objectives = _of(trials, objectives)
    if len(reference) != len(objectives):
        raise ValueError(f"reference {list(reference)} needs one value for each of {list(objectives)}")
    done = _completed(trials, objectives)
    if done.empty:
        return 0.0
    signs = _signs(objectives)
    return float(moocore.hypervolume(_points(done, objectives), ref=np.asarray(reference, dtype=float) * signs))


def _of(trials: pd.DataFrame, objectives: Sequence[str] | None) -> Sequence[str]:
    """The objectives asked for, else those of the run that the table was loaded from."""
    return objectives or trials.attrs.get("objectives", OBJECTIVES)


def _completed(trials: pd.DataFrame, objectives: Sequence[str]) -> pd.DataFrame:
    get_objectives(objectives)
    return trials.loc[trials["state"] == "completed"].dropna(subset=list(objectives))


def _signs(objectives: Sequence[str]) -> np.ndarray:
    return np.array([1.0 if each.direction == "minimize" else -1.0 for each in get_objectives(objectives)])


def _points(trials: pd.DataFrame, objectives: Sequence[str]) -> np.ndarray:
    """(n, objectives), all to be minimized."""
    return trials[list(objectives)].to_numpy(dtype=float) * _signs(objectives)

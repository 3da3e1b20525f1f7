"""The Pareto front of a table of trials, its hypervolume, its knee and its picture."""

from __future__ import annotations

from collections.abc import Sequence

import moocore
import numpy as np
import pandas as pd

from nas.knee import knee_of
from nas.objectives import get_objectives
from nas.results import non_dominated, plot_front

__all__ = ["at_latency", "completed", "hypervolume", "knee", "objectives_of", "pareto_front", "plot_front", "points"]

OBJECTIVES = ("error", "latency_ms")


def pareto_front(trials: pd.DataFrame, objectives: Sequence[str] | None = None) -> pd.DataFrame:
    """The completed trials that no other one dominates, by the last objective; equal ones are all kept.

    Unlike the column `on_front`, this looks at no constraints and takes whichever objectives are asked for;
    by default those of the run that the table was loaded from.

    Raises:
        ValueError: unknown objectives.
    """
    objectives = objectives_of(trials, objectives)
    done = completed(trials, objectives)
    kept = done.loc[non_dominated(points(done, objectives))]
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
    objectives = objectives_of(trials, objectives)
    if len(reference) != len(objectives):
        raise ValueError(f"reference {list(reference)} needs one value for each of {list(objectives)}")
    done = completed(trials, objectives)
    if done.empty:
        return 0.0
    return float(
        moocore.hypervolume(points(done, objectives), ref=np.asarray(reference, dtype=float) * signs(objectives))
    )


def reference_of(trials: pd.DataFrame, objectives: Sequence[str] | None = None) -> list[float]:
    """A reference for hypervolumes: a tenth of the front's range beyond its worst value, in each objective.

    So the ends of the front count as well, and a front of two points has a hypervolume (Ishibuchi, Imada, Setoguchi and
    Nojima, "How to specify a reference point in hypervolume calculation for fair performance comparison",
    Evolutionary Computation 26, 2018). Where the front has no range, it is a tenth of the value.

    Raises:
        ValueError: no trial is completed, or unknown objectives.
    """
    objectives = objectives_of(trials, objectives)
    front = points(pareto_front(trials, objectives), objectives)
    if not len(front):
        raise ValueError("no trial is completed, so there is no front to take a reference from")
    worst, span = front.max(axis=0), np.ptp(front, axis=0)
    beyond = np.where(span > 0, span, np.where(worst != 0, np.abs(worst), 1.0)) / 10
    return ((worst + beyond) * signs(objectives)).tolist()


def knee(trials: pd.DataFrame, objectives: Sequence[str] | None = None) -> pd.DataFrame:
    """The knee of `pareto_front`, one row: where the front bulges most; none if no trial is completed.

    The definition, with its source, is that of `nas.knee.knee_of`. Of a run's front by its constraints it is
    `knee(trials[trials.on_front])`.

    Raises:
        ValueError: unknown objectives.
    """
    objectives = objectives_of(trials, objectives)
    return knee_of(pareto_front(trials, objectives), objectives)


def at_latency(trials: pd.DataFrame, ms: float) -> pd.DataFrame:
    """The most accurate completed network at no more than so many ms, one row; of equal ones the fastest.

    It is empty where no network is as fast.

    Raises:
        ValueError: no such time.
    """
    if not ms > 0:
        raise ValueError(f"ms={ms} is not allowed; allowed: above 0")
    done = completed(trials, OBJECTIVES)
    fast = done.loc[done["latency_ms"] <= ms]
    return fast.sort_values(["error", "latency_ms"], kind="stable").head(1).reset_index(drop=True)


def objectives_of(trials: pd.DataFrame, objectives: Sequence[str] | None = None) -> Sequence[str]:
    """The objectives asked for, else those of the run that the table was loaded from, else error and latency."""
    return objectives or trials.attrs.get("objectives", OBJECTIVES)


def completed(trials: pd.DataFrame, objectives: Sequence[str]) -> pd.DataFrame:
    """The completed trials of which all objectives are known.

    Raises:
        ValueError: unknown objectives.
    """
    get_objectives(objectives)
    return trials.loc[trials["state"] == "completed"].dropna(subset=list(objectives))


def signs(objectives: Sequence[str]) -> np.ndarray:
    """(objectives,): what values are multiplied with, so that less is better."""
    return np.array([1.0 if each.direction == "minimize" else -1.0 for each in get_objectives(objectives)])


def points(trials: pd.DataFrame, objectives: Sequence[str]) -> np.ndarray:
    """(n, objectives), all to be minimized."""
    return trials[list(objectives)].to_numpy(dtype=float) * signs(objectives)

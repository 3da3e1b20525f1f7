"""The knee of a Pareto front, and when an axis is read on a logarithmic scale. No torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from nas.objectives import get_objectives

LOG_FROM = 20  # largest over smallest value from which an axis is logarithmic


def logarithmic(values: np.ndarray) -> bool:
    """Whether values are told apart better on a logarithmic axis: all positive, and more than 20-fold apart."""
    return bool(len(values) and values.min() > 0 and values.max() / values.min() > LOG_FROM)


def knee_of(front: pd.DataFrame, objectives: Sequence[str]) -> pd.DataFrame:
    """The row of a front beyond which a gain in one objective is paid for dearly in the others.

    Each objective is scaled to its range on the front, 0 for the best value and 1 for the worst; costs that are more
    than 20-fold apart on a logarithmic scale, as the axes of `nas.results.plot_front` are, errors always on a linear
    one: a cost is weighed by factors, an error by points. Of two objectives the knee is the point that lies farthest
    below the line between the front's ends (the largest bulge of Das, "On characterizing the knee of the Pareto curve
    based on normal-boundary intersection", Structural Optimization 18, 1999, with the ends at (0, 1) and (1, 0)). That
    is the least sum of scaled objectives, and so it is for more of them: farthest below the plane of equal intercepts.

    Where several are as far, as of a front of two points or one that bulges the other way, the first of them by
    objectives in their order: the most accurate one, where the error comes first.

    Args:
        front: rows that do not dominate each other.
        objectives: names of the objectives, columns of it without gaps.

    Returns:
        One row; none of an empty front, and the only one of a front of one point.

    Raises:
        ValueError: unknown objectives.
    """
    names = list(objectives)
    signs = [1.0 if each.direction == "minimize" else -1.0 for each in get_objectives(names)]
    scaled = [_scaled(front[name].to_numpy(dtype=float), name, sign) for name, sign in zip(names, signs, strict=True)]
    farness = 1 - np.sum(scaled, axis=0)
    # Rounded, for what lies on one line up to the last bits should not be told apart by them.
    ranked = front.assign(_farness=np.round(farness, 9), **{f"_{i}": values for i, values in enumerate(scaled)})
    order = ranked.sort_values(
        ["_farness", *(f"_{i}" for i in range(len(names)))], ascending=[False, *[True] * len(names)], kind="stable"
    )
    return front.loc[order.index[:1]].reset_index(drop=True)


def _scaled(values: np.ndarray, name: str, sign: float) -> np.ndarray:
    """Values from 0, the best, to 1, the worst; 0 where all are equal."""
    if not len(values):
        return values
    told = np.log(values) if name != "error" and logarithmic(values) else values
    told = sign * told
    span = told.max() - told.min()
    return (told - told.min()) / span if span > 0 else np.zeros_like(told)

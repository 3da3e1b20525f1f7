"""Expected hypervolume improvement where only the error is uncertain: costs are known.

What a candidate of certain costs c and of error e would add is, over all costs from c on, how far e is below the least
error that the front has at these costs. So the expectation is a sum over the front's levels of error: how much of the
costs lies at a level, times how far the error is expected below that level. The textbook improvement, of all
objectives being uncertain (Emmerich et al. 2006), is this one's integral over costs, which nobody has to guess here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nas.samplers.gaussian_process import Array

POINTS = 1024  # at which costs are looked at where there are several


class Front(NamedTuple):
    """What is to be improved on.

    Attributes:
        costs: (m, costs), of networks that were judged; they need not be non-dominated.
        errors: (m,).
        reference_costs: (costs,), beyond which nothing counts.
        reference_error: likewise.
    """

    costs: Array
    errors: Array
    reference_costs: Array
    reference_error: float


def expected_improvement(costs: Array, errors: Array, weights: Array, front: Front) -> Array:
    """By how much candidates are expected to add to the front's hypervolume, (n,), in units of error times costs.

    Args:
        costs: (n, costs), certain.
        errors: (n, k), what each one's error may be.
        weights: (k,), how probable each of these is.
        front: what is there.
    """
    levels, shares = (_along if costs.shape[1] == 1 else _among)(costs, front)
    gain = np.zeros(len(costs))
    for level, share in zip(levels, shares.T, strict=True):
        gain += share * (np.maximum(level - errors, 0) @ weights)
    return gain


def staircase(costs: Array, errors: Array) -> tuple[Array, Array]:
    """The costs (m,) in rising order at which the least error (m,) falls, and these errors."""
    order = np.lexsort((errors, costs))
    least = np.minimum.accumulate(errors[order])
    falls = np.concatenate([[True], least[1:] < least[:-1]]) if len(order) else np.zeros(0, dtype=bool)
    return costs[order][falls], least[falls]


def _along(costs: Array, front: Front) -> tuple[Array, Array]:
    """The front's levels of error (levels,), and how much of the one cost each candidate could have each for."""
    steps, errors = staircase(front.costs[:, 0], front.errors)
    edges = np.concatenate([[-np.inf], steps, [np.inf]])
    levels = np.concatenate([[front.reference_error], np.minimum(errors, front.reference_error)])
    low, high = np.maximum(edges[:-1], costs), np.minimum(edges[1:], front.reference_costs[0])
    return levels, np.maximum(high - low, 0)


def _among(costs: Array, front: Front) -> tuple[Array, Array]:
    """The same for several costs: how much of their box, looked at in random points, always the same ones."""
    least = np.vstack([costs, front.costs]).min(axis=0)
    extent = np.maximum(front.reference_costs - least, 0)
    points = least + extent * np.random.default_rng(0).random((POINTS, costs.shape[1]))
    had = (front.costs[None] <= points[:, None]).all(axis=2)  # (points, m)
    at = np.where(had, front.errors, front.reference_error).min(axis=1, initial=front.reference_error)
    levels, level = np.unique(at, return_inverse=True)
    reached = (costs[:, None] <= points[None]).all(axis=2).astype(np.float64)  # (n, points)
    belongs: NDArray[np.float64] = np.eye(len(levels))[level]
    return levels, extent.prod() / POINTS * (reached @ belongs)

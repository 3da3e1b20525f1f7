"""A Gaussian process of errors over choices and costs.

Its covariance is a constant, a linear part in some columns (costs: error falls with them nearly everywhere), and a
smooth part (squared exponential) in which each group of columns, such as the options of one choice, has a length of its
own. Hyperparameters are those of the highest posterior, under priors weak enough to be overruled by some tens of rows
(Rasmussen and Williams 2006, chapter 5). scikit-learn's has neither groups nor priors, and without priors few rows are
fitted too closely.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.optimize import minimize

Array = NDArray[np.float64]

SEARCH_STEPS = 30
SEARCH_ROWS = 250  # the search is cubic in rows, and more rows hardly change what it finds
JITTER = 1e-6
CONSTANT, SMOOTH, LINEAR, NOISE = range(4)  # places in a vector of hyperparameters, all logarithms; then the groups'


class Normal(NamedTuple):
    """Independent normal distributions, by their means and standard deviations, (n,) each."""

    mean: Array
    deviation: Array


class Columns(NamedTuple):
    """Rows of numbers.

    Attributes:
        values: (n, columns).
        groups: (columns,), the number of each column's group, from 0 and without a gap.
        linear: (columns,), whether it is in the linear part.
    """

    values: Array
    groups: NDArray[np.intp]
    linear: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class GaussianProcess:
    """A process that has seen its rows.

    Attributes:
        seen: the rows.
        theta: hyperparameters.
        held_out: of each row, as all others predict it.
    """

    seen: Columns
    theta: Array
    held_out: Normal
    _factor: tuple[Array, bool]
    _weights: Array
    _offset: float
    _unit: float

    def predict(self, rows: Array) -> Normal:
        """The target of rows (n, columns) without noise."""
        kernel = _covariance(self.theta, rows, self.seen.values, self.seen).total
        explained = np.einsum("ij,ji->i", kernel, cho_solve(self._factor, kernel.T))
        own = np.exp(self.theta[CONSTANT]) + np.exp(self.theta[SMOOTH])
        own = own + np.exp(self.theta[LINEAR]) * np.square(rows[:, self.seen.linear]).sum(axis=1)
        deviation = np.sqrt(np.maximum(own - explained, 1e-10))
        return Normal(self._offset + self._unit * (kernel @ self._weights), self._unit * deviation)


def fit_process(seen: Columns, target: Array, theta: Array | None, search: bool, seed: int) -> GaussianProcess:
    """The process of rows and their targets.

    Args:
        seen: the rows, columns about centred.
        target: (n,).
        theta: hyperparameters to begin the search with, or to take as they are.
        search: whether hyperparameters are searched.
        seed: of the rows that are searched on, where there are many.
    """
    offset, unit = float(target.mean()), max(float(target.std()), 1e-9)
    y = (target - offset) / unit
    start = _start(seen)
    theta = start if theta is None or len(theta) != len(start) else theta
    if search:
        rows = np.random.default_rng(seed).permutation(len(y))[:SEARCH_ROWS]
        theta = _search(seen._replace(values=seen.values[rows]), y[rows], theta)
    kernel = _covariance(theta, seen.values, seen.values, seen).total
    factor = cho_factor(kernel + (np.exp(theta[NOISE]) + JITTER) * np.eye(len(y)), lower=True)
    weights = cho_solve(factor, y)
    variance = 1 / np.diag(cho_solve(factor, np.eye(len(y))))  # section 5.4.2
    held_out = Normal(target - unit * weights * variance, unit * np.sqrt(variance))
    return GaussianProcess(seen, theta, held_out, factor, weights, offset, unit)


class _Covariance(NamedTuple):
    total: Array
    smooth: Array
    linear: Array


def _covariance(theta: Array, left: Array, right: Array, columns: Columns) -> _Covariance:
    scale = np.exp(theta[NOISE + 1 :] / 2)[columns.groups]
    a, b = left * scale, right * scale
    distance = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1)[None] - 2 * a @ b.T
    smooth = np.exp(theta[SMOOTH] - np.maximum(distance, 0))
    linear = np.exp(theta[LINEAR]) * (left[:, columns.linear] @ right[:, columns.linear].T)
    return _Covariance(np.exp(theta[CONSTANT]) + smooth + linear, smooth, linear)


def _start(columns: Columns) -> Array:
    """The middle of the prior."""
    groups = int(columns.groups.max()) + 1
    return np.array([-1.0, 0.0, -1.0, -4.0, *[np.log(0.5 / np.sqrt(groups))] * groups])


def _search(seen: Columns, y: Array, theta: Array) -> Array:
    prior, wide = _start(seen), np.array([1.5, 1.0, 1.5, 2.0, *[1.5] * (len(theta) - NOISE - 1)])
    x, groups = seen.values, len(theta) - NOISE - 1

    def loss(theta: Array) -> tuple[float, Array]:
        """Minus the log posterior, and its slopes."""
        kernel, noise = _covariance(theta, x, x, seen), np.exp(theta[NOISE])
        try:
            factor = cho_factor(kernel.total + (noise + JITTER) * np.eye(len(y)), lower=True)
        except LinAlgError:
            return 1e10, np.zeros_like(theta)
        inverse = cho_solve(factor, np.eye(len(y)))
        weights = inverse @ y
        curvature = (inverse - np.outer(weights, weights)) / 2
        bent = curvature * kernel.smooth
        # The sum over pairs of bent * (squared distance in a column), without the distances.
        by_column = 2 * (np.square(x) * bent.sum(axis=1)[:, None] - x * (bent @ x)).sum(axis=0)
        lengths = -np.exp(theta[NOISE + 1 :]) * np.bincount(seen.groups, by_column, groups)
        levels = np.exp(theta[CONSTANT]) * curvature.sum(), bent.sum(), (curvature * kernel.linear).sum()
        off = (theta - prior) / wide
        slopes = np.array([*levels, noise * np.trace(curvature), *lengths]) + off / wide
        half_determinant = np.log(np.diag(factor[0])).sum()
        return float(y @ weights / 2 + half_determinant + off @ off / 2), slopes

    bounds = np.column_stack([prior - 4 * wide, prior + 4 * wide])
    return minimize(loss, theta, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": SEARCH_STEPS}).x

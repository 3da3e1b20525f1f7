"""A Gaussian process of errors over choices and costs.

Its covariance is a constant, a linear part in some columns (costs: error falls with them nearly everywhere), and a
smooth part (squared exponential) in which each group of columns, such as the options of one choice, has a length of its
own, and each option that several choices have in common another: what is unlike the rest in one layer often is so in
every layer. Hyperparameters are those of the highest posterior, under priors weak enough to be overruled by some tens
of rows (Rasmussen and Williams 2006, chapter 5). scikit-learn's has neither groups nor priors, and without priors few
rows are fitted too closely.
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
# Places in a vector of hyperparameters, all logarithms; then the groups' lengths, then the options'.
CONSTANT, SMOOTH, LINEAR, NOISE = range(4)


class Normal(NamedTuple):
    """Independent normal distributions, by their means and standard deviations, (n,) each."""

    mean: Array
    deviation: Array


class Columns(NamedTuple):
    """Rows of numbers.

    Attributes:
        values: (n, columns).
        groups: (columns,), the number of each column's group, from 0 and without a gap.
        options: (columns,), the number of the option that it says is taken, where several choices have it in common;
            from 0 and without a gap, -1 for all other columns.
        linear: (columns,), whether it is in the linear part.
    """

    values: Array
    groups: NDArray[np.intp]
    options: NDArray[np.intp]
    linear: NDArray[np.bool_]

    @property
    def sizes(self) -> tuple[int, int]:
        """How many groups and how many options there are."""
        return int(self.groups.max()) + 1, int(self.options.max()) + 1

    def alike(self, other: Columns) -> bool:
        """Whether these are the same columns, of other rows perhaps."""
        return np.array_equal(self.groups, other.groups) and np.array_equal(self.options, other.options)


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
    theta = _prior(seen)[0] if theta is None else theta
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
    scale = np.sqrt(_lengths(theta, columns))
    a, b = left * scale, right * scale
    distance = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1)[None] - 2 * a @ b.T
    smooth = np.exp(theta[SMOOTH] - np.maximum(distance, 0))
    linear = np.exp(theta[LINEAR]) * (left[:, columns.linear] @ right[:, columns.linear].T)
    return _Covariance(np.exp(theta[CONSTANT]) + smooth + linear, smooth, linear)


def _lengths(theta: Array, columns: Columns) -> Array:
    """What a squared distance in each column is multiplied by: that of its group, times that of its option if any."""
    groups, _ = columns.sizes
    of_groups, of_options = theta[NOISE + 1 :][:groups], np.append(theta[NOISE + 1 :][groups:], 0.0)
    return np.exp(of_groups[columns.groups] + of_options[columns.options])


def _prior(columns: Columns) -> tuple[Array, Array]:
    """The middle of the prior, where every search begins, and its standard deviations."""
    groups, options = columns.sizes
    middle = [-1.0, 0.0, -1.0, -4.0, *[np.log(0.5 / np.sqrt(groups))] * groups, *[0.0] * options]
    return np.array(middle), np.array([1.5, 1.0, 1.5, 2.0, *[1.5] * groups, *[1.0] * options])


def _search(seen: Columns, y: Array, theta: Array) -> Array:
    middle, wide = _prior(seen)
    bounds = np.column_stack([middle - 4 * wide, middle + 4 * wide])
    options = {"maxiter": SEARCH_STEPS}
    return minimize(minus_log_posterior, theta, (seen, y), "L-BFGS-B", jac=True, bounds=bounds, options=options).x


def minus_log_posterior(theta: Array, seen: Columns, y: Array) -> tuple[float, Array]:
    """Minus the logarithm of how probable hyperparameters are, but for a constant, and its slopes.

    Args:
        theta: hyperparameters.
        seen: the rows.
        y: (n,), their targets, of mean 0 and deviation 1.
    """
    middle, wide = _prior(seen)
    kernel, noise = _covariance(theta, seen.values, seen.values, seen), np.exp(theta[NOISE])
    try:
        factor = cho_factor(kernel.total + (noise + JITTER) * np.eye(len(y)), lower=True)
    except LinAlgError:
        return 1e10, np.zeros_like(theta)
    inverse = cho_solve(factor, np.eye(len(y)))
    weights = inverse @ y
    curvature = (inverse - np.outer(weights, weights)) / 2
    levels = np.exp(theta[CONSTANT]) * curvature.sum(), (curvature * kernel.linear).sum()
    bent = curvature * kernel.smooth
    lengths = _slopes_of_lengths(theta, seen, bent)
    off = (theta - middle) / wide
    slopes = np.array([levels[0], bent.sum(), levels[1], noise * np.trace(curvature), *lengths]) + off / wide
    half_determinant = np.log(np.diag(factor[0])).sum()
    return float(y @ weights / 2 + half_determinant + off @ off / 2), slopes


def _slopes_of_lengths(theta: Array, seen: Columns, bent: Array) -> Array:
    """The sum over pairs of `bent` (n, n) * squared distance, by group and by option, without the distances."""
    x, (groups, options), shared = seen.values, seen.sizes, seen.options >= 0
    by_column = 2 * (np.square(x) * bent.sum(axis=1)[:, None] - x * (bent @ x)).sum(axis=0)
    slopes = -_lengths(theta, seen) * by_column
    by_option = np.bincount(seen.options[shared], slopes[shared], options)
    return np.append(np.bincount(seen.groups, slopes, groups), by_option).astype(np.float64)

"""The two Gaussian processes of `nas.latency.regression`: their kernel, noise and hyperparameters.

A covariance is a constant and, for each group of columns, a linear and a smooth (squared exponential) part, each with
an amplitude of its own. Sums and counts make two groups: once in one common unit, in which large columns weigh most,
which is right where all are about costs; and once each column in its own, which trusts no unit. Which of them counts is
found with the other hyperparameters (Rasmussen and Williams 2006, chapter 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.optimize import minimize
from sklearn.metrics.pairwise import euclidean_distances

Array = NDArray[np.float64]

SEARCH_STEPS = 60
FREEDOM = 4.0  # degrees of freedom of the Student's t noise
FLOOR = 0.1  # predictions in ms are at least this share of the lowest latency seen: sums may extrapolate below 0
SPREADS = (1e-4, 3.0)  # of log latency: look-up tables are exact, arithmetic is not; far from all rows anything may be
CONSTANT, NOISE = 0, 1  # places in a vector of hyperparameters, all logarithms; then three for each group of columns


class Logs(NamedTuple):
    """Predictions of log latency (of latency in units of the training rows' median), with standard deviations."""

    mean: Array
    spread: Array


class _Grams(NamedTuple):
    """Inner products and squared distances of two sets of rows, over one group of columns."""

    products: Array
    distances: Array


class _Process(NamedTuple):
    """A Gaussian process that has seen its rows: `floor` is None for log latency, else the lowest value predicted."""

    theta: Array
    inverse: Array
    weights: Array
    offset: float
    floor: float | None

    def logs(self, mean: Array, variance: Array) -> Logs:
        """Log latency as it would be measured, from values of this process about its offset."""
        value = mean + self.offset if self.floor is None else np.maximum(mean + self.offset, self.floor)
        relative = variance if self.floor is None else variance / value**2
        spread = np.sqrt(np.maximum(relative, 0) + np.exp(self.theta[NOISE]))
        return Logs(value if self.floor is None else np.log(value), np.clip(spread, *SPREADS))

    def predict(self, grams: Sequence[_Grams], own: Sequence[Array]) -> Logs:
        """Log latency of rows, given their relation to the training rows and their own squared lengths by group."""
        kernel, _ = _kernel(self.theta, grams)
        amplitudes = np.exp(self.theta)
        variance = amplitudes[CONSTANT] - np.einsum("ij,ij->i", kernel @ self.inverse, kernel)
        for group, lengths in enumerate(own):
            variance = variance + amplitudes[2 + 3 * group] * lengths + amplitudes[3 + 3 * group]
        return self.logs(kernel @ self.weights, variance)


class Pair(NamedTuple):
    """The two processes, and the features of the rows that they have seen."""

    features: Array
    log: _Process
    ms: _Process

    def predict(self, rows: Array) -> tuple[Logs, Logs]:
        """Log latency by either process."""
        grams = _grams(rows, self.features, self.features)
        own = [np.square(part).sum(axis=1) for part in _parts(rows, self.features)]
        return self.log.predict(grams, own), self.ms.predict(grams, own)


def hyperparameters(training: Array) -> int:
    """How many a process of these rows has."""
    return 2 + 3 * len(_parts(training, training))


def _parts(rows: Array, training: Array) -> list[Array]:
    """The groups of columns, about the training rows' means, in units in which a typical row has length 1.

    Args:
        rows: (n, d).
        training: (m, d), rows whose means and deviations count.

    Returns:
        (n, columns of the group) each: choices (zeros and ones); all others in one common unit; the same, each in its
        own. There is one group at least.
    """
    varying = np.ptp(training, axis=0) > 1e-9 * np.abs(training).max(axis=0)
    binary = ((training == 0) | (training == 1)).all(axis=0)
    groups = []
    # rare choices stay as they are: in units of their deviation they would outweigh the common ones
    for kind, alone in ((varying & binary, False), (varying & ~binary, False), (varying & ~binary, True)):
        if kind.any():
            seen = training[:, kind]
            unit = seen.std(axis=0) * np.sqrt(kind.sum()) if alone else np.sqrt(seen.var(axis=0).sum())
            groups.append(np.ascontiguousarray((rows[:, kind] - seen.mean(axis=0)) / unit))
    return groups or [np.zeros((len(rows), 1))]


def _grams(left: Array, right: Array, training: Array) -> list[_Grams]:
    pairs = zip(_parts(left, training), _parts(right, training), strict=True)
    return [_Grams(a @ b.T, euclidean_distances(a, b, squared=True)) for a, b in pairs]


def _kernel(theta: Array, grams: Sequence[_Grams]) -> tuple[Array, list[Array]]:
    """Covariances, and their derivatives by the constant, then by each group's linear, smooth and length."""
    derivatives = [np.full(grams[0].products.shape, np.exp(theta[CONSTANT]))]
    total = derivatives[0].copy()
    for group, (products, distances) in enumerate(grams):
        linear, smooth, length = theta[2 + 3 * group : 5 + 3 * group]
        scaled = distances * np.exp(-2 * length)
        derivatives += [np.exp(linear) * products, np.exp(smooth - scaled / 2)]
        total += derivatives[-2] + derivatives[-1]
        derivatives.append(derivatives[-1] * scaled)
    return total, derivatives


def _inverse(covariance: Array) -> tuple[Array, float]:
    """The inverse, and half the logarithm of the determinant."""
    jitter = 1e-10 * np.trace(covariance) / len(covariance)
    factor = cho_factor(covariance + jitter * np.eye(len(covariance)), lower=True)
    return cho_solve(factor, np.eye(len(covariance))), float(np.log(np.diag(factor[0])).sum())


def _search(grams: Sequence[_Grams], target: Array, noise: Array) -> Array:
    """Hyperparameters of the highest marginal likelihood, under weak priors that settle what few rows leave open."""
    power, relative = np.log(max(np.mean(target**2), 1e-8)), np.log(max(np.mean(target**2 / noise), 1e-8))
    groups = len(grams)
    start = np.array([power - 0.7, relative - 3, *[power - 0.7, power - 2.3, 0.4] * groups])
    deviation = np.array([3.0, 3.0, *[3.0, 3.0, 1.0] * groups])

    def loss(theta: Array) -> tuple[float, Array]:
        kernel, derivatives = _kernel(theta, grams)
        noises = np.exp(theta[NOISE]) * noise
        off = (theta - start) / deviation
        try:
            inverse, half_determinant = _inverse(kernel + np.diag(noises))
        except LinAlgError:
            return 1e10, np.zeros_like(theta)
        weights = inverse @ target
        curvature = (inverse - np.outer(weights, weights)) / 2
        slopes = [float(np.vdot(curvature, each)) for each in derivatives]
        slopes.insert(NOISE, float(np.diag(curvature) @ noises))
        return float(target @ weights / 2 + half_determinant + off @ off / 2), np.array(slopes) + off / deviation

    bounds = np.column_stack([start - 4 * deviation, start + 2.5 * deviation])
    return minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": SEARCH_STEPS}).x


def _process(
    grams: Sequence[_Grams], target: Array, noise: Array, theta: Array | None, floor: float | None
) -> _Process:
    """The process of targets with noise in these proportions; its hyperparameters are searched unless given."""
    offset = float(np.average(target, weights=1 / noise))
    theta = _search(grams, target - offset, noise) if theta is None else theta
    inverse, _ = _inverse(_kernel(theta, grams)[0] + np.diag(np.exp(theta[NOISE]) * noise))
    return _Process(theta, inverse, inverse @ (target - offset), offset, floor)


def pair_of(x: Array, y: Array, thetas: tuple[Array, Array] | tuple[None, None], whole: Array | None = None) -> Pair:
    """Both processes of latencies in units of their median; hyperparameters are searched unless given.

    Columns are grouped and scaled by all these rows, or by `whole`, of which they are a part.
    """
    grams, target = _grams(x, x, x if whole is None else whole), np.log(y)
    log = _process(grams, target, np.ones_like(y), thetas[0], None)
    errors = log.weights / np.diag(log.inverse)  # of each row as the others predict it (section 5.4.2)
    squares = errors**2 / max(np.median(errors**2) / 0.455, 1e-12)  # 0.455: the median of chi squared
    doubt = np.maximum(1, (FREEDOM + squares) / (FREEDOM + 1))
    log = _process(grams, target, doubt, log.theta, None)
    # noise is relative to the latency without noise, taken as midway (in logs) from the measured to the predicted
    noise = doubt * y**2 * np.exp(-np.clip(log.weights / np.diag(log.inverse), -3, 3))
    return Pair(x, log, _process(grams, y, noise, thetas[1], FLOOR * float(y.min())))

"""A regression of latency on features of networks, with intervals, from as few as a handful of measured networks.

Two Gaussian processes (Rasmussen and Williams 2006), one of log latency, one of latency in ms, are averaged on the log
scale with the share that cross-validation favours. On most devices latency is a sum over layers, which only the process
in ms can represent; where effects multiply, the other one is right. In both, noise is relative, since error is judged
relatively, and rows far off weigh less (as under Student's t noise), since a stall is not the network's.
scikit-learn's process has neither noise that is fitted and differs by row nor amplitudes by group of columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.optimize import minimize
from scipy.stats import t as student
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.model_selection import KFold

Array = NDArray[np.float64]

COVERAGE = 0.9  # of the intervals
FOLDS = 10
FEWEST_ROWS = 10  # to cross-validate
FEW_ROWS = 50  # whose quantiles are too uncertain to make an interval narrower than Student's t does
SEARCH_ROWS = 200  # the search for hyperparameters is cubic in rows, and more rows hardly change what it finds
SEARCH_STEPS = 60
FREEDOM = 4.0  # degrees of freedom of the Student's t noise
FLOOR = 0.1  # predictions in ms are at least this share of the lowest latency seen: sums may extrapolate below 0
SPREADS = (1e-4, 3.0)  # of log latency: look-up tables are exact, arithmetic is not; far from all rows anything may be
CONSTANT, NOISE = 0, 1  # places in a vector of hyperparameters, all logarithms; then three for each group of columns


@dataclass(frozen=True)
class Prediction:
    """Predicted latencies, with intervals that hold 90 % of what is measured.

    Attributes:
        median_ms: (n,), ms, positive.
        low_ms: (n,), ms; at most the median.
        high_ms: (n,), ms; at least the median.
    """

    median_ms: Array
    low_ms: Array
    high_ms: Array


class _Logs(NamedTuple):
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

    def logs(self, mean: Array, variance: Array) -> _Logs:
        """Log latency as it would be measured, from values of this process about its offset."""
        value = mean + self.offset if self.floor is None else np.maximum(mean + self.offset, self.floor)
        relative = variance if self.floor is None else variance / value**2
        spread = np.sqrt(np.maximum(relative, 0) + np.exp(self.theta[NOISE]))
        return _Logs(value if self.floor is None else np.log(value), np.clip(spread, *SPREADS))

    def predict(self, grams: Sequence[_Grams], own: Sequence[Array]) -> _Logs:
        """Log latency of rows, given their relation to the training rows and their own squared lengths by group."""
        kernel, _ = _kernel(self.theta, grams)
        amplitudes = np.exp(self.theta)
        variance = amplitudes[CONSTANT] - np.einsum("ij,ij->i", kernel @ self.inverse, kernel)
        for group, lengths in enumerate(own):
            variance = variance + amplitudes[2 + 3 * group] * lengths + amplitudes[3 + 3 * group]
        return self.logs(kernel @ self.weights, variance)


class _Pair(NamedTuple):
    """The two processes, and the features of the rows that they have seen."""

    features: Array
    log: _Process
    ms: _Process

    def predict(self, rows: Array) -> tuple[_Logs, _Logs]:
        """Log latency by either process."""
        grams = _grams(rows, self.features, self.features)
        own = [np.square(part).sum(axis=1) for part in _parts(rows, self.features)]
        return self.log.predict(grams, own), self.ms.predict(grams, own)


@dataclass(frozen=True, eq=False)
class LatencyRegression:
    """A fitted model: training rows and what `fit` chose; all else follows from these.

    Attributes:
        features: (n, d), of the training rows.
        latency_ms: (n,), of the training rows, ms.
        log_theta: hyperparameters of the process of log latency, logarithms.
        ms_theta: hyperparameters of the process of latency in ms, logarithms.
        chosen: the share of the latter, and the bounds of intervals in standard deviations, low and high.
    """

    features: Array
    latency_ms: Array
    log_theta: Array
    ms_theta: Array
    chosen: Array

    @cached_property
    def _pair(self) -> _Pair:
        return _pair(self.features, self.latency_ms / np.median(self.latency_ms), (self.log_theta, self.ms_theta))

    def predict(self, features: ArrayLike) -> Prediction:
        """Latencies of networks.

        Args:
            features: (n, d), in the columns of the training rows.

        Raises:
            ValueError: another number of columns, or values that are not finite.
        """
        rows = _matrix(features)
        if rows.shape[1] != self.features.shape[1]:
            raise ValueError(f"features: {rows.shape[1]} columns; the model was fitted on {self.features.shape[1]}")
        share, low, high = self.chosen
        logs = _blended(share, *self._pair.predict(rows))
        unit = np.median(self.latency_ms)
        return Prediction(*(unit * np.exp(logs.mean + bound * logs.spread) for bound in (0.0, low, high)))

    def to_dict(self) -> dict[str, Any]:
        """The model for JSON; `from_dict` needs no search."""
        return {name: value.tolist() for name, value in asdict(self).items()}

    @staticmethod
    def from_dict(stored: Mapping[str, Any]) -> LatencyRegression:
        """The model that `to_dict` gave.

        Raises:
            ValueError: missing or malformed values.
        """
        names = [field.name for field in fields(LatencyRegression)]
        if missing := [name for name in names if name not in stored]:
            raise ValueError(f"a stored regression lacks {', '.join(missing)}")
        features, latency_ms = _checked(stored["features"], stored["latency_ms"])
        size = 2 + 3 * len(_parts(features, features))
        vectors = [np.asarray(stored[name], dtype=np.float64) for name in names[2:]]
        for name, vector, length in zip(names[2:], vectors, (size, size, 3), strict=True):
            if vector.shape != (length,) or not np.isfinite(vector).all():
                raise ValueError(f"{name}: must be {length} finite numbers")
        return LatencyRegression(features, latency_ms, *vectors)


def fit(features: ArrayLike, latency_ms: ArrayLike, seed: int = 0) -> LatencyRegression:
    """Fits latency to features, in a few seconds for 500 rows of 200 features.

    Columns of zeros and ones (choices) and all others (counts, sums) are two groups, weighed apart.

    Args:
        features: (n, d); non-negative additive ones (counts, sums of MACs, choices as zeros and ones) suit best.
        latency_ms: (n,), ms.
        seed: of the folds, and of the rows that hyperparameters are searched on where there are more than 200.

    Raises:
        ValueError: fewer than two rows, other shapes, values that are not finite, latencies that are not positive.
    """
    x, latency = _checked(features, latency_ms)
    y = latency / np.median(latency)
    chosen = _cross_validated(x, y, seed)
    return LatencyRegression(x, latency, *_thetas(x, y, seed), chosen)


def _matrix(features: ArrayLike) -> Array:
    # one memory layout, so that a stored model computes the very same sums
    array = np.ascontiguousarray(features, dtype=np.float64)
    if array.ndim != 2 or not np.isfinite(array).all():
        raise ValueError(f"features: must be finite numbers of shape (n, d), not of shape {array.shape}")
    return array


def _checked(features: ArrayLike, latency_ms: ArrayLike) -> tuple[Array, Array]:
    x, latency = _matrix(features), np.ascontiguousarray(latency_ms, dtype=np.float64)
    if len(x) < 2 or latency.shape != (len(x),):
        raise ValueError(f"latency_ms: shape {latency.shape} for {len(x)} rows of features; two rows at least")
    if not (np.isfinite(latency).all() and (latency > 0).all()):
        raise ValueError("latency_ms: must be positive and finite")
    return x, latency


def _parts(rows: Array, training: Array) -> list[Array]:
    """The groups of columns, about the training rows' means, in units in which a typical row has length 1."""
    varying = np.ptp(training, axis=0) > 1e-9 * np.abs(training).max(axis=0)
    binary = ((training == 0) | (training == 1)).all(axis=0)
    groups = []
    for kind in (varying & binary, varying & ~binary):
        seen, part = training[:, kind], rows[:, kind]
        # rare choices stay as they are: in units of their deviation they would outweigh the common ones
        unit = np.sqrt(seen.var(axis=0).sum()) if binary[kind].all() else seen.std(axis=0) * np.sqrt(kind.sum())
        if kind.any():
            groups.append(np.ascontiguousarray((part - seen.mean(axis=0)) / unit))
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


def _pair(x: Array, y: Array, thetas: tuple[Array, Array] | tuple[None, None], whole: Array | None = None) -> _Pair:
    """Both processes of latencies in units of their median; hyperparameters are searched unless given.

    Columns are grouped and scaled by all these rows, or by `whole`, of which they are a part.
    """
    grams, target = _grams(x, x, x if whole is None else whole), np.log(y)
    log = _process(grams, target, np.ones_like(y), thetas[0], None)
    errors = log.weights / np.diag(log.inverse)  # of each row as the others predict it (ibid., section 5.4.2)
    squares = errors**2 / max(np.median(errors**2) / 0.455, 1e-12)  # 0.455: the median of chi squared
    doubt = np.maximum(1, (FREEDOM + squares) / (FREEDOM + 1))
    log = _process(grams, target, doubt, log.theta, None)
    # noise is relative to the latency without noise, taken as midway (in logs) from the measured to the predicted
    noise = doubt * y**2 * np.exp(-np.clip(log.weights / np.diag(log.inverse), -3, 3))
    return _Pair(x, log, _process(grams, y, noise, thetas[1], FLOOR * float(y.min())))


def _thetas(x: Array, y: Array, seed: int) -> tuple[Array, Array]:
    rows = np.random.default_rng(seed).permutation(len(x))[:SEARCH_ROWS] if len(x) > SEARCH_ROWS else np.arange(len(x))
    pair = _pair(x[rows], y[rows], (None, None), whole=x)
    return pair.log.theta, pair.ms.theta


def _blended(share: float, log: _Logs, ms: _Logs) -> _Logs:
    return _Logs(*((1 - share) * a + share * b for a, b in zip(log, ms, strict=True)))


def _cross_validated(x: Array, y: Array, seed: int) -> Array:
    """The share of ms with the lowest held-out error, and the quantiles of these errors in standard deviations."""
    normal = float(student.ppf((1 + COVERAGE) / 2, len(y) - 1))
    if len(y) < FEWEST_ROWS:
        return np.array([0.5, -normal, normal])
    held = np.empty((2, 2, len(y)))  # by process, mean or spread, row
    for seen, unseen in KFold(FOLDS, shuffle=True, random_state=seed).split(x):
        pair = _pair(x[seen], y[seen], _thetas(x[seen], y[seen], seed))
        held[:, :, unseen] = np.array(pair.predict(x[unseen]))
    log, ms = (_Logs(*each) for each in held)
    shares = np.linspace(0, 1, 21)
    share = min(shares, key=lambda share: float(np.abs(_blended(share, log, ms).mean - np.log(y)).mean()))
    blended = _blended(share, log, ms)
    scores = (np.log(y) - blended.mean) / blended.spread
    tail = max(0.0, (1 - COVERAGE) / 2 - (1 + COVERAGE) / 2 / len(y))  # what a new row beside these would meet
    low, high = np.quantile(scores, [tail, 1 - tail])
    least = normal if len(y) < FEW_ROWS else 0.0
    return np.array([share, min(low, -least), max(high, least)])

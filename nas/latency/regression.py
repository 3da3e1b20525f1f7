"""A regression of latency on features of networks, with intervals, from as few as a handful of measured networks.

Two Gaussian processes (Rasmussen and Williams 2006), one of log latency, one of latency in ms, are averaged on the log
scale with the share that cross-validation favours. On most devices latency is a sum over layers, which only the process
in ms can represent; where effects multiply, the other one is right. In both, noise is relative, since error is judged
relatively, and rows far off weigh less (as under Student's t noise), since a stall is not the network's.
scikit-learn's process has neither noise that is fitted and differs by row nor amplitudes by group of columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t as student
from sklearn.model_selection import KFold
from threadpoolctl import threadpool_limits

from nas.latency.gaussian_process import Array, Logs, Pair, hyperparameters, pair_of

BLAS_THREADS = 1  # on matrices of a few hundred rows several wait for one another, for ten times as long

COVERAGE = 0.9  # of the intervals
FOLDS = 10
FEWEST_ROWS = 10  # to cross-validate
FEW_ROWS = 50  # whose quantiles are too uncertain to make an interval narrower than Student's t does
MOST_ROWS = 5_000  # of a file: memory grows with their square
SEARCH_ROWS = 200  # the search for hyperparameters is cubic in rows, and more rows hardly change what it finds


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
    def _pair(self) -> Pair:
        return pair_of(self.features, self.latency_ms / np.median(self.latency_ms), (self.log_theta, self.ms_theta))

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
        with threadpool_limits(BLAS_THREADS):
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
        if len(stored["features"]) > MOST_ROWS:
            raise ValueError(f"{len(stored['features']):,} rows are too many to predict from; allowed: {MOST_ROWS:,}")
        features, latency_ms = _checked(stored["features"], stored["latency_ms"])
        size = hyperparameters(features)
        vectors = [np.asarray(stored[name], dtype=np.float64) for name in names[2:]]
        for name, vector, length in zip(names[2:], vectors, (size, size, 3), strict=True):
            if vector.shape != (length,) or not np.isfinite(vector).all():
                raise ValueError(f"{name}: must be {length} finite numbers")
        return LatencyRegression(features, latency_ms, *vectors)


def fit(features: ArrayLike, latency_ms: ArrayLike, seed: int = 0) -> LatencyRegression:
    """Fits latency to features, in a few seconds for 500 rows of 200 features.

    Columns of zeros and ones (choices) and all others (counts, sums) are weighed apart, and the latter by more than one
    standard: as they are, where large ones weigh most, and each in its own unit.

    Args:
        features: (n, d); non-negative additive ones (counts, sums of MACs, choices as zeros and ones) suit best, those
            that are not choices in units in which they cost about alike.
        latency_ms: (n,), ms.
        seed: of the folds, and of the rows that hyperparameters are searched on where there are more than 200.

    Raises:
        ValueError: fewer than two rows, other shapes, values that are not finite, latencies that are not positive.
    """
    x, latency = _checked(features, latency_ms)
    y = latency / np.median(latency)
    with threadpool_limits(BLAS_THREADS):
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


def _thetas(x: Array, y: Array, seed: int) -> tuple[Array, Array]:
    rows = np.random.default_rng(seed).permutation(len(x))[:SEARCH_ROWS] if len(x) > SEARCH_ROWS else np.arange(len(x))
    pair = pair_of(x[rows], y[rows], (None, None), whole=x)
    return pair.log.theta, pair.ms.theta


def _blended(share: float, log: Logs, ms: Logs) -> Logs:
    return Logs(*((1 - share) * a + share * b for a, b in zip(log, ms, strict=True)))


def _cross_validated(x: Array, y: Array, seed: int) -> Array:
    """The share of ms with the lowest held-out error, and the quantiles of these errors in standard deviations."""
    normal = float(student.ppf((1 + COVERAGE) / 2, len(y) - 1))
    if len(y) < FEWEST_ROWS:
        return np.array([0.5, -normal, normal])
    held = np.empty((2, 2, len(y)))  # by process, mean or spread, row
    for seen, unseen in KFold(FOLDS, shuffle=True, random_state=seed).split(x):
        pair = pair_of(x[seen], y[seen], _thetas(x[seen], y[seen], seed))
        held[:, :, unseen] = np.array(pair.predict(x[unseen]))
    log, ms = (Logs(*each) for each in held)
    shares = np.linspace(0, 1, 21)
    share = min(shares, key=lambda share: float(np.abs(_blended(share, log, ms).mean - np.log(y)).mean()))
    blended = _blended(share, log, ms)
    scores = (np.log(y) - blended.mean) / blended.spread
    tail = max(0.0, (1 - COVERAGE) / 2 - (1 + COVERAGE) / 2 / len(y))  # what a new row beside these would meet
    low, high = np.quantile(scores, [tail, 1 - tail])
    least = normal if len(y) < FEW_ROWS else 0.0
    return np.array([share, min(low, -least), max(high, least)])

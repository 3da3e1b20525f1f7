"""Latencies of networks before they are measured, from a calibration and from what the run itself has measured."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.linalg import LinAlgError
from scipy.optimize import nnls

from nas.architecture import Architecture
from nas.latency.conditions import Conditions
from nas.latency.predictor import LatencyPredictor, rows_of
from nas.latency.regression import Array, fit
from nas.reading import Reading

FEWEST_NETWORKS = 20  # measured, before a run without a calibration predicts anything
GROWTH = 1.5  # of the number of measured networks, after which the regression is fitted anew
MOST_FITTED = 1000  # networks that the regression is fitted to, the latest ones; it is cubic in them
MOST_SUMMED = 500  # networks that a sum over layers is fitted to
KEPT_ROWS = 4096  # features of architectures, which a search asks for again and again
ROUGH = 0.3  # standard deviation of the logarithms of latencies from a sum over layers
INTERVAL = 3.29  # standard deviations that an interval of 90 % is wide


class Forecast:
    """Predicts, and learns from each measurement."""

    def __init__(self, where: Conditions, calibrated: LatencyPredictor | None) -> None:
        self._where, self._regression = where, calibrated.regression if calibrated else None
        self._rows: list[Array] = list(self._regression.features) if self._regression else []
        self._latency_ms: list[float] = list(self._regression.latency_ms) if self._regression else []
        self._fitted = self._met = len(self._rows)
        self._learned: set[str] = set()
        self._each_ms: Array | None = None
        self._priced = 0
        self._row = lru_cache(KEPT_ROWS)(self._row_of)

    def learn(self, arch: Architecture, reading: Reading) -> None:
        """Takes in a measured latency, one of each deploy form: twins would look like agreement."""
        if reading.source == "predicted" or reading.median_ms <= 0 or arch.deploy_id in self._learned:
            return
        row = self._row(arch)
        if row is not None:
            self._learned.add(arch.deploy_id)
            self._rows.append(row)
            self._latency_ms.append(reading.median_ms)
            self._met += 1
            del self._rows[:-MOST_FITTED], self._latency_ms[:-MOST_FITTED]

    def predict(self, archs: Sequence[Architecture]) -> list[Reading | None]:
        """The latencies of architectures with their 90 % intervals; None where too little is known for one."""
        rows = [self._row(arch) for arch in archs]
        known = [row for row in rows if row is not None]
        self._fit()
        if self._regression is None or not known:
            return [None] * len(archs)
        told = self._regression.predict(np.array(known))
        readings = (
            Reading(float(median), 0.0, float(low), float(high), source="predicted")
            for median, low, high in zip(told.median_ms, told.low_ms, told.high_ms, strict=True)
        )
        return [None if row is None else next(readings) for row in rows]

    def expected_ms(self, archs: Sequence[Architecture]) -> list[float | None]:
        """What architectures' latencies are expected to be, from the first measured network on; None as in `predict`.

        A search looks for what seems fast, so it finds what a regression that knows little is wrong about. Hence a sum
        over layers, none of which takes less than nothing, has its say as far as the regression doubts itself.
        """
        rows = [self._row(arch) for arch in archs]
        known = [row for row in rows if row is not None]
        if not known or not self._latency_ms:
            return [None] * len(archs)
        self._fit()
        rough = np.log(np.maximum(np.array(known) @ self._prices(), min(self._latency_ms) / 2))
        told = None if self._regression is None else self._regression.predict(np.array(known))
        if told is not None:
            doubt = np.log(told.high_ms / told.low_ms) / INTERVAL
            rough += (np.log(told.median_ms) - rough) * ROUGH**2 / (ROUGH**2 + doubt**2)
        expected = iter(np.exp(rough).tolist())
        return [None if row is None else next(expected) for row in rows]

    def _prices(self) -> Array:
        """Milliseconds of each feature, none below 0, of the least relative error; found anew when more is known."""
        if self._priced < self._met:
            seen, ms = np.array(self._rows[-MOST_SUMMED:]), np.array(self._latency_ms[-MOST_SUMMED:])
            with contextlib.suppress(RuntimeError):  # it did not converge: what was found before will do
                self._each_ms = nnls(seen / ms[:, None], np.ones(len(ms)))[0]
            if self._each_ms is None:
                self._each_ms = np.full(seen.shape[1], float(np.median(ms / seen.sum(axis=1))))
            self._priced = self._met
        assert self._each_ms is not None
        return self._each_ms

    def _fit(self) -> None:
        if self._met >= max(FEWEST_NETWORKS, GROWTH * self._fitted):
            try:
                self._regression = fit(np.array(self._rows), self._latency_ms)
            except LinAlgError:
                return
            self._fitted = self._met

    def _row_of(self, arch: Architecture) -> Array | None:
        """What latency is predicted from; None for blocks whose layers are not known, and for what does not fit."""
        try:
            return rows_of([arch], self._where)[0]
        except ValueError:  # its trial will say so
            return None

"""Latencies of proposals before they are measured, from a calibration and from what the run itself has measured."""

from __future__ import annotations

import numpy as np
from numpy.linalg import LinAlgError

from nas.architecture import Architecture
from nas.latency.conditions import Conditions
from nas.latency.predictor import LatencyPredictor, rows_of
from nas.latency.regression import Array, fit
from nas.reading import Reading

FEWEST_NETWORKS = 20  # measured, before a run without a calibration predicts anything
GROWTH = 1.5  # of the number of measured networks, after which the regression is fitted anew


class Forecast:
    """Predicts, and learns from each measurement."""

    def __init__(self, where: Conditions, calibrated: LatencyPredictor | None) -> None:
        self._where, self._regression = where, calibrated.regression if calibrated else None
        self._rows: list[Array] = list(self._regression.features) if self._regression else []
        self._latency_ms: list[float] = list(self._regression.latency_ms) if self._regression else []
        self._fitted = len(self._rows)
        self._learned: set[str] = set()

    def learn(self, arch: Architecture, reading: Reading) -> None:
        """Takes in a measured latency, one of each deploy form: twins would look like agreement."""
        if reading.source != "predicted" and reading.median_ms > 0 and arch.deploy_id not in self._learned:
            self._learned.add(arch.deploy_id)
            self._rows.append(rows_of([arch], self._where)[0])
            self._latency_ms.append(reading.median_ms)

    def predict(self, arch: Architecture) -> Reading | None:
        """The latency of an architecture with its 90 % interval; None while too little is known for one."""
        try:
            return self._predicted(arch)
        except (ValueError, LinAlgError):  # an architecture that does not fit the images: its trial will say so
            return None

    def _predicted(self, arch: Architecture) -> Reading | None:
        if len(self._rows) >= max(FEWEST_NETWORKS, GROWTH * self._fitted):
            self._regression, self._fitted = fit(np.array(self._rows), self._latency_ms), len(self._rows)
        if self._regression is None:
            return None
        told = self._regression.predict(rows_of([arch], self._where))
        return Reading(float(told.median_ms[0]), 0.0, float(told.low_ms[0]), float(told.high_ms[0]), source="predicted")

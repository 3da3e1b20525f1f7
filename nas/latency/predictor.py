"""Latency before it is measured: a regression on the layers of the deploy form, which an architecture alone tells."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from nas.architecture import Architecture
from nas.bounded import parse_json, read_text
from nas.config import first_line
from nas.files import write_at_once
from nas.latency.conditions import Conditions, conditions_from_dict, differences
from nas.latency.features import FEATURES_VERSION, features
from nas.latency.regression import Array, LatencyRegression, Prediction
from nas.layers import deploy_layers

FILE_VERSION = 1
MOST_FILE_BYTES = 256_000_000  # of some thousand networks; one takes 5 kB


def rows_of(archs: Sequence[Architecture], where: Conditions) -> Array:
    """(n, features) of architectures: of their layers as they ship, but by merge=latency before they are merged.

    Raises:
        ValueError: an architecture that cannot be built for these images.
    """
    merge = "none" if where.merge == "latency" else where.merge
    layers = [deploy_layers(arch, where.num_classes, where.input_shape, merge) for arch in archs]
    return np.array([features(each) for each in layers])


@dataclass(frozen=True)
class LatencyPredictor:
    """Predicts latencies under the conditions of the measurements that it was fitted to.

    Attributes:
        conditions: what it holds for.
        regression: of latency on `features`.
        error: how far it was off on networks that it had not seen, by name.
    """

    conditions: Conditions
    regression: LatencyRegression
    error: dict[str, float]

    def predict(self, archs: Sequence[Architecture]) -> Prediction:
        """Latencies of architectures, with 90 % intervals; a thousand take less than a second.

        Raises:
            ValueError: an architecture that cannot be built for these images.
        """
        return self.regression.predict(rows_of(archs, self.conditions))

    def save(self, file: Path) -> None:
        """Writes a calibration file."""
        words = {
            "version": FILE_VERSION,
            "features": FEATURES_VERSION,
            "conditions": asdict(self.conditions),
            "error": self.error,
            "regression": self.regression.to_dict(),
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        write_at_once(file, json.dumps(words) + "\n")


def load_predictor(file: Path, wanted: Conditions) -> LatencyPredictor:
    """The predictor of a calibration file.

    Raises:
        ValueError: not a calibration file, or one of another device, version or other conditions; says what differs.
    """
    try:
        text = read_text(file, MOST_FILE_BYTES)
    except ValueError as problem:
        raise ValueError(f"latency.calibration={file} {problem}") from None
    try:
        words = parse_json(text)
        if (words["version"], words["features"]) != (FILE_VERSION, FEATURES_VERSION):
            raise ValueError("it was made by another version of this program")
        stored = conditions_from_dict(words["conditions"])
        regression = LatencyRegression.from_dict(words["regression"])
        error = {str(name): float(value) for name, value in words["error"].items()}
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as problem:
        what = f"lacks {problem}" if isinstance(problem, KeyError) else first_line(problem)
        raise ValueError(f"latency.calibration={file} is not a calibration file: {what}") from None
    if differing := differences(stored, wanted):
        raise ValueError(f"latency.calibration={file} was made for {differing}")
    return LatencyPredictor(stored, regression, error)

"""Latency before it is measured: a regression on the layers of the deploy form, which an architecture alone tells."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from nas.architecture import Architecture
from nas.config import LatencyConfig, first_line
from nas.latency.backends import backend_for, cuda_options
from nas.latency.features import FEATURES_VERSION, features
from nas.latency.measurement import Shape
from nas.latency.regression import Array, LatencyRegression, Prediction
from nas.layers import deploy_layers

FILE_VERSION = 1


@dataclass(frozen=True)
class Conditions:
    """Everything but the architecture that decides a latency: what a calibration holds for.

    Attributes:
        device: its `fingerprint`.
        backend: the runtime, with its version.
        dtype: of weights and activations.
        batch_size: images of a batch.
        threads: CPU threads.
        memory_format: of torch.
        input_shape: (C, H, W).
        num_classes: number of logits.
        merge: how runs of linear convolutions are merged.
    """

    device: str
    backend: str
    dtype: str
    batch_size: int
    threads: int
    memory_format: str
    input_shape: Shape
    num_classes: int
    merge: str


def conditions(
    config: LatencyConfig,
    device: str,
    fingerprint: str,
    input_shape: Shape,
    num_classes: int,
    merge: str,
) -> Conditions:
    """The conditions of measurements by a configuration on a device ("cpu", "cuda:0") of that fingerprint."""
    name, backend = backend_for(config, device)
    return Conditions(
        device=fingerprint,
        backend=f"{name} {backend.version}{cuda_options(config, device)}",
        dtype=config.dtype,
        batch_size=config.batch_size,
        threads=config.threads,
        memory_format=config.memory_format,
        input_shape=input_shape,
        num_classes=num_classes,
        merge=merge,
    )


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
        draft = file.with_name(f".{file.name}.tmp")
        draft.write_text(json.dumps(words) + "\n", encoding="utf-8")
        draft.replace(file)


def load_predictor(file: Path, wanted: Conditions) -> LatencyPredictor:
    """The predictor of a calibration file.

    Raises:
        ValueError: not a calibration file, or one of another device, version or other conditions; says what differs.
    """
    try:
        words = json.loads(file.read_text(encoding="utf-8"))
        stored = _conditions_from(words["conditions"])
        if (words["version"], words["features"]) != (FILE_VERSION, FEATURES_VERSION):
            raise ValueError("it was made by another version of this program")
        regression = LatencyRegression.from_dict(words["regression"])
        error = {str(name): float(value) for name, value in words["error"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as problem:
        what = f"lacks {problem}" if isinstance(problem, KeyError) else first_line(problem)
        raise ValueError(f"latency.calibration={file} is not a calibration file: {what}") from None
    differing = [
        f"{each.name} {getattr(stored, each.name)}, here {getattr(wanted, each.name)}"
        for each in fields(Conditions)
        if getattr(stored, each.name) != getattr(wanted, each.name)
    ]
    if differing:
        raise ValueError(f"latency.calibration={file} was made for {'; '.join(differing)}")
    return LatencyPredictor(stored, regression, error)


def _conditions_from(words: dict[str, Any]) -> Conditions:
    channels, height, width = words["input_shape"]
    return Conditions(**{**words, "input_shape": (channels, height, width)})

"""A training written down at some of its epochs, to be continued in another process: safetensors, with JSON inside."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from nas.bounded import parse_json
from nas.tensor_file import save_tensors
from nas.training.loop import Training

WORDS = "training"  # key of the JSON in the file's metadata


def rungs(epochs: int) -> tuple[int, ...]:
    """The epochs after which a training of `epochs` is written down: half of it, half of that, and so on.

    >>> rungs(12)
    (1, 3, 6)
    """
    halves = [epochs]
    while halves[-1] > 1:
        halves.append(halves[-1] // 2)
    return tuple(reversed(halves[1:]))


@dataclass(frozen=True)
class Progress:
    """What a training has used up besides what is in its weights.

    Attributes:
        train_s: seconds of training.
        waited_s: seconds that it waited for others' measurements.
        loss: mean loss of the last epoch.
    """

    train_s: float = 0.0
    waited_s: float = 0.0
    loss: float = float("nan")


class Stopwatch:
    """Tells the seconds of a training, those of earlier processes included, from those that it waited for others."""

    def __init__(self, waited_s: Callable[[], float], before: Progress) -> None:
        """Starts now; `waited_s` says how long this process has waited so far."""
        self._waited_s, self._before = waited_s, before
        self._start, self._waited = time.perf_counter(), waited_s()

    def read(self, loss: float) -> Progress:
        """What has been used up until now."""
        waited_s = self._waited_s() - self._waited
        train_s = time.perf_counter() - self._start - waited_s
        return Progress(self._before.train_s + train_s, self._before.waited_s + waited_s, loss)


class Checkpoint:
    """The file in which one training is written down; it is there in full or not at all.

    Attributes:
        file: where.
        at: the epochs, of so many, after which the training is written down.
    """

    def __init__(self, file: Path, at: Callable[[int], Container[int]] = rungs) -> None:
        self.file, self.at = file, at

    def save(self, training: Training, identity: dict[str, Any], progress: Progress) -> None:
        """Writes a training down, over what was there.

        Args:
            training: between two epochs.
            identity: what makes it this training, JSON-ready.
            progress: what it has used up.
        """
        tensors, words = training.state()
        said = {"identity": identity, "state": words, "progress": dataclasses.asdict(progress)}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(tensors, self.file, {WORDS: json.dumps(said)})

    def identity(self) -> dict[str, Any] | None:
        """Of the training that is written down; None where there is none."""
        said = self._words()
        return None if said is None else said["identity"]

    def restore(self, training: Training, identity: dict[str, Any]) -> Progress:
        """Continues a training from what is written down; from its beginning if that is another training, or none."""
        said = self._words()
        if said is None or said["identity"] != identity:
            return Progress()
        with safe_open(self.file, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
        training.restore(tensors, said["state"])
        return Progress(**said["progress"])

    def discard(self) -> None:
        """Removes the file: the training is over."""
        self.file.unlink(missing_ok=True)

    def _words(self) -> dict[str, Any] | None:
        """What is said beside the tensors; None where there is no file, or one that nobody can read."""
        try:
            with safe_open(self.file, framework="pt") as file:
                said = parse_json((file.metadata() or {})[WORDS])
        except (OSError, SafetensorError, KeyError, ValueError):
            return None
        parts = ("identity", "state", "progress")
        return said if isinstance(said, dict) and all(isinstance(said.get(part), dict) for part in parts) else None

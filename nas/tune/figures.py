"""What is shown of a search while it goes on. Light, since a process of its own may do nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class SearchFigures:
    """How a search stands.

    Attributes:
        trials: by state: running, at a rung, or how they ended.
        best_accuracy_ratio: highest accuracy (the run's metric) of a completed trial, 0 to 1; None before there is one.
        hypervolume_ratio: share of the box between zero and the reference that the front dominates, 0 to 1. The
            reference is an error of 1, and of each cost its limit, or the highest there was.
        front_size: networks on the Pareto front.
        training_images_per_second: that all trainings together went through, in the last minute.
        lane_waited_seconds: that trials which have ended have waited for others' measurements.
    """

    trials: dict[str, int]
    best_accuracy_ratio: float | None
    hypervolume_ratio: float
    front_size: int
    training_images_per_second: float
    lane_waited_seconds: float


Show = Callable[[SearchFigures], None]

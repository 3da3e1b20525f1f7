"""What a search weighs, and what it must not exceed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Objective:
    """One axis of the front: its name, its unit and which way is better."""

    name: str
    unit: str
    direction: Literal["minimize", "maximize"] = "minimize"


OBJECTIVES: dict[str, Objective] = {
    "error": Objective("error", "share of validation images"),
    "latency_ms": Objective("latency_ms", "ms, fused network"),
    "macs": Objective("macs", "multiply-adds, fused network"),
    "params": Objective("params", "count, fused network"),
    "peak_memory_mb": Objective("peak_memory_mb", "MB, fused network"),
}

CONSTRAINT_NAMES = ("latency_ms", "params", "macs", "peak_memory_mb")


def get_objectives(names: Sequence[str]) -> tuple[Objective, ...]:
    """The objectives of these names.

    Raises:
        ValueError: an unknown name, a name twice, or fewer than two.
    """
    for name in names:
        if not isinstance(name, str) or name not in OBJECTIVES:
            raise ValueError(f"objectives: {name!r} is unknown; known: {', '.join(OBJECTIVES)}")
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"objectives={list(names)} is not allowed; allowed: two or more different ones")
    return tuple(OBJECTIVES[name] for name in names)


@dataclass(frozen=True)
class Constraint:
    """An upper limit on a cost of the deploy form."""

    name: str
    limit: float

    def excess(self, costs: Mapping[str, float]) -> float:
        """How far the cost is above the limit, relative to it; at most 0 if the limit is kept."""
        return costs[self.name] / self.limit - 1

    def broken_by(self, costs: Mapping[str, float]) -> str | None:
        """What is wrong in one line, or None."""
        if self.excess(costs) <= 0:
            return None
        return f"{self.name} {costs[self.name]:g} is above constraints.{self.name}={self.limit:g}"

"""Latencies that are measured on another node of a cluster than where trials are trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from nas.config import LatencyConfig, first_line
from nas.latency.conditions import Instrument, instrument
from nas.latency.measure import Variant, measure_interleaved
from nas.latency.measurement import LatencyMeasurement
from nas.latency.meter import MeasuringNode

Result = TypeVar("Result")
LOOK_EVERY_S = 5.0


def measuring_node() -> MeasuringNode | None:
    """The cluster's nodes that declare the resource `latency`; None on one machine: it measures itself.

    Raises:
        ValueError: several nodes, and none declares it: their latencies cannot be compared.
    """
    if ray.cluster_resources().get("latency"):
        return NodeForLatency()
    nodes = sum(node["Alive"] for node in ray.nodes())
    if nodes > 1:
        raise ValueError(
            f"the cluster has {nodes} nodes and none declares where latencies are measured: start nodes of a kind "
            "with ray start --resources '{\"latency\": 1}'"
        )
    return None


@dataclass(frozen=True)
class NodeForLatency:
    """A `MeasuringNode`: tasks that ask for the resource `latency`.

    Attributes:
        patient: whether it waits for another such node where all are lost, as a trial does, or gives up.
    """

    patient: bool = False

    def measure(self, variants: list[Variant], *, device: str) -> list[LatencyMeasurement]:
        """See `MeasuringNode`."""
        return _there(partial(measure_interleaved, variants, device=device), self.patient)

    def instrument(self, config: LatencyConfig, device: str) -> Instrument:
        """See `MeasuringNode`."""
        return _there(partial(instrument, config, device), self.patient)


def _there(act: Callable[[], Result], patient: bool = False) -> Result:
    try:
        answer = _act.remote(act)
        while not patient and not ray.wait([answer], timeout=LOOK_EVERY_S)[0]:
            if not ray.cluster_resources().get("latency"):
                ray.cancel(answer, force=True)
                raise ValueError("the node that measures is lost: no node of the cluster declares the resource latency")
        return ray.get(answer)
    except RayTaskError as error:
        raise error.cause from None
    except RayError as error:
        raise ValueError(f"the node that measures is lost: {first_line(error)}") from None


# Not within the trial that asks, whose resources are its own. Ray hides GPUs from tasks that ask for none.
@ray.remote(
    num_cpus=0,
    resources={"latency": 1},
    scheduling_strategy=PlacementGroupSchedulingStrategy(placement_group=None),  # pyright: ignore[reportArgumentType]
    runtime_env={"env_vars": {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}},
)
def _act(act: Callable[[], Any]) -> Any:
    return act()

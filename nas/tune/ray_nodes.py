"""The nodes of a cluster: how many trials they have room for, as they come and go, and whether they can run any."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from nas.config import one_line
from nas.data.stream import StreamedImages
from nas.plugins import import_path, import_plugins
from nas.tune.plan import Plan

LOOK_EVERY_S = 2.0
ANSWER_S = 300.0  # in which a node has to fetch the code and import it
ROUNDING = 1e-9  # 0.3 cores are three times 0.1


def concurrency(plan: Plan) -> int:
    """Trials at a time: as configured, else as many as the cluster's nodes hold.

    Raises:
        ValueError: a trial asks for more than any node has.
    """
    fits = sum(_fits(plan, node) for node in _alive())
    if fits < 1:
        found = ", ".join(f"{cpus:g} cores and {gpus:g} GPUs" for cpus, gpus in map(_cpus_and_gpus, _alive()))
        raise ValueError(
            f"trials.cpus={plan.config.trials.cpus:g}, trials.gpus={plan.gpus_per_trial:g}: a trial does not fit; "
            f"there are {found}"
        )
    return min(plan.config.trials.concurrent or fits, fits)


class Room:
    """Trials at a time that the cluster has room for now; says when that changes.

    Of a cluster whose measuring nodes are all lost that is none: what is in flight waits for one.
    """

    def __init__(self, plan: Plan, measured_elsewhere: bool, say: Callable[[str], None]) -> None:
        self._plan, self._measured_elsewhere, self._say = plan, measured_elsewhere, say
        self._room, self._measures = concurrency(plan), True
        self._looked = time.monotonic()

    def __call__(self) -> int:
        """Asks the cluster, every few seconds."""
        if time.monotonic() - self._looked > LOOK_EVERY_S:
            self._look()
            self._looked = time.monotonic()
        return self._room if self._measures else 0

    def _look(self) -> None:
        nodes = _alive()
        # Trials that there is no room for at all wait for it, so one may be asked for.
        room = max(1, sum(_fits(self._plan, node) for node in nodes))
        room = min(self._plan.config.trials.concurrent or room, room)
        measures = not self._measured_elsewhere or any(node["Resources"].get("latency") for node in nodes)
        if room != self._room:
            self._say(f"the cluster has {len(nodes)} nodes now: {room} trials at a time")
        if measures != self._measures:
            self._say(MEASURED_AGAIN if measures else NOT_MEASURED)
        self._room, self._measures = room, measures


NOT_MEASURED = (
    "the nodes that measure latencies are lost: trials wait until one joins (ray start --address=... "
    "--resources '{\"latency\": 1}')"
)
MEASURED_AGAIN = "a node that measures latencies has joined: trials go on"


def check_nodes(plan: Plan) -> None:
    """Holds that every node has what trials need: the dependencies, plugins, and images that do not travel through Ray.

    Raises:
        ValueError: one does not; the message names the node.
    """
    images = [part for part in (plan.job.data.train, plan.job.data.validation) if isinstance(part, StreamedImages)]
    nodes = [node for node in _alive() if _fits(plan, node)]
    there = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    asked = [
        _check.options(scheduling_strategy=each).remote(images, plan.config.plugins, import_path()) for each in there
    ]
    for node, answer in zip(nodes, asked, strict=True):
        try:
            ray.get(answer, timeout=ANSWER_S)
        except RayError as error:
            cause = error.cause if isinstance(error, RayTaskError) else error
            raise ValueError(f"node {node['NodeManagerAddress']} cannot run trials: {one_line(cause)}") from None


@ray.remote(num_cpus=0, max_retries=0)
def _check(images: list[StreamedImages], plugins: list[str], folders: list[str]) -> None:
    import_plugins(plugins, folders)
    for part in images:
        try:
            part.spread(1)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{error}; images that do not fit into data.resident_gb are read from the same path on every node "
                "(data, data_root)"
            ) from None


def _alive() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _cpus_and_gpus(node: dict[str, Any]) -> tuple[float, float]:
    return node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0)


def _fits(plan: Plan, node: dict[str, Any]) -> int:
    """Trials at a time that one node has room for."""
    cpus, gpus = _cpus_and_gpus(node)
    fits = cpus / plan.config.trials.cpus
    if plan.gpus_per_trial:
        fits = min(fits, gpus / plan.gpus_per_trial)
    return int(fits + ROUNDING)

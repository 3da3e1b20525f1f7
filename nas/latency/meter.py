"""What one process measures for one job: whole networks, and convolutions where mergers are planned by latency."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

from torch import nn

from nas.config import LatencyConfig
from nas.latency.conditions import Instrument, instrument
from nas.latency.lane import Lane
from nas.latency.measure import Variant, measure_interleaved
from nas.latency.measurement import LatencyMeasurement
from nas.networks.merging import MERGE_COSTS, MergePlan, Shape, apply_merges, merge_plan, plan_merges
from nas.reading import Reading


class MeasuringNode(Protocol):
    """Another machine that is kept for measuring."""

    def measure(self, variants: list[Variant], *, device: str) -> list[LatencyMeasurement]:
        """The latencies of variants, measured in turn; see `measure_interleaved`."""
        ...

    def instrument(self, config: LatencyConfig, device: str) -> Instrument:
        """What is measured with there; see `nas.latency.conditions.instrument`."""
        ...


@dataclass(frozen=True)
class Merged:
    """A network in the form in which it ships, and what was measured of it.

    Attributes:
        network: merged.
        plan: how.
        measurement: its latency, where it had to be measured to choose the plan.
    """

    network: nn.Module
    plan: MergePlan
    measurement: LatencyMeasurement | None = None


@dataclass
class Meter:
    """Measures for one job.

    Attributes:
        config: how.
        input_shape: (C, H, W) of the images.
        device: "cpu", "cuda" or "cuda:0", of the machine that measures.
        lane: this process's place in its lanes.
        node: measures, where this machine does not.
        fingerprint: of the device that all latencies of the job are to be of; None takes any.
    """

    config: LatencyConfig
    input_shape: Shape
    device: str
    lane: Lane = field(default_factory=Lane)
    node: MeasuringNode | None = None
    fingerprint: str | None = None
    _known_ms: dict[tuple[object, ...], float] = field(default_factory=dict)

    def instrument(self) -> Instrument:
        """What is measured with.

        Raises:
            ValueError: it is not there, or the machine that measures has too few cores.
        """
        return (self.node.instrument if self.node else instrument)(self.config, self.device)

    def measure(self, *networks: nn.Module) -> list[LatencyMeasurement]:
        """The latencies of networks, measured in turn."""
        return self._measure([Variant(network, self.config, self.input_shape) for network in networks])

    def merged(self, deployed: nn.Module, merge: str) -> Merged:
        """A network merged by the plan that `merge` stands for (`MERGE_COSTS`, or "latency").

        By latency, the plan is the fastest of those that each cost gives and of the one whose measured
        convolutions sum up to the least: all of them are measured in turn, whole.

        Raises:
            ValueError: an unknown name.
        """
        if merge != "latency":
            plan = merge_plan(deployed, merge)
            return Merged(apply_merges(deployed, plan), plan)
        plans = {merge_plan(deployed, name): None for name in MERGE_COSTS}  # a dict, since it keeps their order
        if len(plans) > 1:
            plans[plan_merges(deployed, self.layer_ms)] = None
        networks = [apply_merges(deployed, plan) for plan in plans]
        measured = self.measure(*networks)
        best = min(range(len(measured)), key=lambda i: measured[i].median_ms)
        return Merged(networks[best], list(plans)[best], measured[best])

    def layer_ms(self, layer: nn.Module, input_shape: Shape) -> float:
        """Latency of one convolution or linear layer on a map of (C, H, W), above that of a network of nothing.

        Each structure is measured once.
        """
        if isinstance(layer, nn.Linear):
            kind = (layer.in_features, layer.out_features, layer.bias is None)
        else:
            assert isinstance(layer, nn.Conv2d)
            how = (layer.stride, layer.padding, layer.dilation, layer.groups, layer.bias is None)
            kind = (*layer.weight.shape, *how)
        flat = [nn.Flatten()] if isinstance(layer, nn.Linear) else []
        alone = self._once(kind, nn.Sequential(*flat, layer), input_shape)
        return max(0.0, alone - self.nothing_ms())

    def nothing_ms(self) -> float:
        """What a network takes beside its layers."""
        return self._once((), nn.Sequential(nn.ReLU()), (1, 1, 1))

    def _once(self, kind: tuple[object, ...], network: nn.Module, input_shape: Shape) -> float:
        """The latency of a network of a kind, measured when it is first asked for."""
        if (kind, input_shape) not in self._known_ms:
            (measured,) = self._measure([Variant(network, self.config, input_shape)])
            self._known_ms[kind, input_shape] = measured.median_ms
        return self._known_ms[kind, input_shape]

    def _measure(self, variants: list[Variant]) -> list[LatencyMeasurement]:
        if self.node is None:
            measured = measure_interleaved(variants, device=self.device, lane=self.lane)
        else:
            with self.lane.waiting():
                measured = self.node.measure(variants, device=self.device)
        there = measured[0].device
        if self.fingerprint not in (None, there):
            raise ValueError(f"this search measures on {self.fingerprint}, not on {there}: nodes must be of one kind")
        return measured


def reading_of(measured: LatencyMeasurement, plan: MergePlan) -> Reading:
    """What a run keeps of a measurement."""
    low, high = measured.interval_ms
    if not math.isfinite(high):  # too few rounds for an interval, which its doubt says
        low, high = min(measured.samples_ms), max(measured.samples_ms)
    return Reading(
        measured.median_ms,
        measured.iqr_ms,
        low,
        high,
        doubt=measured.doubt,
        reference_ms=measured.reference_ms,
        scale=measured.scale,
        merges=plan.segments,
    )

"""A network's two forms side by side: its layers while it trains, and what became of each on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from nas.architecture import Architecture
from nas.convolution import Pair
from nas.cost import footprint
from nas.latency.table import NETWORK, layer_name, look_up
from nas.networks.builder import build
from nas.networks.merging import MergePlan, apply_merges, merge_plan
from nas.networks.operations import Operation, operations
from nas.reading import Footprint
from nas.receptive_field import IMAGE, Window

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Row:
    """A layer of the train form, one of the deploy form, or one of each that read and write the same.

    Attributes:
        block: place of its block in the architecture.
        block_name: that block's name.
        train: the layer of the train form.
        deploy: the layer of the deploy form that stands beside it.
        became: name of the layer of the deploy form that the train form's is part of; empty where it is gone.
        latency_ms: of the deploy form's layer, where it is known.
    """

    block: int
    block_name: str
    train: Operation | None
    deploy: Operation | None
    became: str = ""
    latency_ms: float | None = None


@dataclass(frozen=True)
class BothForms:
    """An architecture's network in both forms.

    Attributes:
        rows: in the order in which the train form runs.
        plan: how the deploy form is merged.
        footprint: what the deploy form keeps in memory.
        latency_ms: of the deploy form by a table of layers; None without one.
        beside_ms: what of that is not a layer's.
    """

    rows: tuple[Row, ...]
    plan: MergePlan
    footprint: Footprint
    latency_ms: float | None = None
    beside_ms: float = 0.0

    @property
    def train(self) -> list[Operation]:
        """The layers of the train form."""
        return [row.train for row in self.rows if row.train is not None]

    @property
    def deploy(self) -> list[Operation]:
        """The layers of the deploy form."""
        return [row.deploy for row in self.rows if row.deploy is not None]


def both_forms(
    arch: Architecture,
    num_classes: int,
    input_shape: Shape,
    merge: str | MergePlan = "none",
    table: Mapping[str, float] | None = None,
) -> BothForms:
    """The two forms of an architecture, layer by layer.

    Args:
        arch: the architecture.
        num_classes: number of logits.
        input_shape: (C, H, W) of the images; decides which strides apply (`Architecture.strides`).
        merge: how runs of linear convolutions are merged: a plan, or a name in `nas.networks.merging.MERGE_COSTS`.
        table: latencies of layers in ms, see `nas.latency.table.read_table`.

    Raises:
        ValueError: an impossible shape, groups that do not fit, an unknown `merge`, a layer that is not in the table.
    """
    with torch.device("meta"):
        trained = build(arch, num_classes=num_classes, input_shape=input_shape, form="train")
        deployed: nn.Module = build(arch, num_classes=num_classes, input_shape=input_shape, form="deploy")
    train, deploy = operations(trained, input_shape), operations(deployed, input_shape)
    plan = merge if isinstance(merge, MergePlan) else merge_plan(deployed, merge)
    if plan.segments:
        deployed = apply_merges(deployed, plan)
        deploy = operations(deployed, input_shape)
    became = _became(train, deploy, plan)
    rows = _aligned([*_with_idle(train, trained)], deploy, became)
    total = None if table is None else look_up(deployed, input_shape, table)
    named = [
        replace(row, block_name=arch.blocks[row.block].name, latency_ms=_latency_ms(row.deploy, deployed, table))
        for row in rows
    ]
    beside_ms = 0.0 if table is None else table[NETWORK]
    return BothForms(tuple(named), plan, footprint(deployed, input_shape), total, beside_ms)


def _became(train: Sequence[Operation], deploy: Sequence[Operation], plan: MergePlan) -> dict[str, str]:
    """By the name of a train form's layer: that of the deploy form's layer that it is part of.

    What is fused takes the place of the module that it was: a layer of the train form is part of the layer whose name
    it has, or which has the name of a module around it.
    """
    known = {each.name for each in deploy}
    merged = {name: segment[0] for segment in plan.segments for name in segment}
    became: dict[str, str] = {}
    for each in train:
        path = each.name
        while path and merged.get(path, path) not in known:
            path = path.rpartition(".")[0]
        if path:
            became[each.name] = merged.get(path, path)
    # A convolution that is a fully connected layer on the device has another name there: the one that has no origin.
    for lone in [each for each in deploy if each.params and each.name not in became.values()]:
        origins = [each.name for each in train if each.params and _block(each) == _block(lone)]
        became |= {name: lone.name for name in origins if name not in became}
    return became


def _aligned(train: Sequence[Operation], deploy: Sequence[Operation], became: Mapping[str, str]) -> list[Row]:
    """The rows: a deploy form's layer stands beside the first of its layers that reads and writes as it does.

    Where none does, it has a row of its own after them.
    """
    rows = [(float(i), Row(_block(each), "", each, None, became.get(each.name, ""))) for i, each in enumerate(train)]
    last = -1.0  # place of the layer before
    for layer in deploy:
        own = [i for i, (_, row) in enumerate(rows[: len(train)]) if row.became == layer.name]
        hosts = [i for i in own if rows[i][1].deploy is None and _same_place(train[i], layer)]
        if hosts:
            place, row = rows[hosts[0]]
            rows[hosts[0]] = place, replace(row, deploy=layer)
            last = place
        else:
            last = max([last, *map(float, own)]) + 0.5
            rows.append((last, Row(_block(layer), "", None, layer)))
    return [row for _, row in sorted(rows, key=lambda each: each[0])]


def _same_place(train: Operation, deploy: Operation) -> bool:
    """Whether two layers read maps of one kind, and write such."""
    same_size = train.out_shape[1:] == deploy.out_shape[1:] and len(train.out_shape) == len(deploy.out_shape)
    return same_size and train.entering.jump == deploy.entering.jump and train.field == deploy.field


def _with_idle(train: Sequence[Operation], trained: nn.Module) -> list[Operation]:
    """The layers with what has parameters and does not run for the answer, block by block: auxiliary classifiers."""
    running = {each.name for each in train if each.params}
    idle: dict[str, int] = {}
    for name, parameter in trained.named_parameters():
        if not any(name.startswith(f"{each}.") or name == each for each in running):
            block = ".".join(name.split(".")[:2])
            idle[block] = idle.get(block, 0) + parameter.numel()
    layers = list(train)
    for name, params in idle.items():
        kind = type(trained.get_submodule(name)).__name__
        layer = Operation(name, kind, (), (), Window(), 1, params, 0, IMAGE, IMAGE)
        at = next((i for i, each in enumerate(layers) if _block(each) > _block(layer)), len(layers))
        layers.insert(at, layer)
    return layers


def _latency_ms(layer: Operation | None, deployed: nn.Module, table: Mapping[str, float] | None) -> float | None:
    """The latency of a layer by a table, which has convolutions and linear layers."""
    if layer is None or table is None or layer.kind not in ("Conv2d", "Linear"):
        return None
    channels, height, width = (*layer.in_shape, 1, 1)[:3]
    return table[layer_name(deployed.get_submodule(layer.name), (channels, height, width))]


def _block(layer: Operation) -> int:
    """The place of a layer's block in the architecture."""
    return int(layer.name.split(".")[1])


def strides_dropped(arch: Architecture, input_shape: Shape) -> list[int]:
    """The places of the blocks whose strides are dropped on images of (C, H, W)."""
    stated = [block.stride_or_one for block in arch.blocks]
    return [i for i, (own, real) in enumerate(zip(stated, arch.strides(input_shape), strict=True)) if own != real]


def last_map(layers: Sequence[Operation]) -> Operation | None:
    """The last layer whose output is a map that no global pool has made."""
    maps = [each for each in layers if len(each.out_shape) == 3 and not each.kind.startswith("Adaptive")]
    return next((each for each in reversed(maps) if not is_everywhere(each)), None)


def is_everywhere(layer: Operation) -> bool:
    """Whether a layer's outputs depend on the whole image, since a global pool did its part before."""
    sides: Pair = (layer.out_shape[1], layer.out_shape[2]) if len(layer.out_shape) == 3 else (1, 1)
    return layer.field.everywhere and sides == (1, 1)

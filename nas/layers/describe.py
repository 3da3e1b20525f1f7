"""From an architecture to the layers of its deploy form."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from nas.architecture import Architecture
from nas.blocks import Block, Classifier, run_paddings
from nas.blocks.base import check_sizes
from nas.convolution import Pair
from nas.layers.blocks import BLOCK_LAYERS
from nas.layers.layer import Layer
from nas.layers.merging import merge_cost, merged_layers
from nas.layers.sketch import Map, Sketch


class Part(NamedTuple):
    """One block's layers, the map that leaves it, and whether that is a convolution's and read nowhere else so far."""

    layers: tuple[Layer, ...]
    channels: int
    size: Pair
    after_conv: bool


def deploy_layers(
    arch: Architecture, num_classes: int, input_shape: tuple[int, int, int], merge: str = "none"
) -> tuple[Layer, ...]:
    """What runs on the device for one image, in the order of execution.

    The layers of `nas.networks.builder.build(..., form="deploy")`, read from the architecture alone, in some ten
    microseconds for each block. Views that move no numbers (flattening) are left out.

    Args:
        arch: the architecture.
        num_classes: number of logits.
        input_shape: (C, H, W) of the images; decides which strides apply (`Architecture.strides`).
        merge: name of the cost by which runs of linear convolutions are merged (`LAYER_COSTS`).

    Raises:
        ValueError: an impossible shape, groups that do not fit the channels, a map that vanishes, an unknown cost.
    """
    cost = merge_cost(merge)
    check_sizes(input_shape, num_classes)
    channels, height, width = input_shape
    arch.check(channels)
    blocks = arch.applied(input_shape)
    paddings = run_paddings(blocks)
    part = Part((), channels, (height, width), False)
    layers: list[Layer] = []
    for i, block in enumerate(blocks):
        part = _part(block, paddings.get(i), part.channels, part.size, part.after_conv, num_classes)
        layers += part.layers
    return tuple(layers) if cost is None else merged_layers(tuple(layers), cost)


@lru_cache(maxsize=2**16)  # a search prices thousands of architectures that are made of the same blocks
def _part(
    block: Block, padding: int | None, in_channels: int, in_size: Pair, after_conv: bool, num_classes: int
) -> Part:
    shipped = block.shipped(padding)
    if shipped is None:
        return Part((), in_channels, in_size, after_conv)
    sketch, entering = Sketch(), Map(in_channels, in_size)
    if shipped.name not in BLOCK_LAYERS:  # a plugin's
        raise ValueError(f"block {shipped.name!r} has no layers: it lacks a line in nas.layers.blocks.BLOCK_LAYERS")
    describe = BLOCK_LAYERS[shipped.name]
    more = (num_classes,) if isinstance(shipped, Classifier) else ()
    leaving = describe(sketch, shipped, entering, *more)
    layers, after_conv = sketch.finished(leaving, after_conv)
    return Part(layers, leaving.channels, leaving.size, after_conv)

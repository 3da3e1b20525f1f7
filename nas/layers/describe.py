"""From an architecture to the layers of its deploy form."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from nas.architecture import Architecture
from nas.blocks import Block, Classifier, run_paddings
from nas.blocks.base import check_sizes
from nas.convolution import Pair
from nas.layers.blocks import BLOCK_LAYERS
from nas.layers.layer import Layer
from nas.layers.merging import Span, merge_cost, merged_spans
from nas.layers.sketch import ENTERED, Map, Sketch
from nas.reading import Footprint


class Part(NamedTuple):
    """One block's layers, the map that leaves it, and whether that is a convolution's and read nowhere else so far.

    `alive` and `stored` tell of layers by their place in the block (see `Sketch`), `most_alive` of the numbers that are
    in memory at once, of the map that entered too.
    """

    layers: tuple[Layer, ...]
    channels: int
    size: Pair
    after_conv: bool
    alive: tuple[tuple[int, ...], ...] = ()
    stored: int = ENTERED
    most_alive: int = 0


class Described(NamedTuple):
    """What a deployed network is made of.

    Attributes:
        layers: in the order of execution.
        footprint: the numbers that it keeps in memory.
    """

    layers: tuple[Layer, ...]
    footprint: Footprint


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
    return described(arch, num_classes, input_shape, merge).layers


@lru_cache(maxsize=2**10)  # a search asks for the same ones twice: how large are they, and how fast
def described(
    arch: Architecture, num_classes: int, input_shape: tuple[int, int, int], merge: str = "none"
) -> Described:
    """The same layers, and the numbers that they keep: what `nas.cost.footprint` finds of the network that is built.

    Raises:
        ValueError: see `deploy_layers`.
    """
    parts = list(_parts(arch, num_classes, input_shape))
    merged = _merged([layer for part in parts for layer in part.layers], merge)
    layers = tuple(layer for _, layer in merged)
    spans = [span for span, _ in merged]
    changed = any(end - start > 1 for start, end in spans)
    images = math.prod(input_shape)
    most = _most_alive_merged(parts, spans, images) if changed else _most_alive(parts, images)
    weights = sum(layer.weights for layer in layers)
    return Described(layers, Footprint(weights, sum(layer.other_bytes for layer in layers), most))


def _most_alive(parts: list[Part], images: int) -> int:
    """The most numbers that are in memory while a layer runs; who asks for logits has the images all the while."""
    most, entering = images, ENTERED
    for part in parts:
        most = max(most, part.most_alive + (0 if entering == ENTERED else images))
        entering = entering if part.stored == ENTERED else part.stored
    return most


def _most_alive_merged(parts: list[Part], spans: list[Span], images: int) -> int:
    """The same where each span of layers became one, in the place of its first: it writes what the last one wrote."""
    alive: list[set[int]] = []
    entering = ENTERED
    for part in parts:
        first = len(alive)
        alive += [{ENTERED, entering, *(first + each for each in kept)} for kept in part.alive]
        entering = entering if part.stored == ENTERED else first + part.stored
    layers = [layer for part in parts for layer in part.layers]
    writer = {ENTERED: ENTERED} | {each: end - 1 for start, end in spans for each in range(start, end)}
    elements = {ENTERED: images} | {end - 1: layers[end - 1].out_elements for _, end in spans}
    return max(sum(elements[j] for j in {writer[i] for i in alive[start]}) for start, _ in spans)


def _merged(layers: list[Layer], merge: str) -> list[tuple[Span, Layer]]:
    """The layers that are left by the cost of a name, each with those that it stands for."""
    cost = merge_cost(merge)
    return [((i, i + 1), layer) for i, layer in enumerate(layers)] if cost is None else merged_spans(layers, cost)


def _parts(arch: Architecture, num_classes: int, input_shape: tuple[int, int, int]) -> Iterator[Part]:
    """The blocks of an architecture, in order."""
    check_sizes(input_shape, num_classes)
    channels, height, width = input_shape
    arch.check(channels)
    blocks = arch.applied(input_shape)
    paddings = run_paddings(blocks)
    part = Part((), channels, (height, width), False)
    for i, block in enumerate(blocks):
        part = _part(block, paddings.get(i), part.channels, part.size, part.after_conv, num_classes)
        yield part


@lru_cache(maxsize=2**14)  # a search prices thousands of architectures that are made of the same blocks
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
    alive = sketch.alive()
    most = entering.elements + max((sum(layers[i].out_elements for i in kept) for kept in alive), default=0)
    return Part(layers, leaving.channels, leaving.size, after_conv, alive, sketch.stored(leaving), most)

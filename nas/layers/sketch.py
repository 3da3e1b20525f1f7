"""Sketch: what a part of a network does to a map, written down layer by layer as a network's forward would run it."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from typing import Literal, NamedTuple, cast

from nas.blocks.base import group_norm_groups
from nas.convolution import Pair, convolution, pool_side
from nas.layers.layer import Kind, Layer, conv_layer

ENTERED = -1


class Map(NamedTuple):
    """A map of features: its channels, its height and width, and the layer of the sketch that writes it."""

    channels: int
    size: Pair
    source: int = ENTERED

    @property
    def elements(self) -> int:
        """Numbers in it."""
        return self.channels * self.size[0] * self.size[1]


class Sketch:
    """Layers in the order of their execution: each method writes one down (or more) and returns the map it makes.

    A branch is written to its end before the next one begins.
    """

    def __init__(self) -> None:
        self._layers: list[Layer] = []
        self._only_source: list[int | None] = []  # of each layer that reads one map
        self._reads = [0]  # of the map that entered, then of each layer's
        self._stored = [ENTERED]  # of each of these maps: the layer that wrote its numbers, another one's for a view
        self._last_use = [ENTERED]  # of each of these maps: the last layer while which its numbers are kept

    def finished(self, leaving: Map, after_conv: bool) -> tuple[tuple[Layer, ...], bool]:
        """The layers, with `Layer.follows` filled in, and whether what leaves is a convolution's and read nowhere here.

        Args:
            leaving: the map that leaves.
            after_conv: the same for the map that entered.
        """
        layers, from_conv = list(self._layers), [after_conv, *(layer.kind == "conv" for layer in self._layers)]
        for i, (layer, source) in enumerate(zip(self._layers, self._only_source, strict=True)):
            if layer.kind == "conv" and source == i - 1 and from_conv[i] and self._reads[i] == 1:
                layers[i] = dataclasses.replace(layer, follows=True)
        return tuple(layers), from_conv[leaving.source + 1] and self._reads[leaving.source + 1] == 0

    def alive(self) -> tuple[tuple[int, ...], ...]:
        """For each layer, the layers whose numbers are in memory while it runs: its own, what it reads, what is kept.

        Those of the map that entered, which is kept to the end, are not told.
        """
        return tuple(
            tuple(j for j in range(i + 1) if self._stored[j + 1] == j and self._last_use[j + 1] >= i)
            for i in range(len(self._layers))
        )

    def stored(self, x: Map) -> int:
        """The layer that wrote a map's numbers; ENTERED for those of the map that entered."""
        return self._stored[x.source + 1]

    def keep(self, *maps: Map) -> None:
        """Keeps maps until after the last layer so far, as a forward does whose caller or variable still has them."""
        for each in maps:
            self._last_use[self.stored(each) + 1] = len(self._layers) - 1

    def conv(
        self,
        x: Map,
        out_channels: int,
        kernel_size: int | Pair = 1,
        *,
        stride: int = 1,
        padding: int | None = None,
        dilation: int = 1,
        groups: int = 1,
        norm: str = "batch",
        bias: bool = True,
    ) -> Map:
        """What is left of a convolution and its normalization, with the meanings of `nas.networks.bricks.conv_norm`.

        BatchNorm leaves a bias, GroupNorm stays, and `bias` is for convolutions without normalization.
        """
        biased = norm == "batch" or (norm == "none" and bias)
        layer = _conv_layer(x.channels, out_channels, kernel_size, stride, padding, dilation, groups, biased, x.size)
        y = self._add(layer, x)
        if norm != "group":
            return y
        normed = self.norm(y, norm)
        self.keep(x)
        return normed

    def linear(self, x: Map, features: int) -> Map:
        """A fully connected layer of all numbers of a map."""
        return self._add(Layer("linear", x.elements, features, (1, 1), (1, 1), bias=True), x)

    def norm(self, x: Map, norm: str) -> Map:
        """A normalization by itself, which stays; nothing for "none"."""
        if norm == "none":
            return x
        if norm == "batch":
            return self._each(x, "batch_norm")
        return self._each(x, "group_norm", group_norm_groups(x.channels))

    def activation(self, x: Map, name: str) -> Map:
        """An activation by its name in a block; nothing for "none"."""
        return x if name == "none" else self._each(x, cast(Kind, name))

    def pool(
        self, x: Map, kind: str, kernel_size: int, stride: int = 1, padding: int = 0, *, ceil: bool = False
    ) -> Map:
        """A pool, `kind` being "max" or "avg"."""
        height, width = (pool_side(side, kernel_size, stride, padding, ceil) for side in x.size)
        square = (kernel_size, kernel_size), (stride, stride), (padding, padding)
        word: Literal["max_pool", "avg_pool"] = "max_pool" if kind == "max" else "avg_pool"
        return self._add(Layer(word, x.channels, x.channels, x.size, (height, width), *square), x)

    def global_pool(self, x: Map, side: int = 1) -> Map:
        """The average of a map in `side` times `side` shares."""
        return self._add(Layer("global_pool", x.channels, x.channels, x.size, (side, side)), x)

    def add(self, x: Map, y: Map) -> Map:
        """The sum of two maps of one shape."""
        return self._add(_keeping("add", x.channels, x.size, second_elements=y.elements), x, y)

    def multiply(self, x: Map, gate: Map) -> Map:
        """A map with each channel scaled by its number in `gate`."""
        return self._add(_keeping("multiply", x.channels, x.size, second_elements=gate.elements), x, gate)

    def concat(self, *parts: Map) -> Map:
        """Maps side by side; one by itself stays as it is."""
        if len(parts) == 1:
            return parts[0]
        return self._add(_keeping("concat", sum(part.channels for part in parts), parts[0].size), *parts)

    def split(self, x: Map) -> tuple[Map, Map]:
        """The two halves of a map's channels."""
        both = self._each(x, "split")
        self._stored[both.source + 1] = self.stored(x)
        half = x.channels // 2
        return both._replace(channels=x.channels - half), both._replace(channels=half)

    def shuffle(self, x: Map, groups: int) -> Map:
        """Channels read across the groups."""
        y = self._each(x, "shuffle", groups)
        if groups in (1, x.channels):  # in the order in which they are
            self._stored[y.source + 1] = self.stored(x)
        return y

    def squeeze_excite(self, x: Map, squeeze_channels: int) -> Map:
        """Squeeze-excitation with a hard-sigmoid gate."""
        squeezed = self.activation(self.conv(self.global_pool(x), squeeze_channels), "relu")
        return self.multiply(x, self._each(self.conv(squeezed, x.channels), "hardsigmoid"))

    def _each(self, x: Map, kind: Kind, groups: int = 1) -> Map:
        return self._add(_keeping(kind, x.channels, x.size, groups), x)

    def _add(self, layer: Layer, *sources: Map) -> Map:
        if layer.out_size[0] < 1 or layer.out_size[1] < 1:
            raise ValueError(f"{layer.kind} of kernel {layer.kernel_size} leaves nothing of a map of {layer.in_size}")
        self._layers.append(layer)
        self._only_source.append(sources[0].source if len(sources) == 1 else None)
        self._reads.append(0)
        self._stored.append(len(self._layers) - 1)
        self._last_use.append(len(self._layers) - 1)
        for each in sources:
            self._reads[each.source + 1] += 1
        self.keep(*sources)
        return Map(layer.out_channels, layer.out_size, len(self._layers) - 1)


# Networks are made of few different layers, and so of few different convolutions on maps of few sizes.


@lru_cache(maxsize=2**16)
def _conv_layer(
    in_channels: int,
    out_channels: int,
    kernel_size: int | Pair,
    stride: int,
    padding: int | None,
    dilation: int,
    groups: int,
    bias: bool,
    in_size: Pair,
) -> Layer:
    how = {"stride": stride, "dilation": dilation, "groups": groups}
    conv = convolution(in_channels, out_channels, kernel_size, padding=padding, bias=bias, **how)
    return conv_layer(conv, in_size, conv.out_size(in_size))


@lru_cache(maxsize=2**16)
def _keeping(kind: Kind, channels: int, size: Pair, groups: int = 1, second_elements: int = 0) -> Layer:
    """A layer that leaves a map's shape as it is."""
    return Layer(kind, channels, channels, size, size, groups=groups, second_elements=second_elements)

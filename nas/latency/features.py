"""What latency is regressed on: sums over a network's layers, by kinds of layers that runtimes compute alike.

Runtimes vectorize convolutions over blocks of channels, which fills channels up to whole blocks. Where what computes in
blocks meets what does not, the map is laid out anew, which costs as much as a small layer. Within a convolution, pixels
whose window reaches over the border are computed one by one, all others several at once; on small maps the former
decide. Who computes how is taken from ONNX Runtime's blocked convolutions (its `nchwc_transformer` and `snchwc.cpp`,
https://github.com/microsoft/onnxruntime), which resemble other runtimes' closely enough to learn from: it only groups
and counts, the costs are measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from nas.latency.regression import Array
from nas.layers import Layer

FEATURES_VERSION = 1  # counts up with every change here: stored calibrations are refused then
BLOCK = 16  # channels
ALIGNED = 4  # maps of multiples of this many channels can be laid out in blocks
SET = 4  # blocks of output channels that are computed at once
PIXELS = 6  # of a row that are computed at once

POOLS = ("max_pool", "avg_pool", "global_pool")
ACTIVATIONS = ("relu", "relu6", "hswish", "silu", "gelu", "hardsigmoid")
KEEPING = (*ACTIVATIONS, "batch_norm", "add")  # compute in whatever layout they meet
OTHERS = ("linear", "group_norm", "multiply", "concat", "split", "shuffle")
WAYS = ("blocked", "plain")
DENSE = ("pointwise", "dense3", "dense5", "dense7")  # by the longer side of the kernel, even ones with the next
LAYOUTS = ("to blocks", "from blocks")

KINDS = (
    *(f"{conv}/{way}" for conv in DENSE for way in (*WAYS, "few channels")),
    *(f"{kind}/{way}" for kind in ("depthwise", "grouped", *KEEPING, *POOLS) for way in WAYS),
    *OTHERS,
    *LAYOUTS,
)
PLACES = {kind: place for place, kind in enumerate(KINDS)}


class Figures(NamedTuple):
    """What is summed over the layers of a kind; channels are filled up to blocks where they are computed in blocks.

    Attributes:
        layers: how many.
        macs: multiply-adds, those on padding left out.
        steps: multiply-adds that wait for one another: pixels and channels computed at once count as one.
        read: numbers of the maps that enter.
        written: numbers of the maps that leave, as often as they are added to.
        weights: numbers of kernels.
        calls: of the innermost routine.
    """

    layers: float = 1
    macs: float = 0
    steps: float = 0
    read: float = 0
    written: float = 0
    weights: float = 0
    calls: float = 0


# Rough prices, in microseconds: they bring figures to one scale, on which a regression that knows little yet weighs
# them alike. What they cost on a device is learned.
PRICES = Figures(layers=1, macs=1e-5, steps=1e-3, read=1e-4, written=1e-4, weights=1e-4, calls=2e-2)
CACHES = (2**16, 2**18, 2**20, 2**22)  # numbers; weights beyond a cache's size are fetched anew for each image


class _Layout(NamedTuple):
    """Whether the latest map is in blocks, and whether the one is that a gate is being computed for."""

    blocked: bool = False
    gated_blocked: bool = False


class _Described(NamedTuple):
    """What one layer adds: numbers and their places among the sums, its weights, and the layout after it."""

    places: tuple[int, ...]
    numbers: tuple[float, ...]
    weights: float
    after: _Layout


def features(layers: Sequence[Layer]) -> Array:
    """What a network computes and moves.

    Args:
        layers: of the network, in order.

    Returns:
        (kinds * figures + caches,): the sums of `Figures` by kind, and how far all weights together exceed caches, each
        times its rough price. All but the last add up over networks that run one after the other.
    """
    places: list[int] = []
    numbers: list[float] = []
    weights, layout = 0.0, _Layout()
    for layer in layers:
        described = _described(layer, layout)
        places += described.places
        numbers += described.numbers
        weights += described.weights
        layout = described.after
    sums = np.bincount(np.array(places, dtype=np.intp), numbers, len(KINDS) * len(PRICES))
    beyond = [PRICES.weights * max(0.0, weights - cache) for cache in CACHES]
    return np.concatenate([sums * np.tile(PRICES, len(KINDS)), beyond])


@lru_cache(maxsize=2**16)
def _described(layer: Layer, before: _Layout) -> _Described:
    kind, reads, writes = _way(layer, before.blocked)
    moved = 0
    if layer.kind == "multiply":
        # the gate is laid out anew, and the map that it scales too, unless that was done for the pool before the gate
        moved = layer.second_elements * before.blocked
        moved += (layer.in_elements - layer.second_elements) * before.gated_blocked
    elif reads != before.blocked:
        moved = _filled(layer.in_channels) * math.prod(layer.in_size)
    figures = {kind: _figures(layer, reads, writes)}
    if moved:
        figures[LAYOUTS[not reads]] = Figures(read=moved)
    numbers = {
        PLACES[kind] * len(PRICES) + place: number
        for kind, row in figures.items()
        for place, number in enumerate(row)
        if number
    }
    gated = writes if layer.kind == "global_pool" else before.gated_blocked and layer.kind != "multiply"
    return _Described(tuple(numbers), tuple(numbers.values()), figures[kind].weights, _Layout(writes, gated))


def _way(layer: Layer, blocked: bool) -> tuple[str, bool, bool]:
    """A layer's kind, and whether the maps that it reads and writes are in blocks, given whether the latest one is."""
    if layer.kind == "conv":
        return _conv_way(layer)
    if layer.kind in KEEPING:
        return f"{layer.kind}/{WAYS[not blocked]}", blocked, blocked
    if layer.kind in POOLS:
        fits = layer.in_channels % BLOCK == 0
        return f"{layer.kind}/{WAYS[not fits]}", fits, fits
    return layer.kind, False, False


def _conv_way(layer: Layer) -> tuple[str, bool, bool]:
    if layer.groups == 1:
        kind = DENSE[min(max(layer.kernel_size) // 2, len(DENSE) - 1)]
        if layer.in_channels < BLOCK:
            return f"{kind}/few channels", False, True
        fits = layer.in_channels % ALIGNED == 0
    elif _is_depthwise(layer):
        kind, fits = "depthwise", layer.in_channels % ALIGNED == 0
    else:
        kind = "grouped"
        fits = all(channels // layer.groups % BLOCK == 0 for channels in (layer.in_channels, layer.out_channels))
    return f"{kind}/{WAYS[not fits]}", fits, fits


def _figures(layer: Layer, reads: bool, writes: bool) -> Figures:
    if layer.kind == "conv":
        return _conv_figures(layer, reads, writes)
    return Figures(macs=layer.macs, read=layer.in_elements, written=layer.out_elements, weights=layer.weights)


def _conv_figures(layer: Layer, reads: bool, writes: bool) -> Figures:
    entering = _filled(layer.in_channels) if reads else layer.in_channels
    leaving = _filled(layer.out_channels) if writes else layer.out_channels
    depthwise, pointwise = _is_depthwise(layer), layer.kernel_size == (1, 1)
    summed = 1 if depthwise else entering // layer.groups  # channels that a number is a sum over
    sets = leaving // BLOCK if depthwise else layer.groups * math.ceil(leaving / layer.groups / BLOCK / SET)
    passes = 1 if pointwise else max(1, summed // BLOCK)  # a block of channels at a time is added to what leaves
    taps, steps, calls = _windows_of(layer)
    return Figures(
        macs=summed * leaving * taps,
        steps=steps * summed * sets if writes else 0,
        read=entering * math.prod(layer.in_size),
        written=leaving * math.prod(layer.out_size) * passes,
        weights=summed * leaving * math.prod(layer.kernel_size),
        calls=calls * sets * passes if writes else 0,
    )


def _windows_of(layer: Layer) -> tuple[int, int, int]:
    """Of one channel: taps on pixels, the same with whole windows computed several at once, and calls."""
    if layer.kernel_size == (1, 1):  # the whole map is one row
        pixels = math.prod(layer.out_size)
        return pixels, math.ceil(pixels / PIXELS), 1
    (rows, _, _), (columns, steps, calls) = (_axis(layer, axis) for axis in (0, 1))
    return rows * columns, rows * steps, layer.out_size[0] * calls


def _axis(layer: Layer, axis: int) -> tuple[int, int, int]:
    return _windows(
        layer.in_size[axis],
        layer.out_size[axis],
        layer.kernel_size[axis],
        layer.stride[axis],
        layer.padding[axis],
        layer.dilation[axis],
    )


@lru_cache(maxsize=2**12)
def _windows(side: int, outputs: int, kernel: int, stride: int, padding: int, dilation: int) -> tuple[int, int, int]:
    """Along one side of a map: taps on pixels, the same with whole windows computed several at once, and calls.

    Windows that reach over the border take a call each, all others one together.
    """
    taps = [
        sum(0 <= output * stride - padding + tap * dilation < side for tap in range(kernel))
        for output in range(outputs)
    ]
    whole = taps.count(kernel)
    steps = sum(taps) - kernel * whole + kernel * math.ceil(whole / PIXELS)
    return sum(taps), steps, outputs - whole + (whole > 0)


def _is_depthwise(layer: Layer) -> bool:
    return 1 < layer.groups == layer.in_channels == layer.out_channels


def _filled(channels: int) -> int:
    return math.ceil(channels / BLOCK) * BLOCK

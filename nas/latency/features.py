"""What latency is regressed on: sums over a network's layers, by kinds of layers that runtimes compute alike.

Runtimes vectorize convolutions over blocks of channels. Layers whose widths do not fit take another way, and where one
way meets the other, the map is laid out anew, which costs as much as a small layer. Who takes which way is taken from
ONNX Runtime's blocked convolutions (its `nchwc_transformer`), which resemble other runtimes' closely enough to learn
from: it only groups layers, the costs are measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from nas.latency.regression import Array
from nas.layers import Layer

FEATURES_VERSION = 1  # counts up with every change here: stored calibrations are refused then
BLOCK = 16  # channels

POOLS = ("max_pool", "avg_pool", "global_pool")
ACTIVATIONS = ("relu", "relu6", "hswish", "silu", "gelu", "hardsigmoid")
OTHERS = ("linear", "batch_norm", "group_norm", "add", "multiply", "concat", "split", "shuffle")
WAYS = ("blocked", "plain")
CONVOLUTIONS = ("pointwise", "dense", "depthwise3", "depthwise5", "depthwise", "grouped")
WIDTHS = ("16", "8", "any")
LAYOUTS = ("to blocks", "from blocks")

KINDS = (
    *(
        f"{conv}/{widths}/{way}{stride}"
        for conv in CONVOLUTIONS
        for widths in WIDTHS
        for way in WAYS
        for stride in ("", "/strided")
    ),
    *(f"{kind}/{way}" for kind in (*ACTIVATIONS, *POOLS) for way in WAYS),
    *OTHERS,
    *LAYOUTS,
)
PLACES = {kind: place for place, kind in enumerate(KINDS)}
FIGURES = 6  # of each kind: layers, MACs, MACs of padded blocks, numbers read, written, learned


def features(layers: Sequence[Layer]) -> Array:
    """(kinds * FIGURES,): of each kind how many there are, and their sums of what they compute, read and write."""
    sums = np.zeros((len(KINDS), FIGURES))
    blocked = False
    for layer in layers:
        place, row, way = _described(layer, blocked)
        sums[place] += row
        if way != blocked and layer.kind not in ACTIVATIONS:
            sums[PLACES[LAYOUTS[not way]]] += (1, 0, 0, layer.in_elements, 0, 0)
        blocked = way
    return sums.ravel()


@lru_cache(maxsize=2**16)
def _described(layer: Layer, after_blocked: bool) -> tuple[int, Array, bool]:
    """A layer's kind, its figures, and whether it computes in blocks, given whether the layer before it does."""
    way = _in_blocks(layer, after_blocked)
    figures = (1, layer.macs, _padded_macs(layer), layer.in_elements, layer.out_elements, layer.weights)
    return PLACES[_kind(layer, WAYS[not way])], np.array(figures, dtype=np.float64), way


def _in_blocks(layer: Layer, after_blocked: bool) -> bool:
    if layer.kind in ACTIVATIONS:
        return after_blocked
    if layer.kind in POOLS:
        return after_blocked and layer.in_channels % BLOCK == 0
    if layer.kind != "conv":
        return False
    if layer.groups == 1:
        return layer.in_channels < 4 or layer.in_channels % 4 == 0
    if _is_depthwise(layer):
        return layer.in_channels % BLOCK == 0
    return all(channels // layer.groups % BLOCK == 0 for channels in (layer.in_channels, layer.out_channels))


def _padded_macs(layer: Layer) -> int:
    """MACs with the output channels of dense convolutions filled up to blocks."""
    if layer.kind != "conv" or layer.groups > 1:
        return layer.macs
    return layer.macs // layer.out_channels * math.ceil(layer.out_channels / BLOCK) * BLOCK


def _kind(layer: Layer, way: str) -> str:
    if layer.kind in (*ACTIVATIONS, *POOLS):
        return f"{layer.kind}/{way}"
    if layer.kind != "conv":
        return layer.kind
    if layer.groups == 1:
        conv = "pointwise" if layer.kernel_size == (1, 1) else "dense"
    elif _is_depthwise(layer):
        conv = f"depthwise{layer.kernel_size[0]}" if layer.kernel_size[0] in (3, 5) else "depthwise"
    else:
        conv = "grouped"
    channels = (layer.in_channels, layer.out_channels)
    widths = next((each for each in ("16", "8") if all(width % int(each) == 0 for width in channels)), "any")
    return f"{conv}/{widths}/{way}{'/strided' if max(layer.stride) > 1 else ''}"


def _is_depthwise(layer: Layer) -> bool:
    return layer.groups == layer.in_channels == layer.out_channels

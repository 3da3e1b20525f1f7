"""Layer: one operation on the device as a value, with what it computes, reads and writes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from nas.convolution import Convolution, Pair

Kind = Literal[
    "conv",
    "linear",
    "batch_norm",
    "group_norm",
    "relu",
    "relu6",
    "hswish",
    "silu",
    "gelu",
    "hardsigmoid",
    "max_pool",
    "avg_pool",
    "global_pool",
    "add",
    "multiply",
    "concat",
    "split",
    "shuffle",
]

TRAINED_NORMS = ("batch_norm", "group_norm")
BATCH_NORM_BYTES = 8  # of a channel's running mean and variance
COUNTER_BYTES = 8  # of the batches that a BatchNorm has seen


@dataclass(frozen=True)
class Layer:
    """One operation of a deployed network for one image.

    Layers that are equal cost the same, wherever they stand.

    Attributes:
        kind: what it does; an activation's own name. A `global_pool` averages to any fixed size, a `linear` layer has
            features for channels, a `split` halves the channels.
        in_channels: channels that enter; of a concatenation all.
        out_channels: channels that leave.
        in_size: height and width of the map that enters; (1, 1) for features.
        out_size: height and width of the map that leaves.
        kernel_size: taps of height and width of a convolution or pool, dilation left aside.
        stride: of height and width.
        padding: pixels on each side, of height and width.
        dilation: distance of a convolution's taps, of height and width.
        groups: of a convolution, a GroupNorm or a channel shuffle.
        bias: whether a convolution or linear layer has one.
        second_elements: numbers of the second operand of a sum (as many as of the first) or a product (a gate).
        follows: whether this and the layer before it are convolutions, and this one alone reads what that one writes;
            two such are linear together. It tells where a layer stands, and is no part of its identity.
    """

    kind: Kind
    in_channels: int
    out_channels: int
    in_size: Pair
    out_size: Pair
    kernel_size: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    bias: bool = False
    second_elements: int = 0
    follows: bool = field(default=False, compare=False)

    @property
    def convolution(self) -> Convolution:
        """The structure of a layer of kind "conv"."""
        return Convolution(
            self.in_channels,
            self.out_channels,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            self.bias,
        )

    @cached_property
    def weights(self) -> int:
        """Numbers of the kernel of a convolution or linear layer, the bias left aside; 0 for other kinds."""
        if self.kind not in ("conv", "linear"):
            return 0
        return self.out_channels * (self.in_channels // self.groups) * math.prod(self.kernel_size)

    @cached_property
    def params(self) -> int:
        """Trained numbers, as `nas.cost.count` counts them: weights and biases, a norm's scale and shift."""
        if self.kind in TRAINED_NORMS:
            return 2 * self.in_channels
        return self.weights + (self.out_channels if self.bias else 0)

    @cached_property
    def other_bytes(self) -> int:
        """Bytes of what it keeps besides weights, as `nas.cost.footprint` counts them: biases, norms' numbers."""
        statistics = BATCH_NORM_BYTES * self.in_channels + COUNTER_BYTES if self.kind == "batch_norm" else 0
        return 4 * (self.params - self.weights) + statistics

    @cached_property
    def macs(self) -> int:
        """Multiply-adds, as `nas.cost.count` counts them: those of convolutions and linear layers."""
        return self.weights * math.prod(self.out_size)

    @property
    def in_elements(self) -> int:
        """Numbers that it reads, but for its own."""
        return self.in_channels * math.prod(self.in_size) + self.second_elements

    @cached_property
    def out_elements(self) -> int:
        """Numbers that it writes."""
        return self.out_channels * math.prod(self.out_size)


def conv_layer(conv: Convolution, in_size: Pair, out_size: Pair, follows: bool = False) -> Layer:
    """The layer of a convolution on a map of `in_size`."""
    return Layer(
        "conv",
        conv.in_channels,
        conv.out_channels,
        in_size,
        out_size,
        conv.kernel_size,
        conv.stride,
        conv.padding,
        conv.dilation,
        conv.groups,
        conv.bias,
        follows=follows,
    )

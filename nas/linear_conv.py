"""A convolution as a value: what the algebra of `nas.fusion` reckons with."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from nas.convolution import Convolution, Pair


@dataclass(frozen=True, eq=False)
class LinearConv:
    """A two-dimensional convolution as tensors: the affine map that `torch.nn.functional.conv2d` computes.

    Attributes:
        weight: (out_channels, in_channels / groups, kh, kw).
        bias: (out_channels,), or None where there is none.
        stride: of height and width.
        padding: zeros on each side, of height and width.
        dilation: distance of the taps, of height and width.
        groups: number of groups; each reads a contiguous share of the channels.

    Raises:
        ValueError: a weight that is not of four dimensions, or groups that do not divide its channels.
    """

    weight: Tensor
    bias: Tensor | None
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def __post_init__(self) -> None:
        if self.weight.dim() != 4:
            raise ValueError(f"weight of shape {tuple(self.weight.shape)} is not that of a 2-d convolution")
        if self.groups < 1 or self.out_channels % self.groups:
            raise ValueError(f"groups={self.groups} must divide the {self.out_channels} output channels")

    @property
    def out_channels(self) -> int:
        """Channels that leave."""
        return self.weight.shape[0]

    @property
    def in_channels(self) -> int:
        """Channels that enter."""
        return self.weight.shape[1] * self.groups

    @property
    def kernel_size(self) -> Pair:
        """Taps of height and width, dilation left aside."""
        return self.weight.shape[2], self.weight.shape[3]

    @property
    def extent(self) -> Pair:
        """Input rows and columns that one output pixel spans: (kernel - 1) * dilation + 1."""
        height, width = self.kernel_size
        return (height - 1) * self.dilation[0] + 1, (width - 1) * self.dilation[1] + 1

    @property
    def structure(self) -> Convolution:
        """The same convolution without its numbers."""
        return Convolution(
            *(self.in_channels, self.out_channels, self.kernel_size, self.stride, self.padding, self.dilation),
            groups=self.groups,
            bias=self.bias is not None,
        )

    def apply(self, x: Tensor) -> Tensor:
        """The convolution of `x`: (N, in_channels, H, W) to (N, out_channels, H', W')."""
        return conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def to(self, dtype: torch.dtype) -> LinearConv:
        """The same convolution with tensors of another dtype."""
        bias = None if self.bias is None else self.bias.to(dtype)
        return dataclasses.replace(self, weight=self.weight.to(dtype), bias=bias)

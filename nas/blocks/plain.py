"""Blocks without branches on the device: convolutions, separable convolutions, pools, activations."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from nas import block_fields as fields
from nas.block_fields import Value
from nas.blocks.base import Block, NormedBlock, padding_pixels
from nas.convolution import conv_side, pool_side, same_padding


@dataclass(frozen=True, kw_only=True)
class Conv(NormedBlock):
    """Convolution, normalization, activation: stems, plain networks (AlexNet, VGG, NiN), 1x1 heads.

    While it trains, linear branches may stand beside the convolution; they are summed into it when fused:
    `repvgg` adds a 1x1 and an identity (arXiv:2101.03697; with `branch_count` above 1 as in MobileOne,
    arXiv:2206.04040), `acnet` 1xk and kx1 (arXiv:1908.03930), `dbb` 1x1, 1x1-kxk and 1x1-average pool
    (arXiv:2103.13425).
    """

    name: ClassVar[str] = "conv"
    out_channels: int = fields.out_channels()
    kernel_size: int = fields.kernel_size(odd=False)
    stride: int = fields.stride()
    padding: int | str = fields.padding()
    dilation: int = fields.dilation()
    groups: int = fields.groups("groups of the convolution")
    bias: bool = fields.flag(True, "whether the convolution has a bias, where no normalization follows it")
    branches: str = fields.branches()
    branch_count: int = fields.branch_count()

    def grouped_convolutions(self, in_channels: int) -> tuple[tuple[int, int, int], ...]:
        """See `Block.grouped_convolutions`."""
        return ((in_channels, self.out_channels, self.groups),)

    @property
    def padding_pixels(self) -> int:
        """Zeros on each side."""
        return padding_pixels(self.padding, self.kernel_size, self.dilation)

    def resolved(self, in_channels: int | None) -> dict[str, Value]:
        """See `Block.resolved`."""
        branches, count = self.effective_branches(in_channels)
        return {
            "padding": self.padding_pixels,
            "dilation": self.dilation if self.kernel_size > 1 else 1,
            "bias": self.bias or self.norm != "none",
            "branches": branches,
            "branch_count": count,
        }

    def effective_branches(self, in_channels: int | None) -> tuple[str, int]:
        """`branches` and `branch_count` where there may be any: the kernel has a centre, and each its BatchNorm.

        With another padding than `same` there are none (`centred`); but small images make it `same`.
        """
        if self.norm != "batch" or self.kernel_size % 2 == 0:
            return "none", 1
        return effective_branches(self.branches, self.kernel_size, self.keeps_channels(in_channels)), self.branch_count

    @property
    def centred(self) -> bool:
        """Whether the kernel's centre runs over the map's pixels, so that branches line up with it."""
        return self.padding_pixels == same_padding(self.kernel_size, self.dilation)

    def output_side(self, side: int) -> int:
        """See `Block.output_side`."""
        return conv_side(side, self.kernel_size, self.stride, self.padding_pixels, self.dilation)


def effective_branches(branches: str, kernel_size: int, keeps_channels: bool) -> str:
    """What `branches` comes to: a 1x1 convolution has nothing beside it but, with `repvgg`, the identity."""
    return branches if kernel_size > 1 or (branches == "repvgg" and keeps_channels) else "none"


@dataclass(frozen=True, kw_only=True)
class Separable(NormedBlock):
    """Depthwise kxk, then pointwise 1x1: MobileNetV1's block (arXiv:1704.04861) and MobileOne's.

    With `mid_activation: none` there is no normalization in the middle either, as in Xception (arXiv:1610.02357).
    """

    name: ClassVar[str] = "separable"
    out_channels: int = fields.out_channels()
    kernel_size: int = fields.kernel_size()
    stride: int = fields.stride()
    dilation: int = fields.dilation()
    depth_multiplier: int = fields.number(int, 1, 1, 16, "middle channels over input channels")
    mid_activation: str = fields.activation("activation after the depthwise convolution")
    branches: str = fields.branches()
    branch_count: int = fields.branch_count()

    def resolved(self, in_channels: int | None) -> dict[str, Value]:
        """See `Block.resolved`."""
        branches, count = self.effective_branches()
        return {"branches": branches, "branch_count": count, "dilation": self.dilation if self.kernel_size > 1 else 1}

    def effective_branches(self) -> tuple[str, int]:
        """`branches` and `branch_count` of both convolutions, where each has its BatchNorm."""
        normed = self.norm == "batch" and self.mid_activation != "none"
        return (self.branches, self.branch_count) if normed else ("none", 1)


@dataclass(frozen=True, kw_only=True)
class Pool(Block):
    """Pooling between blocks; left out where images are too small for its stride."""

    name: ClassVar[str] = "pool"
    kind: str = fields.word("max", ("max", "avg"), "maximum or average")
    kernel_size: int = fields.kernel_size(2, odd=False)
    stride: int = fields.stride(2)
    padding: int | str = fields.padding(0)
    ceil: bool = fields.flag(False, "whether a window that hangs over the edge counts")
    dropout: float = fields.dropout()

    @property
    def padding_pixels(self) -> int:
        """Zeros (or, for the maximum, nothing) on each side; a pool takes at most half its window."""
        return min(padding_pixels(self.padding, self.kernel_size), self.kernel_size // 2)

    def resolved(self, in_channels: int | None) -> dict[str, Value]:
        """See `Block.resolved`."""
        return {"padding": self.padding_pixels}

    def output_side(self, side: int) -> int:
        """See `Block.output_side`."""
        return pool_side(side, self.kernel_size, self.stride, self.padding_pixels, self.ceil)

    def without_stride(self) -> Block:
        """See `Block.without_stride`: nothing is left of the pool."""
        return dataclasses.replace(self, kernel_size=1, stride=1, padding=0)


@dataclass(frozen=True, kw_only=True)
class NormActivation(Block):
    """Normalization and activation by themselves, the end of pre-activation networks.

    What comes before it is a sum or a concatenation, so its BatchNorm has no convolution to fold into and stays.
    """

    name: ClassVar[str] = "norm_activation"
    activation: str = fields.activation()
    norm: str = fields.word("batch", ("batch", "group"), "normalization")
    norm_eps: float = fields.norm_eps()

    def norm_stays(self) -> bool:
        """See `Block.norm_stays`."""
        return True


@dataclass(frozen=True, kw_only=True)
class SeriesActivation(Block):
    """VanillaNet's activation: a ReLU, then a depthwise convolution over (2 n + 1)^2 pixels (arXiv:2305.12972)."""

    name: ClassVar[str] = "series_activation"
    series: int = fields.number(int, 3, 1, 7, "pixels on each side that an output sees")
    norm_eps: float = fields.norm_eps()

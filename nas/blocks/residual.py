"""Blocks with a sum around them: ResNet's, MobileNetV2's, Xception's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from nas import block_fields as fields
from nas.block_fields import Value
from nas.blocks.base import NormedBlock, round_channels, scaled


class SquareConv(NamedTuple):
    """One convolution of a block, padded so that stride 1 keeps a map's size."""

    in_channels: int
    out_channels: int
    kernel_size: int
    stride: int = 1
    groups: int = 1


@dataclass(frozen=True, kw_only=True)
class InvertedResidual(NormedBlock):
    """MobileNetV2's and V3's block: 1x1 to the wide middle, depthwise kxk, 1x1 back, plus the input.

    Without the first 1x1 where `expansion` is 1, and without the residual where shapes differ.
    Sandler et al. 2018, https://arxiv.org/abs/1801.04381; Howard et al. 2019, https://arxiv.org/abs/1905.02244.
    """

    name: ClassVar[str] = "inverted_residual"
    out_channels: int = fields.out_channels()
    kernel_size: int = fields.kernel_size()
    stride: int = fields.stride()
    expansion: float = fields.number(float, 6.0, 0.125, 64, "middle channels over input channels", shapes=True)
    groups: int = fields.groups("groups of the 1x1 convolutions")
    se_ratio: float = fields.number(float, 0.0, 0, 1, "squeeze-excitation channels over middle channels; 0: none")
    activation: str = fields.activation(default="relu6")
    drop_path: float = fields.drop_path()

    def mid_channels(self, in_channels: int) -> int:
        """Channels of the depthwise convolution."""
        return scaled(in_channels, self.expansion)

    def se_channels(self, in_channels: int) -> int:
        """Channels of the squeeze, a multiple of 8 as in MobileNetV3; 0 without squeeze-excitation."""
        return round_channels(self.mid_channels(in_channels) * self.se_ratio) if self.se_ratio else 0

    def resolved(self, in_channels: int | None) -> dict[str, Value]:
        """See `Block.resolved`."""
        if in_channels is None:
            return {}
        kept = {} if self.keeps_channels(in_channels) else {"drop_path": 0.0}
        return {"expansion": self.mid_channels(in_channels), "se_ratio": self.se_channels(in_channels), **kept}

    def grouped_convolutions(self, in_channels: int) -> tuple[tuple[int, int, int], ...]:
        """See `Block.grouped_convolutions`."""
        mid = self.mid_channels(in_channels)
        expand = ((in_channels, mid, self.groups),) if mid != in_channels else ()
        return (*expand, (mid, self.out_channels, self.groups))


@dataclass(frozen=True, kw_only=True)
class Basic(NormedBlock):
    """ResNet's basic block: two kxk convolutions and the input (He et al. 2015, arXiv:1512.03385).

    With `pre_activation` normalization and activation come before each convolution (arXiv:1603.05027), as in
    Wide ResNet (arXiv:1605.07146); the first normalization then stays on the device.
    """

    name: ClassVar[str] = "basic"
    out_channels: int = fields.out_channels()
    kernel_size: int = fields.kernel_size()
    stride: int = fields.stride()
    expansion: float = fields.number(float, 1.0, 0.125, 16, "middle channels over output channels", shapes=True)
    groups: int = fields.groups("groups of the kxk convolutions")
    pre_activation: bool = fields.flag(False, "normalization and activation before each convolution")
    drop_path: float = fields.drop_path()

    def mid_channels(self) -> int:
        """Channels between the convolutions."""
        return scaled(self.out_channels, self.expansion)

    def resolved(self, in_channels: int | None) -> dict[str, Value]:
        """See `Block.resolved`."""
        return {"expansion": self.mid_channels()}

    def norm_stays(self) -> bool:
        """See `Block.norm_stays`."""
        return super().norm_stays() or (self.pre_activation and self.has_norm())

    def convolutions(self, in_channels: int) -> tuple[SquareConv, ...]:
        """The convolutions beside the input, in order."""
        mid, size = self.mid_channels(), self.kernel_size
        return (
            SquareConv(in_channels, mid, size, self.stride, self.groups),
            SquareConv(mid, self.out_channels, size, 1, self.groups),
        )

    def grouped_convolutions(self, in_channels: int) -> tuple[tuple[int, int, int], ...]:
        """See `Block.grouped_convolutions`."""
        mid = self.mid_channels()
        return ((in_channels, mid, self.groups), (mid, self.out_channels, self.groups))


@dataclass(frozen=True, kw_only=True)
class Bottleneck(Basic):
    """ResNet's bottleneck: 1x1 down, kxk (the stride is here), 1x1 up, and the input.

    He et al. 2015, https://arxiv.org/abs/1512.03385; `groups` as in ResNeXt, https://arxiv.org/abs/1611.05431.
    """

    name: ClassVar[str] = "bottleneck"
    expansion: float = fields.number(float, 0.25, 0.015625, 16, "middle channels over output channels", shapes=True)
    groups: int = fields.groups("groups of the kxk convolution")

    def convolutions(self, in_channels: int) -> tuple[SquareConv, ...]:
        """See `Basic.convolutions`."""
        mid = self.mid_channels()
        return (
            SquareConv(in_channels, mid, 1),
            SquareConv(mid, mid, self.kernel_size, self.stride, self.groups),
            SquareConv(mid, self.out_channels, 1),
        )

    def grouped_convolutions(self, in_channels: int) -> tuple[tuple[int, int, int], ...]:
        """See `Block.grouped_convolutions`."""
        mid = self.mid_channels()
        return ((mid, mid, self.groups),)


@dataclass(frozen=True, kw_only=True)
class Xception(NormedBlock):
    """Xception's block: separable convolutions, a max-pool where it strides, and a residual (arXiv:1610.02357)."""

    name: ClassVar[str] = "xception"
    out_channels: int = fields.out_channels()
    kernel_size: int = fields.kernel_size()
    stride: int = fields.stride()
    layers: int = fields.number(int, 2, 1, 8, "separable convolutions")
    grow: str = fields.word("first", ("first", "last"), "which separable convolution changes the channels")
    pre_activation: bool = fields.flag(True, "whether the block begins with an activation")
    drop_path: float = fields.drop_path()

    def resolved(self, in_channels: int | None) -> dict[str, Value]:
        """See `Block.resolved`."""
        return {"grow": "first"} if in_channels == self.out_channels or self.layers == 1 else {}

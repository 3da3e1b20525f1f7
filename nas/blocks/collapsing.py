"""The block that is wide while it trains and one convolution on the device: ReduceNet's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from nas import block_fields as fields
from nas.block_fields import Value
from nas.blocks.base import Block, padding_pixels, scaled
from nas.blocks.plain import Conv
from nas.convolution import conv_side


@dataclass(frozen=True, kw_only=True)
class Reduce(Block):
    """ReduceNet's block: a wide middle and a fading activation in training, ONE kxk convolution on the device.

    Train form: conv kxk to the bottleneck width, BatchNorm, fading activation, conv 1x1, BatchNorm, plus the
    input where shapes allow; then the activation that survives. `activation: none` makes the block linear:
    a run of such blocks, up to and with the next that has one, is one linear map before that activation, so
    some activation has to survive in each network. Such a run pads its input once, at its beginning, so that
    merging it is exact at the borders too. Without the residual, kernel 1, it is VanillaNet's block.
    """

    name: ClassVar[str] = "reduce"
    out_channels: int = fields.out_channels()
    kernel_size: int = fields.kernel_size(odd=False)
    stride: int = fields.stride()
    padding: int | str = fields.padding()
    bottleneck_width: float = fields.number(
        float, 4.0, 0.125, 64, "middle channels over output channels, while training", train_only=True
    )
    fading_activation: str = fields.activation("activation that fades out while training", train_only=True)
    fade_share: float = fields.number(
        float, 0.7, 0.01, 0.99, "share of the training in which the activation fades", train_only=True
    )
    residual: bool = fields.flag(True, "whether the input is added, where shapes allow", train_only=True)
    activation: str = fields.activation("activation that survives")
    norm_eps: float = fields.norm_eps()

    def mid_channels(self) -> int:
        """Channels of the middle, in the train form."""
        return scaled(self.out_channels, self.bottleneck_width)

    @property
    def padding_pixels(self) -> int:
        """Zeros on each side, where the block stands alone."""
        return padding_pixels(self.padding, self.kernel_size)

    def shipped(self, padding: int | None) -> Conv:
        """See `Block.shipped`: one convolution, with the zeros that its run leaves to it."""
        return Conv(
            out_channels=self.out_channels,
            kernel_size=self.kernel_size,
            stride=self.stride,
            padding=self.padding if padding is None else padding,
            activation=self.activation,
            norm="none",
        )

    def may_add_input(self, in_channels: int) -> bool:
        """Whether the train form has its residual where stride and padding keep a map's size."""
        return self.residual and self.kernel_size % 2 == 1 and self.keeps_channels(in_channels)

    def resolved(self, in_channels: int | None) -> dict[str, Value]:
        """See `Block.resolved`."""
        residual = {} if in_channels is None else {"residual": self.may_add_input(in_channels)}
        fading = {"fade_share": 0.0} if self.fading_activation == "none" else {}
        return {"bottleneck_width": self.mid_channels(), "padding": self.padding_pixels, **fading, **residual}

    def output_side(self, side: int) -> int:
        """See `Block.output_side`."""
        return conv_side(side, self.kernel_size, self.stride, self.padding_pixels)


def run_paddings(blocks: Sequence[Block]) -> dict[int, int]:
    """The zeros around the input of each `reduce` block, by its place in a chain of blocks.

    Blocks without a surviving activation make one linear map with those that follow, up to and with the next
    that has one. The first block of such a run pads for all, the others not at all: only so is merging the
    run exact at the borders (zeros between two convolutions are no zeros of the composed one's input).
    """
    paddings: dict[int, int] = {}
    start, jump = None, 1  # the run's first block, and how many of its pixels one pixel here stands for
    for i, block in enumerate(blocks):
        if block.train_only:
            continue
        if not isinstance(block, Reduce):
            start = None
            continue
        if start is None:
            start, jump = i, 1
        paddings[i] = 0
        paddings[start] += block.padding_pixels * jump
        jump *= block.stride
        if block.activation != "none":
            start = None
    return paddings

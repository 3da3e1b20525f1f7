"""Blocks whose outputs are concatenated: Inception's, SqueezeNet's, ShuffleNet's, DenseNet's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nas import block_fields as fields
from nas.block_fields import Value
from nas.blocks.base import NormedBlock, padding_pixels, scaled
from nas.convolution import Pair, conv_side

# Kernels of a branch, one after another; "+" splits the last one in two halves that are concatenated.
KERNELS = ("3x3", "5x5", "3x3_3x3", "1x7_7x1", "7x1_1x7_7x1_1x7", "1x7_7x1_3x3", "1x3+3x1", "3x3_1x3+3x1")


ConvSize = tuple[int, int, Pair]
"""(in_channels, out_channels, kernel_size)."""


def kernel_chain(
    kernels: str, in_channels: int, out_channels: int
) -> tuple[tuple[ConvSize, ...], tuple[ConvSize, ...]]:
    """The convolutions that a word of `KERNELS` names: those in a row, and the last ones, side by side.

    Square ones widen at once, 1xn and nx1 at the end.
    """
    *firsts, last = kernels.split("_")
    halves = last.split("+")
    width = out_channels // len(halves)
    row: list[ConvSize] = []
    channels = in_channels
    for word in firsts:
        size = _size(word)
        after = width if size[0] == size[1] else in_channels
        row.append((channels, after, size))
        channels = after
    return tuple(row), tuple((channels, width, _size(half)) for half in halves)


def _size(word: str) -> Pair:
    height, width = map(int, word.split("x"))
    return height, width


def _channels(meaning: str) -> int:
    return fields.number(int, 0, 0, 8192, meaning, shapes=True)


@dataclass(frozen=True, kw_only=True)
class Inception(NormedBlock):
    """Up to four branches side by side: 1x1; 1x1 and kernels; 1x1 and other kernels; a pool and 1x1.

    GoogLeNet (arXiv:1409.4842, true 5x5), Inception V2 (arXiv:1502.03167, two 3x3), V3 (arXiv:1512.00567, 1xn
    and nx1). A branch of 0 channels is left out; without the first and the fourth there is the pool alone, as
    where V2 and V3 halve their maps. The last convolution of a branch has the stride.
    """

    name: ClassVar[str] = "inception"
    branch1: int = _channels("channels of the 1x1 branch; 0: none")
    reduce2: int = _channels("channels of the second branch's first 1x1; 0: none")
    kernels2: str = fields.word("3x3", KERNELS, "kernels of the second branch", shapes=True)
    branch2: int = _channels("channels that leave the second branch; 0: none")
    reduce3: int = _channels("channels of the third branch's first 1x1; 0: none")
    kernels3: str = fields.word("5x5", KERNELS, "kernels of the third branch", shapes=True)
    branch3: int = _channels("channels that leave the third branch; 0: none")
    pool: str = fields.word("max", ("max", "avg"), "the fourth branch's 3x3 pool")
    branch4: int = _channels("channels that leave the fourth branch; 0: none")
    stride: int = fields.stride(shapes=True)
    padding: int | str = fields.padding(shapes=True)

    def output_channels(self, in_channels: int) -> int:
        """See `Block.output_channels`."""
        return self.branch1 + self.branch2 + self.branch3 + (self.branch4 or self.passed_channels(in_channels))

    def passed_channels(self, in_channels: int) -> int:
        """Channels of the pool that stands alone; it is there where branches 1 and 4 are not (a reduction)."""
        return in_channels if self.branch1 == 0 and self.branch4 == 0 else 0

    def check(self, in_channels: int) -> None:
        """See `Block.check`."""
        if self.branch1 + self.branch2 + self.branch3 + self.branch4 == 0:
            raise ValueError("inception.branch1: 0 is not allowed where branch2, branch3 and branch4 are 0 as well")
        for field, kernels in (("branch2", self.kernels2), ("branch3", self.kernels3)):
            if "+" in kernels and getattr(self, field) % 2:
                raise ValueError(
                    f"inception.{field}: {getattr(self, field)} is not allowed with {kernels}; allowed: even"
                )
        if self.padding != "same" and self.stride > 1:
            used = [k for k, width in ((self.kernels2, self.branch2), (self.kernels3, self.branch3)) if width]
            if self.padding != 0 or self.branch1 or any(kernels.split("_")[-1] != "3x3" for kernels in used):
                raise ValueError(
                    f"inception.padding: {self.padding} is not allowed; allowed: same, or 0 without branch1 "
                    "and with kernels that end with 3x3"
                )

    def resolved(self, in_channels: int | None) -> dict[str, Value]:
        """See `Block.resolved`."""
        unused: dict[str, Value] = {}
        if not self.branch2:
            unused |= {"reduce2": 0, "kernels2": ""}
        if not self.branch3:
            unused |= {"reduce3": 0, "kernels3": ""}
        if not self.branch4 and self.branch1:
            unused["pool"] = ""
        if self.stride == 1:
            unused["padding"] = "same"
        return unused

    @property
    def padding_pixels(self) -> int:
        """Pixels on each side of the pool and of 3x3 convolutions that stride; the others keep their maps' size."""
        return padding_pixels("same" if self.stride == 1 else self.padding, 3)

    def branches(self) -> tuple[tuple[int, str, int], ...]:
        """(channels of the first 1x1, kernels, channels that leave) of the second and third branch that there are."""
        branches = (self.reduce2, self.kernels2, self.branch2), (self.reduce3, self.kernels3, self.branch3)
        return tuple(branch for branch in branches if branch[-1])

    def output_side(self, side: int) -> int:
        """See `Block.output_side`."""
        return conv_side(side, 3, self.stride, self.padding_pixels)


@dataclass(frozen=True, kw_only=True)
class Fire(NormedBlock):
    """SqueezeNet's block: 1x1 squeeze, then 1x1 and 3x3 side by side (arXiv:1602.07360)."""

    name: ClassVar[str] = "fire"
    squeeze: int = fields.number(int, 16, 1, 8192, "channels of the squeeze")
    expand1x1: int = fields.number(int, 64, 1, 8192, "channels of the 1x1 branch", shapes=True)
    expand3x3: int = fields.number(int, 64, 1, 8192, "channels of the 3x3 branch", shapes=True)

    def output_channels(self, in_channels: int) -> int:
        """See `Block.output_channels`."""
        return self.expand1x1 + self.expand3x3


@dataclass(frozen=True, kw_only=True)
class Dense(NormedBlock):
    """DenseNet's layer: the input, and beside it new channels made from all of it (arXiv:1608.06993).

    Its first normalization stays on the device: it reads a concatenation.
    """

    name: ClassVar[str] = "dense"
    growth_rate: int = fields.number(int, 32, 1, 1024, "channels that the layer adds", shapes=True)
    kernel_size: int = fields.kernel_size()
    expansion: float = fields.number(float, 4.0, 0.125, 16, "middle channels over the growth rate")
    dropout: float = fields.dropout("share of new values dropped while training")

    def norm_stays(self) -> bool:
        """See `Block.norm_stays`."""
        return self.has_norm()

    def mid_channels(self) -> int:
        """Channels between the 1x1 and the kxk convolution."""
        return scaled(self.growth_rate, self.expansion)

    def output_channels(self, in_channels: int) -> int:
        """See `Block.output_channels`."""
        return in_channels + self.growth_rate

    def resolved(self, in_channels: int | None) -> dict[str, Value]:
        """See `Block.resolved`."""
        return {"expansion": self.mid_channels()}


@dataclass(frozen=True, kw_only=True)
class Transition(NormedBlock):
    """DenseNet's transition: normalization, activation, 1x1 convolution to fewer channels, average pool."""

    name: ClassVar[str] = "transition"
    compression: float = fields.number(float, 0.5, 0.0625, 1, "output channels over input channels", shapes=True)
    stride: int = fields.stride(2)

    def norm_stays(self) -> bool:
        """See `Block.norm_stays`."""
        return self.has_norm()

    def output_channels(self, in_channels: int) -> int:
        """See `Block.output_channels`."""
        return max(1, int(in_channels * self.compression))

    def resolved(self, in_channels: int | None) -> dict[str, Value]:
        """See `Block.resolved`."""
        return {} if in_channels is None else {"compression": self.output_channels(in_channels)}

    def output_side(self, side: int) -> int:
        """See `Block.output_side`; a pool's window that hangs over the edge does not count."""
        return side // self.stride


@dataclass(frozen=True, kw_only=True)
class ShuffleV1(NormedBlock):
    """ShuffleNet's unit: grouped 1x1, channel shuffle, depthwise kxk, grouped 1x1, plus the input (arXiv:1707.01083).

    Where the channels grow, the average-pooled input is concatenated instead of added.
    """

    name: ClassVar[str] = "shuffle_v1"
    out_channels: int = fields.out_channels()
    kernel_size: int = fields.kernel_size()
    stride: int = fields.stride()
    expansion: float = fields.number(float, 0.25, 0.015625, 4, "middle channels over output channels", shapes=True)
    groups: int = fields.groups("groups of the 1x1 convolutions")
    grouped_entry: bool = fields.flag(True, "whether the first 1x1 is grouped too", shapes=True)
    drop_path: float = fields.drop_path()

    def mid_channels(self) -> int:
        """Channels of the depthwise convolution."""
        return scaled(self.out_channels, self.expansion)

    def new_channels(self, in_channels: int) -> int:
        """Channels that the convolutions make: all, or those beside the input."""
        return self.out_channels if in_channels == self.out_channels else self.out_channels - in_channels

    def grouped_convolutions(self, in_channels: int) -> tuple[tuple[int, int, int], ...]:
        """See `Block.grouped_convolutions`."""
        mid = self.mid_channels()
        entry = ((in_channels, mid, self.groups),) if self.grouped_entry else ((mid, mid, self.groups),)
        return (*entry, (mid, self.new_channels(in_channels), self.groups))

    def check(self, in_channels: int) -> None:
        """See `Block.check`."""
        if in_channels > self.out_channels:
            raise ValueError(
                f"shuffle_v1.out_channels: {self.out_channels} is not allowed; allowed: at least the "
                f"{in_channels} channels that enter"
            )
        super().check(in_channels)

    def resolved(self, in_channels: int | None) -> dict[str, Value]:
        """See `Block.resolved`."""
        return {
            "expansion": self.mid_channels(),
            "grouped_entry": self.grouped_entry or self.groups == 1,
            **({} if self.keeps_channels(in_channels) else {"drop_path": 0.0}),
        }


@dataclass(frozen=True, kw_only=True)
class ShuffleV2(NormedBlock):
    """ShuffleNet V2's unit: half the channels pass, half are convolved, then both are shuffled (arXiv:1807.11164).

    Where it strides or the channels change, both halves are convolved.
    """

    name: ClassVar[str] = "shuffle_v2"
    out_channels: int = fields.out_channels()
    kernel_size: int = fields.kernel_size()
    stride: int = fields.stride()

    def check(self, in_channels: int) -> None:
        """See `Block.check`."""
        if self.out_channels % 2:
            raise ValueError(f"shuffle_v2.out_channels: {self.out_channels} is not allowed; allowed: even")

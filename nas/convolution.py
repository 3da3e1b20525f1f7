"""The structure of a convolution as a value: what it costs and what it composes to, without numbers and torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

Pair = tuple[int, int]
"""Of height and width."""

MOST_WEIGHTS = 10**8  # of what two convolutions compose to: a hundred times the largest of published networks


@dataclass(frozen=True)
class Convolution:
    """A two-dimensional convolution without its numbers; the fields are the arguments of `torch.nn.Conv2d`.

    Attributes:
        in_channels: channels that enter.
        out_channels: channels that leave.
        kernel_size: taps of height and width, dilation left aside.
        stride: of height and width.
        padding: zeros on each side, of height and width.
        dilation: distance of the taps, of height and width.
        groups: number of groups; each reads a contiguous share of the channels.
        bias: whether each output channel has a constant.
    """

    in_channels: int
    out_channels: int
    kernel_size: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    bias: bool = True

    @property
    def weights(self) -> int:
        """Numbers of its kernel, the bias left aside."""
        height, width = self.kernel_size
        return self.out_channels * (self.in_channels // self.groups) * height * width

    def out_size(self, in_size: Pair) -> Pair:
        """Size of the map that it makes of one of `in_size`; below 1: there is none."""
        kernel, stride, padding, dilation = self.kernel_size, self.stride, self.padding, self.dilation
        height = conv_side(in_size[0], kernel[0], stride[0], padding[0], dilation[0])
        return height, conv_side(in_size[1], kernel[1], stride[1], padding[1], dilation[1])

    def then(self, second: Convolution) -> Convolution:
        """The structure of the convolution that equals this one, then `second`.

        Exact, at borders too, where it does not raise. Stride `s1 * s2`, padding `p1 + p2 * s1`, the gcd of the
        groups, the extent `e1 + (e2 - 1) * s1`. Along each axis its kernel is dense, but that `second`'s kernel and
        dilation stay after a single tap of stride 1, and this one's before a single tap.

        Raises:
            ValueError: channels that do not follow on, or a `second` with padding. Its zeros are not what this one
                would have computed there, unless along that axis this one is a single tap without padding and
                without bias, whatever its values. Or more weights than `MOST_WEIGHTS`: two of few may make very many.
        """
        if second.in_channels != self.out_channels:
            raise ValueError(
                f"{second.in_channels} input channels cannot follow on {self.out_channels} output channels"
            )
        for d in (0, 1):
            keeps_zeros = self.kernel_size[d] == 1 and self.padding[d] == 0 and not self.bias
            if second.padding[d] and not keeps_zeros:
                raise ValueError(f"padding={second.padding} within a run is not exact at borders: pad once up front")
        rows, columns = composed_axis(self, second, 0), composed_axis(self, second, 1)
        s1, s2, p1, p2 = self.stride, second.stride, self.padding, second.padding
        whole = Convolution(
            self.in_channels,
            second.out_channels,
            (rows.kernel_size, columns.kernel_size),
            (s1[0] * s2[0], s1[1] * s2[1]),
            (p1[0] + p2[0] * s1[0], p1[1] + p2[1] * s1[1]),
            (rows.dilation, columns.dilation),
            math.gcd(self.groups, second.groups),
            self.bias or second.bias,
        )
        if whole.weights > MOST_WEIGHTS:
            raise ValueError(f"{whole.weights:,} weights of one convolution are not allowed; allowed: {MOST_WEIGHTS:,}")
        return whole


@dataclass(frozen=True)
class ComposedAxis:
    """The kernel of two convolutions as one, along one axis.

    Attributes:
        kernel_size: its taps.
        step: distance of the second's taps in it.
        spread: distance of the first's taps in it.
        dilation: distance of its taps in the image.
    """

    kernel_size: int
    step: int
    spread: int
    dilation: int


def composed_axis(first: Convolution, second: Convolution, d: int) -> ComposedAxis:
    """Where the taps of two convolutions lie in the kernel that they compose to, along axis `d`."""
    if first.kernel_size[d] == 1 and first.stride[d] == 1:
        return ComposedAxis(second.kernel_size[d], 1, 1, second.dilation[d])
    if second.kernel_size[d] == 1:
        return ComposedAxis(first.kernel_size[d], 1, 1, first.dilation[d])
    step, spread = first.stride[d] * second.dilation[d], first.dilation[d]
    return ComposedAxis((second.kernel_size[d] - 1) * step + (first.kernel_size[d] - 1) * spread + 1, step, spread, 1)


def convolution(
    in_channels: int,
    out_channels: int,
    kernel_size: int | Pair,
    *,
    stride: int = 1,
    padding: int | None = None,
    dilation: int = 1,
    groups: int = 1,
    bias: bool = True,
) -> Convolution:
    """A convolution in short: padded so that stride 1 keeps a map's size unless `padding` is given.

    A kernel of one pixel has no dilation, whatever is given.
    """
    size = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    spread = dilation if max(size) > 1 else 1
    same = same_padding(size[0], spread), same_padding(size[1], spread)
    zeros = same if padding is None else (padding, padding)
    return Convolution(in_channels, out_channels, size, (stride, stride), zeros, (spread, spread), groups, bias)


def same_padding(kernel_size: int, dilation: int = 1) -> int:
    """Pixels of zeros on each side under which a convolution of stride 1 keeps a map's size (odd kernels)."""
    return dilation * (kernel_size - 1) // 2


def conv_side(side: int, kernel_size: int, stride: int, padding: int, dilation: int = 1) -> int:
    """Side of the map that a convolution makes of one of `side` pixels; below 1: there is none."""
    room = side + 2 * padding - dilation * (kernel_size - 1) - 1
    return room // stride + 1 if room >= 0 else 0


def pool_side(side: int, kernel_size: int, stride: int, padding: int, ceil: bool = False) -> int:
    """Side of the map that a pool makes of one of `side` pixels; below 1: there is none.

    Args:
        side: pixels of the map that enters.
        kernel_size: side of the window.
        stride: of the window.
        padding: pixels on each side.
        ceil: whether a window that hangs over the edge counts.
    """
    room = side + 2 * padding - kernel_size
    if room < 0:
        return 0
    out = (-(-room // stride) if ceil else room // stride) + 1
    # A window that begins beyond the image does not count.
    return out - 1 if ceil and (out - 1) * stride >= side + padding else out

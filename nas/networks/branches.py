"""Linear branches beside a convolution while it trains; one convolution on the device.

RepVGG (arXiv:2101.03697), MobileOne (arXiv:2206.04040), ACNet (arXiv:1908.03930), diverse branch block
(arXiv:2103.13425).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, Protocol, cast

from torch import Tensor, nn
from torch.nn.functional import pad

from nas.blocks.base import same_padding
from nas.fusion import affine_after, average_pool_conv, compose, identity_conv, parallel_sum
from nas.linear_conv import LinearConv
from nas.networks.bricks import ConvNorm, conv_norm
from nas.networks.conv_modules import affine_of, conv2d_from, linear_of


class LinearBranch(Protocol):
    """A branch that is one convolution in eval mode."""

    def linear(self) -> LinearConv:
        """That convolution."""
        ...


class BranchedConv(nn.Module):
    """The sum of linear branches of one stride: (N, C, H, W) to (N, C', H', W')."""

    def __init__(self, branches: list[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        """The branches' sum."""
        first, *others = self.branches
        y = first(x)
        for branch in others:
            y = y + branch(x)
        return y

    def fuse(self) -> nn.Conv2d:
        """The one convolution that this is in eval mode."""
        return conv2d_from(self.linear())

    def linear(self) -> LinearConv:
        """That convolution as tensors."""
        return parallel_sum(*(cast(LinearBranch, branch).linear() for branch in self.branches))


class NormBranch(nn.Module):
    """The input, normalized: an identity branch."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, eps)

    def forward(self, x: Tensor) -> Tensor:
        """Normalizes."""
        return self.norm(x)

    def linear(self) -> LinearConv:
        """See `LinearBranch`."""
        return affine_after(identity_conv(self.norm.num_features, like=self.norm.weight), *affine_of(self.norm))


class PaddedPair(nn.Module):
    """A 1x1 convolution, then kxk or an average over kxk, each with its BatchNorm.

    The input is padded once, before the 1x1: padding in the middle would put zeros where the first BatchNorm's
    shift belongs, and no convolution would equal the pair at the borders.
    """

    def __init__(self, pointwise: nn.Conv2d, second: nn.Conv2d | nn.AvgPool2d, padding: int, eps: float) -> None:
        super().__init__()
        self.padding = padding
        self.pointwise = ConvNorm(pointwise, eps=eps)
        self.second = second
        channels = second.out_channels if isinstance(second, nn.Conv2d) else pointwise.out_channels
        self.norm = nn.BatchNorm2d(channels, eps)

    def forward(self, x: Tensor) -> Tensor:
        """The pair."""
        return self.norm(self.second(self.pointwise(pad(x, (self.padding,) * 4))))

    def linear(self) -> LinearConv:
        """See `LinearBranch`."""
        pointwise = self.pointwise.linear()
        if isinstance(self.second, nn.Conv2d):
            second = linear_of(self.second)
        else:
            size, stride = cast(int, self.second.kernel_size), cast(int, self.second.stride)
            second = average_pool_conv(
                pointwise.weight.shape[0],
                (size, size),
                stride=(stride, stride),
                padding=(0, 0),
                count_include_pad=True,
                like=pointwise.weight,
            )
        padded = replace(pointwise, padding=(self.padding, self.padding))
        return affine_after(compose(padded, second), *affine_of(self.norm))


class ConvShape(NamedTuple):
    """A convolution that keeps its map's size at stride 1."""

    in_channels: int
    out_channels: int
    kernel_size: int
    stride: int = 1
    dilation: int = 1
    groups: int = 1


def branched_conv(shape: ConvShape, branches: str, count: int, eps: float) -> BranchedConv:
    """The train form of a convolution with `branches` beside it and `count` copies of it, each with its BatchNorm.

    Raises:
        ValueError: unknown branches.
    """
    if branches not in BRANCHES:
        raise ValueError(f"branches {branches!r} are unknown; known: {', '.join(BRANCHES)}")
    copies = [_normed(shape, (shape.kernel_size, shape.kernel_size), eps) for _ in range(count)]
    return BranchedConv([*copies, *BRANCHES[branches](shape, eps)])


def _normed(shape: ConvShape, size: tuple[int, int], eps: float) -> nn.Module:
    """The convolution with a kernel of another size, and its BatchNorm."""
    before, after, _, stride, dilation, groups = shape
    return conv_norm(before, after, size, form="train", stride=stride, dilation=dilation, groups=groups, eps=eps)


def _repvgg(shape: ConvShape, eps: float) -> list[nn.Module]:
    pointwise = [_normed(shape, (1, 1), eps)] if shape.kernel_size > 1 else []
    same = shape.stride == 1 and shape.in_channels == shape.out_channels
    return [*pointwise, *([NormBranch(shape.in_channels, eps)] if same else [])]


def _acnet(shape: ConvShape, eps: float) -> list[nn.Module]:
    return [_normed(shape, (1, shape.kernel_size), eps), _normed(shape, (shape.kernel_size, 1), eps)]


def _dbb(shape: ConvShape, eps: float) -> list[nn.Module]:
    before, after, size, stride, dilation, groups = shape
    padding = same_padding(size, dilation)

    def pointwise(channels: int) -> nn.Conv2d:
        return nn.Conv2d(before, channels, 1, groups=groups, bias=False)

    wide = nn.Conv2d(before, after, size, stride, dilation=dilation, groups=groups, bias=False)
    beside = [_normed(shape, (1, 1), eps), PaddedPair(pointwise(before), wide, padding, eps)]
    if dilation > 1:  # a pool has no dilation
        return beside
    return [*beside, PaddedPair(pointwise(after), nn.AvgPool2d(size, stride), padding, eps)]


BRANCHES: dict[str, Callable[[ConvShape, float], list[nn.Module]]] = {
    "none": lambda shape, eps: [],
    "repvgg": _repvgg,
    "acnet": _acnet,
    "dbb": _dbb,
}

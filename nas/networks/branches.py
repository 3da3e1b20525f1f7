"""Linear branches beside a convolution while it trains; one convolution on the device.

RepVGG (arXiv:2101.03697), MobileOne (arXiv:2206.04040), ACNet (arXiv:1908.03930), diverse branch block
(arXiv:2103.13425).
"""

from __future__ import annotations

from typing import Protocol, cast

from torch import Tensor, nn
from torch.nn.functional import pad

from nas.fusion import LinearConv, affine_after, average_pool_conv, compose, identity_conv, parallel_sum
from nas.networks.bricks import ConvNorm, Form, conv_norm
from nas.networks.fusing import affine_of, conv2d_from, linear_of


class Linear(Protocol):
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
        return parallel_sum(*(cast(Linear, branch).linear() for branch in self.branches))


class NormBranch(nn.Module):
    """The input, normalized: an identity branch."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, eps)

    def forward(self, x: Tensor) -> Tensor:
        """Normalizes."""
        return self.norm(x)

    def linear(self) -> LinearConv:
        """See `Linear`."""
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
        """See `Linear`."""
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
        padded = LinearConv(
            pointwise.weight, pointwise.bias, padding=(self.padding, self.padding), groups=pointwise.groups
        )
        return affine_after(compose(padded, second), *affine_of(self.norm))


def branched_conv(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    form: Form,
    branches: str = "none",
    branch_count: int = 1,
    stride: int = 1,
    padding: int | None = None,
    dilation: int = 1,
    groups: int = 1,
    norm: str = "batch",
    eps: float = 1e-5,
    bias: bool = True,
) -> nn.Module:
    """`conv_norm`, in the train form with `branches` and copies of itself beside it, each with its BatchNorm."""

    def conv(height: int, width: int) -> nn.Module:
        return conv_norm(
            in_channels,
            out_channels,
            (height, width),
            form=form,
            stride=stride,
            padding=padding if (height, width) == (kernel_size, kernel_size) else None,
            dilation=dilation,
            groups=groups,
            norm=norm,
            eps=eps,
            bias=bias,
        )

    if form == "deploy" or (branches == "none" and branch_count == 1):
        return conv(kernel_size, kernel_size)
    beside = [conv(kernel_size, kernel_size) for _ in range(branch_count)]
    if branches == "repvgg":
        beside += [conv(1, 1)] if kernel_size > 1 else []
        beside += [NormBranch(in_channels, eps)] if stride == 1 and in_channels == out_channels else []
    elif branches == "acnet":
        beside += [conv(1, kernel_size), conv(kernel_size, 1)]
    elif branches == "dbb":

        def pointwise(channels: int) -> nn.Conv2d:
            return nn.Conv2d(in_channels, channels, 1, groups=groups, bias=False)

        half = dilation * (kernel_size - 1) // 2
        wide = nn.Conv2d(in_channels, out_channels, kernel_size, stride, dilation=dilation, groups=groups, bias=False)
        beside += [conv(1, 1), PaddedPair(pointwise(in_channels), wide, half, eps)]
        if dilation == 1:  # a pool has no dilation
            beside.append(PaddedPair(pointwise(out_channels), nn.AvgPool2d(kernel_size, stride), half, eps))
    return BranchedConv(beside)

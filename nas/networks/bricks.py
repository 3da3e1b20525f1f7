"""The bricks of blocks: convolution with normalization, what vanishes at deployment, squeeze-excitation."""

from __future__ import annotations

from dataclasses import asdict
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from nas.blocks.base import group_norm_groups
from nas.convolution import Pair, convolution
from nas.fusion import affine_after
from nas.linear_conv import LinearConv
from nas.networks.conv_modules import affine_of, conv2d_from, linear_of

Form = Literal["train", "deploy"]


class ConvNorm(nn.Module):
    """Convolution and normalization: (N, C, H, W) to (N, C', H', W').

    With BatchNorm it is the train form of one convolution; with GroupNorm it stays as it is.
    """

    def __init__(self, conv: nn.Conv2d, norm: str = "batch", eps: float = 1e-5) -> None:
        super().__init__()
        self.conv = conv
        self.norm = norm_layer(norm, conv.out_channels, eps)

    def forward(self, x: Tensor) -> Tensor:
        """Convolves and normalizes."""
        return self.norm(self.conv(x))

    def fuse(self) -> nn.Module:
        """The one convolution that this is in eval mode; itself with GroupNorm."""
        return conv2d_from(self.linear()) if isinstance(self.norm, nn.BatchNorm2d) else self

    def linear(self) -> LinearConv:
        """That convolution as tensors."""
        assert isinstance(self.norm, nn.BatchNorm2d)
        return affine_after(linear_of(self.conv), *affine_of(self.norm))


def norm_layer(norm: str, channels: int, eps: float) -> nn.Module:
    """A normalization by itself, where no convolution can take it up; the identity for "none"."""
    if norm == "batch":
        return nn.BatchNorm2d(channels, eps)
    if norm == "none":
        return nn.Identity()
    return nn.GroupNorm(group_norm_groups(channels), channels, eps)


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel_size: int | Pair,
    *,
    form: Form,
    stride: int = 1,
    padding: int | None = None,
    dilation: int = 1,
    groups: int = 1,
    norm: str = "batch",
    eps: float = 1e-5,
    bias: bool = True,
) -> nn.Module:
    """A convolution with its normalization, padded so that stride 1 keeps the map's size unless `padding` is given.

    In the deploy form BatchNorm is folded: the convolution alone, with the bias that BatchNorm leaves. `bias` is
    for convolutions without normalization.
    """
    normed = norm == "group" or (norm == "batch" and form == "train")
    biased = not normed and (bias or norm == "batch")
    structure = convolution(
        *(in_channels, out_channels, kernel_size),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=biased,
    )
    conv = nn.Conv2d(**asdict(structure))
    return ConvNorm(conv, norm, eps) if normed else conv


class TrainOnlyDropout(nn.Dropout):
    """Dropout that leaves the network when it is fused."""

    def fuse(self) -> nn.Identity:
        """What dropout is in eval mode."""
        return nn.Identity()


class TrainOnlyStochasticDepth(StochasticDepth):
    """Stochastic depth (arXiv:1603.09382) that leaves the network when it is fused."""

    def fuse(self) -> nn.Identity:
        """What stochastic depth is in eval mode."""
        return nn.Identity()


def dropout(share: float, form: Form) -> nn.Module:
    """Dropout in the train form, the identity without it."""
    return TrainOnlyDropout(share) if share and form == "train" else nn.Identity()


def drop_path(share: float, form: Form) -> nn.Module:
    """Stochastic depth of a residual branch in the train form, the identity without it."""
    return TrainOnlyStochasticDepth(share, "row") if share and form == "train" else nn.Identity()


class SqueezeExcite(nn.Module):
    """Squeeze-excitation with a hard-sigmoid gate, as in MobileNetV3 (arXiv:1905.02244). Stays at deployment."""

    def __init__(self, channels: int, squeeze_channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, squeeze_channels, 1)
        self.activation = nn.ReLU()
        self.expand = nn.Conv2d(squeeze_channels, channels, 1)
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Scales each channel of `x` (N, C, H, W)."""
        return x * self.gate(self.expand(self.activation(self.reduce(self.pool(x)))))


def shuffle_channels(x: Tensor, groups: int) -> Tensor:
    """Channels of (N, C, H, W) read across the groups (arXiv:1707.01083); plain views, which every exporter knows."""
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


def concatenated(parts: list[Tensor]) -> Tensor:
    """Maps (N, C_i, H, W) side by side."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

"""Blocks whose outputs are concatenated; see `nas.blocks.multi_branch`."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nas.blocks import Dense, Fire, Inception, ShuffleV1, ShuffleV2, Transition
from nas.blocks.multi_branch import kernel_chain
from nas.networks.activations import activation
from nas.networks.bricks import Form, concatenated, conv_norm, drop_path, dropout, norm_layer, shuffle_channels


class SideBySide(nn.Module):
    """Branches of one input, their outputs concatenated in order."""

    def __init__(self, branches: list[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, the sum of the branches' channels, H', W')."""
        return concatenated([branch(x) for branch in self.branches])


class InceptionBlock(SideBySide):
    """Inception's module in all three versions; see `nas.blocks.Inception`."""

    def __init__(self, spec: Inception, in_channels: int, form: Form) -> None:
        def conv(before: int, after: int, size: tuple[int, int], stride: int = 1) -> nn.Module:
            padding = 0 if stride > 1 and spec.padding == 0 else None
            normed = conv_norm(
                before, after, size, form=form, stride=stride, padding=padding, norm=spec.norm, eps=spec.norm_eps
            )
            return nn.Sequential(normed, activation(spec.activation))

        branches: list[nn.Module] = []
        if spec.branch1:
            branches.append(conv(in_channels, spec.branch1, (1, 1), spec.stride))
        for reduce, kernels, out in spec.branches():
            layers = [conv(in_channels, reduce, (1, 1))] if reduce else []
            row, ends = kernel_chain(kernels, reduce or in_channels, out)
            layers += [conv(*size) for size in row]
            last = [conv(*size, spec.stride) for size in ends]
            layers.append(last[0] if len(last) == 1 else SideBySide(last))
            branches.append(nn.Sequential(*layers))
        if spec.branch4 or spec.passed_channels(in_channels):
            pool = nn.MaxPool2d if spec.pool == "max" else nn.AvgPool2d
            layers = [pool(3, spec.stride, spec.padding_pixels)]
            layers += [conv(in_channels, spec.branch4, (1, 1))] if spec.branch4 else []
            branches.append(nn.Sequential(*layers))
        super().__init__(branches)


class FireBlock(nn.Module):
    """SqueezeNet's module: (N, C, H, W) to (N, expand1x1 + expand3x3, H, W)."""

    def __init__(self, spec: Fire, in_channels: int, form: Form) -> None:
        super().__init__()
        conv = partial(conv_norm, form=form, norm=spec.norm, eps=spec.norm_eps)
        self.squeeze = conv(in_channels, spec.squeeze, 1)
        self.activation = activation(spec.activation)
        self.expand = SideBySide([conv(spec.squeeze, spec.expand1x1, 1), conv(spec.squeeze, spec.expand3x3, 3)])

    def forward(self, x: Tensor) -> Tensor:
        """Squeezes and expands."""
        return self.activation(self.expand(self.activation(self.squeeze(x))))


class DenseBlock(nn.Module):
    """DenseNet's layer: (N, C, H, W) to (N, C + growth_rate, H, W)."""

    def __init__(self, spec: Dense, in_channels: int, form: Form) -> None:
        super().__init__()
        mid = spec.mid_channels()
        self.norm = norm_layer(spec.norm, in_channels, spec.norm_eps)
        self.activation = activation(spec.activation)
        self.squeeze = conv_norm(in_channels, mid, 1, form=form, norm=spec.norm, eps=spec.norm_eps)
        size = spec.kernel_size
        self.grow = nn.Conv2d(mid, spec.growth_rate, size, padding=size // 2, bias=spec.norm == "none")
        self.dropout = dropout(spec.dropout, form)

    def forward(self, x: Tensor) -> Tensor:
        """The input and what is made of it."""
        new = self.grow(self.activation(self.squeeze(self.activation(self.norm(x)))))
        return torch.cat([x, self.dropout(new)], 1)


class TransitionBlock(nn.Module):
    """DenseNet's transition: (N, C, H, W) to (N, C * compression, H / stride, W / stride)."""

    def __init__(self, spec: Transition, in_channels: int, form: Form) -> None:
        super().__init__()
        self.norm = norm_layer(spec.norm, in_channels, spec.norm_eps)
        self.activation = activation(spec.activation)
        self.conv = nn.Conv2d(in_channels, spec.output_channels(in_channels), 1, bias=spec.norm == "none")
        self.pool = nn.AvgPool2d(spec.stride) if spec.stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Fewer channels, a smaller map."""
        return self.pool(self.conv(self.activation(self.norm(x))))


class ShuffleV1Block(nn.Module):
    """ShuffleNet's unit: (N, C, H, W) to (N, out_channels, H / stride, W / stride)."""

    def __init__(self, spec: ShuffleV1, in_channels: int, form: Form) -> None:
        super().__init__()
        conv = partial(conv_norm, form=form, norm=spec.norm, eps=spec.norm_eps)
        mid, new = spec.mid_channels(), spec.new_channels(in_channels)
        self.groups = spec.groups
        self.enter = conv(in_channels, mid, 1, groups=spec.groups if spec.grouped_entry else 1)
        self.activation = activation(spec.activation)
        self.depthwise = conv(mid, mid, spec.kernel_size, stride=spec.stride, groups=mid)
        self.leave = conv(mid, new, 1, groups=spec.groups)
        self.pool = nn.AvgPool2d(3, spec.stride, 1) if spec.stride > 1 else nn.Identity()
        self.grows = in_channels != spec.out_channels
        self.drop_path = drop_path(0 if self.grows else spec.drop_path, form)

    def forward(self, x: Tensor) -> Tensor:
        """Convolves, shuffles, and keeps the input."""
        entered = shuffle_channels(self.activation(self.enter(x)), self.groups)
        new = self.leave(self.depthwise(entered))
        kept = self.pool(x)
        return self.activation(torch.cat([kept, new], 1) if self.grows else kept + self.drop_path(new))


class ShuffleV2Block(nn.Module):
    """ShuffleNet V2's unit: (N, C, H, W) to (N, out_channels, H / stride, W / stride)."""

    def __init__(self, spec: ShuffleV2, in_channels: int, form: Form) -> None:
        super().__init__()
        conv = partial(conv_norm, form=form, norm=spec.norm, eps=spec.norm_eps)
        half, size, stride = spec.out_channels // 2, spec.kernel_size, spec.stride
        self.splits = spec.keeps_shape(in_channels)
        entering = half if self.splits else in_channels

        def act() -> nn.Module:
            return activation(spec.activation)

        self.kept = nn.Sequential()
        if not self.splits:
            down = conv(in_channels, in_channels, size, stride=stride, groups=in_channels)
            self.kept = nn.Sequential(down, conv(in_channels, half, 1), act())
        middle = conv(half, half, size, stride=stride, groups=half)
        self.new = nn.Sequential(conv(entering, half, 1), act(), middle, conv(half, half, 1), act())

    def forward(self, x: Tensor) -> Tensor:
        """Keeps a half, convolves a half, shuffles."""
        kept, entering = x.chunk(2, 1) if self.splits else (x, x)
        return shuffle_channels(torch.cat([self.kept(kept), self.new(entering)], 1), 2)

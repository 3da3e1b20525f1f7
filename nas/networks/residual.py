"""Blocks with a sum around bricks that fold by themselves; see `nas.blocks.residual`."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from nas.blocks import Basic, InvertedResidual, Xception
from nas.networks.activations import activation
from nas.networks.bricks import Form, SqueezeExcite, conv_norm, drop_path, norm_layer
from nas.networks.plain import depthwise


class InvertedResidualBlock(nn.Module):
    """MobileNetV2's and V3's block; see `nas.blocks.InvertedResidual`."""

    def __init__(self, spec: InvertedResidual, in_channels: int, form: Form) -> None:
        super().__init__()
        mid, squeeze = spec.mid_channels(in_channels), spec.se_channels(in_channels)
        conv = partial(conv_norm, form=form, norm=spec.norm, eps=spec.norm_eps)
        layers: list[nn.Module] = []
        if mid != in_channels:
            layers += [conv(in_channels, mid, 1, groups=spec.groups), activation(spec.activation)]
        layers += [
            conv(mid, mid, spec.kernel_size, stride=spec.stride, groups=mid),
            activation(spec.activation),
        ]
        if squeeze:
            layers.append(SqueezeExcite(mid, squeeze))
        layers.append(conv(mid, spec.out_channels, 1, groups=spec.groups))
        self.body = nn.Sequential(*layers)
        self.residual = spec.keeps_shape(in_channels)
        self.drop_path = drop_path(spec.drop_path if self.residual else 0, form)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        return x + self.drop_path(self.body(x)) if self.residual else self.body(x)


class ResidualBlock(nn.Module):
    """ResNet's basic block or bottleneck, with a projection where shapes differ; the activation comes last."""

    def __init__(self, spec: Basic, in_channels: int, form: Form) -> None:
        super().__init__()
        conv = partial(conv_norm, form=form, norm=spec.norm, eps=spec.norm_eps)
        layers: list[nn.Module] = []
        for before, after, size, stride, groups in spec.convolutions(in_channels):
            layers += [conv(before, after, size, stride=stride, groups=groups), activation(spec.activation)]
        self.body = nn.Sequential(*layers[:-1])
        same = spec.keeps_shape(in_channels)
        self.shortcut = nn.Identity() if same else conv(in_channels, spec.out_channels, 1, stride=spec.stride)
        self.drop_path = drop_path(spec.drop_path, form)
        self.activation = activation(spec.activation)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        return self.activation(self.shortcut(x) + self.drop_path(self.body(x)))


class PreActivationBlock(nn.Module):
    """The same with normalization and activation before each convolution (arXiv:1603.05027).

    The first normalization reads what the sum reads too, and stays. The projection is a convolution alone.
    """

    def __init__(self, spec: Basic, in_channels: int, form: Form) -> None:
        super().__init__()
        self.norm = norm_layer(spec.norm, in_channels, spec.norm_eps)
        self.activation = activation(spec.activation)
        conv = partial(conv_norm, form=form, norm=spec.norm, eps=spec.norm_eps)
        *firsts, last = spec.convolutions(in_channels)
        layers: list[nn.Module] = []
        for before, after, size, stride, groups in firsts:
            layers += [conv(before, after, size, stride=stride, groups=groups), activation(spec.activation)]
        same = spec.keeps_shape(in_channels)
        before, after, size, stride, groups = last
        bias = spec.norm == "none"
        layers.append(nn.Conv2d(before, after, size, stride, size // 2, groups=groups, bias=bias))
        self.body = nn.Sequential(*layers)
        self.shortcut = None if same else nn.Conv2d(in_channels, spec.out_channels, 1, spec.stride, bias=bias)
        self.drop_path = drop_path(spec.drop_path, form)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        active = self.activation(self.norm(x))
        kept = x if self.shortcut is None else self.shortcut(active)
        return kept + self.drop_path(self.body(active))


def residual_block(spec: Basic, in_channels: int, form: Form) -> nn.Module:
    """A basic block or bottleneck with activations after or before its convolutions."""
    block = PreActivationBlock if spec.pre_activation else ResidualBlock
    return block(spec, in_channels, form)


class XceptionBlock(nn.Module):
    """Separable convolutions with activations before them, a max-pool where they stride, and a residual."""

    def __init__(self, spec: Xception, in_channels: int, form: Form) -> None:
        super().__init__()
        conv = partial(conv_norm, form=form, norm=spec.norm, eps=spec.norm_eps)
        same = spec.keeps_shape(in_channels)
        self.shortcut = nn.Identity() if same else conv(in_channels, spec.out_channels, 1, stride=spec.stride)
        grows = 0 if spec.grow == "first" else spec.layers - 1
        layers: list[nn.Module] = []
        channels = in_channels
        for i in range(spec.layers):
            if i > 0 or spec.pre_activation:
                layers.append(activation(spec.activation))
            after = spec.out_channels if i >= grows else channels
            layers += [depthwise(channels, channels, spec.kernel_size), conv(channels, after, 1)]
            channels = after
        if spec.stride > 1:
            layers.append(nn.MaxPool2d(3, spec.stride, 1))
        self.body = nn.Sequential(*layers)
        self.drop_path = drop_path(spec.drop_path, form)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        return self.shortcut(x) + self.drop_path(self.body(x))

"""Blocks with a residual around bricks that fold by themselves: MobileNetV2's and ResNet's."""

from __future__ import annotations

from torch import Tensor, nn

from nas.blocks import Basic, Bottleneck, InvertedResidual
from nas.networks.bricks import Form, SqueezeExcite, activation, conv_norm


class InvertedResidualBlock(nn.Module):
    """MobileNetV2's and V3's block; see `nas.blocks.InvertedResidual`."""

    def __init__(self, spec: InvertedResidual, in_channels: int, form: Form) -> None:
        super().__init__()
        mid, squeeze = spec.mid_channels(in_channels), spec.se_channels(in_channels)
        layers: list[nn.Module] = []
        if mid != in_channels:
            layers += [
                conv_norm(in_channels, mid, 1, groups=spec.groups, norm=spec.norm, form=form),
                activation(spec.activation),
            ]
        layers += [
            conv_norm(mid, mid, spec.kernel_size, stride=spec.stride, groups=mid, norm=spec.norm, form=form),
            activation(spec.activation),
        ]
        if squeeze:
            layers.append(SqueezeExcite(mid, squeeze))
        layers.append(conv_norm(mid, spec.out_channels, 1, groups=spec.groups, norm=spec.norm, form=form))
        self.body = nn.Sequential(*layers)
        self.residual = spec.stride == 1 and in_channels == spec.out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        return x + self.body(x) if self.residual else self.body(x)


class ResidualBlock(nn.Module):
    """ResNet's basic block or bottleneck, with a projection where shapes differ; the activation comes last."""

    def __init__(self, spec: Basic | Bottleneck, in_channels: int, form: Form) -> None:
        super().__init__()
        out, mid, k = spec.out_channels, spec.mid_channels(), spec.kernel_size

        def conv(before: int, after: int, size: int, stride: int = 1, groups: int = 1) -> nn.Module:
            return conv_norm(before, after, size, stride=stride, groups=groups, norm=spec.norm, form=form)

        if isinstance(spec, Basic):
            convs = [conv(in_channels, mid, k, spec.stride, spec.groups), conv(mid, out, k, 1, spec.groups)]
        else:
            convs = [
                conv(in_channels, mid, 1),
                conv(mid, mid, k, spec.stride, spec.groups),
                conv(mid, out, 1),
            ]
        layers = [convs[0]]
        for following in convs[1:]:
            layers += [activation(spec.activation), following]
        self.body = nn.Sequential(*layers)
        same = spec.stride == 1 and in_channels == out
        self.shortcut = nn.Identity() if same else conv(in_channels, out, 1, spec.stride)
        self.activation = activation(spec.activation)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        return self.activation(self.shortcut(x) + self.body(x))

"""Blocks without branches on the device; see `nas.blocks.plain`."""

from __future__ import annotations

from torch import Tensor, nn

from nas.blocks import Conv, NormActivation, Pool, Separable, SeriesActivation
from nas.blocks.plain import effective_branches
from nas.networks.activations import activation
from nas.networks.branches import ConvShape, branched_conv
from nas.networks.bricks import Form, conv_norm, dropout, norm_layer


class ConvBlock(nn.Module):
    """A convolution in either form, then an activation: (N, C, H, W) to (N, C', H', W')."""

    def __init__(self, conv: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.conv = conv
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """One convolution."""
        return self.activation(self.conv(x))


def conv_block(spec: Conv, in_channels: int, form: Form) -> ConvBlock:
    """Convolution, normalization, activation."""
    branches, count = spec.effective_branches(in_channels)
    shape = ConvShape(in_channels, spec.out_channels, spec.kernel_size, spec.stride, spec.dilation, spec.groups)
    if form == "train" and spec.centred and (branches != "none" or count > 1):
        return ConvBlock(branched_conv(shape, branches, count, spec.norm_eps), activation(spec.activation))
    conv = conv_norm(
        *(in_channels, spec.out_channels, spec.kernel_size),
        form=form,
        stride=spec.stride,
        padding=spec.padding_pixels,
        dilation=spec.dilation,
        groups=spec.groups,
        norm=spec.norm,
        eps=spec.norm_eps,
        bias=spec.bias,
    )
    return ConvBlock(conv, activation(spec.activation))


class SeparableBlock(nn.Module):
    """Depthwise, then pointwise: (N, C, H, W) to (N, out_channels, H / stride, W / stride)."""

    def __init__(self, spec: Separable, in_channels: int, form: Form) -> None:
        super().__init__()
        branches, count = spec.effective_branches()

        def conv(shape: ConvShape) -> nn.Module:
            word = effective_branches(branches, shape.kernel_size, shape.in_channels == shape.out_channels)
            if form == "train" and (word != "none" or count > 1):
                return branched_conv(shape, word, count, spec.norm_eps)
            return conv_norm(**shape._asdict(), form=form, norm=spec.norm, eps=spec.norm_eps)

        mid, size, stride, dilation = (
            in_channels * spec.depth_multiplier,
            spec.kernel_size,
            spec.stride,
            spec.dilation,
        )
        self.depthwise = (
            depthwise(in_channels, mid, size, stride, dilation)
            if spec.mid_activation == "none"
            else conv(ConvShape(in_channels, mid, size, stride, dilation, groups=in_channels))
        )
        self.mid_activation = activation(spec.mid_activation)
        self.pointwise = conv(ConvShape(mid, spec.out_channels, 1))
        self.activation = activation(spec.activation)

    def forward(self, x: Tensor) -> Tensor:
        """Two convolutions."""
        return self.activation(self.pointwise(self.mid_activation(self.depthwise(x))))


def depthwise(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, dilation: int = 1) -> nn.Module:
    """A depthwise convolution by itself, as before the pointwise one in Xception: the same in both forms."""
    shape = ConvShape(in_channels, out_channels, kernel_size, stride, dilation, groups=in_channels)
    return conv_norm(**shape._asdict(), form="deploy", norm="none", bias=False)


class PoolBlock(nn.Module):
    """Pooling: (N, C, H, W) to (N, C, H / stride, W / stride); nothing with a window of one pixel."""

    def __init__(self, spec: Pool, in_channels: int, form: Form) -> None:
        super().__init__()
        size, stride, padding = spec.kernel_size, spec.stride, spec.padding_pixels
        if size == stride == 1:
            self.pool: nn.Module = nn.Identity()
        elif spec.kind == "max":
            self.pool = nn.MaxPool2d(size, stride, padding, ceil_mode=spec.ceil)
        else:
            self.pool = nn.AvgPool2d(size, stride, padding, ceil_mode=spec.ceil)
        self.dropout = dropout(spec.dropout, form)

    def forward(self, x: Tensor) -> Tensor:
        """Pools."""
        return self.dropout(self.pool(x))


class NormActivationBlock(nn.Module):
    """Normalization and activation by themselves; the shape stays."""

    def __init__(self, spec: NormActivation, in_channels: int, form: Form) -> None:
        super().__init__()
        self.norm = norm_layer(spec.norm, in_channels, spec.norm_eps)
        self.activation = activation(spec.activation)

    def forward(self, x: Tensor) -> Tensor:
        """Normalizes."""
        return self.activation(self.norm(x))


class SeriesActivationBlock(nn.Module):
    """ReLU, then a depthwise convolution; the shape stays."""

    def __init__(self, spec: SeriesActivation, in_channels: int, form: Form) -> None:
        super().__init__()
        self.activation = nn.ReLU()
        self.conv = conv_norm(
            in_channels, in_channels, 2 * spec.series + 1, form=form, groups=in_channels, eps=spec.norm_eps
        )

    def forward(self, x: Tensor) -> Tensor:
        """A sum of activations of the pixels around."""
        return self.conv(self.activation(x))

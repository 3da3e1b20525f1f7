"""The plain blocks: one convolution, and the classifier."""

from __future__ import annotations

from torch import Tensor, nn

from nas.blocks import Classifier, Conv
from nas.networks.bricks import Form, activation, conv_norm


class ConvBlock(nn.Module):
    """Convolution, normalization, activation: (N, C, H, W) to (N, out_channels, H / stride, W / stride)."""

    def __init__(self, spec: Conv, in_channels: int, form: Form) -> None:
        super().__init__()
        self.conv = conv_norm(
            in_channels,
            spec.out_channels,
            spec.kernel_size,
            stride=spec.stride,
            groups=spec.groups,
            norm=spec.norm,
            form=form,
        )
        self.activation = activation(spec.activation)

    def forward(self, x: Tensor) -> Tensor:
        """One convolution."""
        return self.activation(self.conv(x))


class ClassifierBlock(nn.Module):
    """Global average pooling, dropout (train form only) and a linear layer: (N, C, H, W) to logits (N, classes)."""

    def __init__(self, spec: Classifier, in_channels: int, num_classes: int, form: Form) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.dropout = TrainOnlyDropout(spec.dropout) if form == "train" and spec.dropout else nn.Identity()
        self.linear = nn.Linear(in_channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.linear(self.dropout(self.flatten(self.pool(x))))


class TrainOnlyDropout(nn.Dropout):
    """Dropout that leaves the network when it is fused."""

    def fuse(self) -> nn.Identity:
        """What dropout is in eval mode."""
        return nn.Identity()

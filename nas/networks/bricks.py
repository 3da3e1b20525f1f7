"""The bricks of blocks: convolution with normalization, activations, the fading one, squeeze-excitation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from nas.fusion import fold_batch_norm

Form = Literal["train", "deploy"]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hswish": nn.Hardswish,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "none": nn.Identity,
}


def activation(name: str) -> nn.Module:
    """The activation module of a schema's name; never in place, since fading reads its input twice.

    Raises:
        ValueError: an unknown name.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"activation {name!r} is unknown; known: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


class ConvNorm(nn.Module):
    """Convolution and BatchNorm, the train form of one convolution: (N, C, H, W) to (N, C', H', W')."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        self.norm = nn.BatchNorm2d(conv.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Convolves and normalizes."""
        return self.norm(self.conv(x))

    def fuse(self) -> nn.Conv2d:
        """The one convolution that this is in eval mode."""
        weight, bias = self.folded()
        conv = self.conv
        return conv2d_from(weight, bias, stride=conv.stride[0], groups=conv.groups)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of that convolution."""
        norm = self.norm
        assert norm.running_mean is not None and norm.running_var is not None
        return fold_batch_norm(
            self.conv.weight,
            self.conv.bias,
            norm.running_mean,
            norm.running_var,
            norm.weight,
            norm.bias,
            norm.eps,
        )


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    form: Form,
    stride: int = 1,
    groups: int = 1,
    norm: str = "batch",
) -> nn.Module:
    """A convolution, padded by half its kernel, with its normalization; in deploy form the convolution alone."""
    train_norm = form == "train" and norm == "batch"
    conv = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=not train_norm
    )
    return ConvNorm(conv) if train_norm else conv


@torch.no_grad()
def conv2d_from(weight: Tensor, bias: Tensor, stride: int, groups: int = 1) -> nn.Conv2d:
    """A convolution with these weights, padded by half its kernel."""
    out_channels, in_per_group, size, _ = weight.shape
    conv = nn.Conv2d(
        in_per_group * groups,
        out_channels,
        size,
        stride,
        size // 2,
        groups=groups,
        device=weight.device,
        dtype=weight.dtype,
    )
    conv.weight.copy_(weight)
    assert conv.bias is not None
    conv.bias.copy_(bias)
    return conv


class FadingActivation(nn.Module):
    """`A(x) = lam * act(x) + (1 - lam) * x`: an activation that fades to the identity while training.

    `lam` is a buffer, so that it travels with copies and averages of the network. It starts at 1 and must
    be 0 before the network is fused. No operation here is in place: an in-place ReLU would overwrite `x`
    before the second term reads it, and the network would never become linear.
    """

    lam: Tensor

    def __init__(self, name: str) -> None:
        super().__init__()
        self.activation = activation(name)
        self.register_buffer("lam", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """The mixture, of the shape of `x`."""
        return self.lam * self.activation(x) + (1 - self.lam) * x


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

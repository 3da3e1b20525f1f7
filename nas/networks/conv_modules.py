"""Convolution and BatchNorm modules as tensors and back: between `nas.fusion` and everything that fuses."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrize import is_parametrized

from nas.convolution import Pair
from nas.fusion import batch_norm_affine
from nas.linear_conv import LinearConv

LayerT = TypeVar("LayerT", bound=nn.Module)


def linear_of(conv: nn.Conv2d) -> LinearConv:
    """A convolution module as tensors; they share memory with the module's, and carry no gradient.

    Raises:
        ValueError: padding other than zeros, or padding "same" that pads one side more than the other.
    """
    if conv.padding_mode != "zeros":
        raise ValueError(f"padding_mode={conv.padding_mode!r} is not linear algebra on weights; allowed: zeros")
    bias = None if conv.bias is None else conv.bias.detach()
    stride, dilation = _pair(conv.stride), _pair(conv.dilation)
    unpadded = LinearConv(conv.weight.detach(), bias, stride, (0, 0), dilation, conv.groups)
    if not isinstance(conv.padding, str):
        return dataclasses.replace(unpadded, padding=_pair(conv.padding))
    if conv.padding == "valid":
        return unpadded
    height, width = unpadded.extent
    if height % 2 == 0 or width % 2 == 0:
        raise ValueError(f"padding='same' of the even kernel extent {unpadded.extent} pads one side more")
    return dataclasses.replace(unpadded, padding=(height // 2, width // 2))


def conv2d_from(conv: LinearConv) -> nn.Conv2d:
    """A convolution module with copies of these weights, on their device and of their dtype, in eval mode."""
    # Built on the meta device: initial numbers that are thrown away would draw from the global generator.
    module = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        conv.padding,
        conv.dilation,
        conv.groups,
        bias=conv.bias is not None,
        device="meta",
    )
    return with_weights(module, conv.weight, conv.bias).eval()


def linear_from(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A fully connected module with copies of these weights, in eval mode."""
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    return with_weights(module, weight, bias).eval()


def affine_of(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """What a BatchNorm is in eval mode: (factor, offset) per channel, float64.

    Raises:
        ValueError: it keeps no running statistics, hence depends on the batch in eval mode too.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("a BatchNorm without running statistics is no fixed affine map")
    scale, shift = (None if tensor is None else tensor.detach() for tensor in (norm.weight, norm.bias))
    return batch_norm_affine(norm.running_mean, norm.running_var, scale, shift, norm.eps)


class ShiftedConv(nn.Module):
    """A convolution of `x - shift`: (N, C, H, W) to (N, C', H', W').

    What BatchNorm before a zero-padded convolution becomes. To pad the input with the border values `shift`
    that the norm takes to zero is the same as to subtract them and pad with zeros, which is one pass less.
    """

    shift: Tensor

    def __init__(self, shift: Tensor, conv: nn.Conv2d) -> None:
        super().__init__()
        self.register_buffer("shift", shift.reshape(-1, 1, 1))
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """Subtracts the border values and convolves."""
        return self.conv(x - self.shift)


def is_plain(module: nn.Module, *kinds: type[nn.Module]) -> bool:
    """Whether a module is one of these torch layers and nothing more.

    A subclass may have another forward (weight standardization, a norm with its activation), and hooks and
    parametrizations change what a layer computes from what its attributes say.
    """
    kind = next((kind for kind in kinds if isinstance(module, kind)), None)
    if (
        kind is None
        or "forward" in vars(module)
        or is_parametrized(module)
        or module._forward_hooks
        or module._forward_pre_hooks
    ):
        return False
    return all(getattr(type(module), name, None) is getattr(kind, name, None) for name in ("forward", "_conv_forward"))


def with_weights(layer: LayerT, weight: Tensor, bias: Tensor | None) -> LayerT:
    """The layer itself, with copies of these weights."""
    for name, tensor in (("weight", weight), ("bias", bias)):
        copied = None if tensor is None else tensor.detach().clone(memory_format=torch.contiguous_format)
        layer.register_parameter(name, None if copied is None else nn.Parameter(copied))
    return layer


def _pair(values: tuple[int, ...]) -> Pair:
    height, width = values
    return height, width

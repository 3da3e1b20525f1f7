"""From a trained network to its deploy form, for our modules, foreign ones and plain Sequentials."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nas.fusion import LinearConv, Pair, batch_norm_affine


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
        padding = _pair(conv.padding)
    elif conv.padding == "valid":
        padding = 0, 0
    else:
        height, width = unpadded.extent
        if height % 2 == 0 or width % 2 == 0:
            raise ValueError(f"padding='same' of an even kernel extent {unpadded.extent} pads one side more")
        padding = height // 2, width // 2
    return LinearConv(unpadded.weight, bias, stride, padding, dilation, conv.groups)


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
    module.weight = _parameter(conv.weight)
    module.bias = None if conv.bias is None else _parameter(conv.bias)
    return module.eval()


def affine_of(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """What a BatchNorm is in eval mode: (factor, offset) per channel, float64.

    Raises:
        ValueError: it keeps no running statistics, hence depends on the batch in eval mode too.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("a BatchNorm without running statistics is no fixed affine map")
    scale, shift = (None if tensor is None else tensor.detach() for tensor in (norm.weight, norm.bias))
    return batch_norm_affine(norm.running_mean, norm.running_var, scale, shift, norm.eps)


def unfused_norms(network: nn.Module) -> list[str]:
    """Names of the BatchNorms that are left in a network, for the tools to count and name."""
    return [name for name, module in network.named_modules() if isinstance(module, _BatchNorm)]


def _parameter(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach().clone(memory_format=torch.contiguous_format))


def _pair(values: tuple[int, ...]) -> Pair:
    height, width = values
    return height, width

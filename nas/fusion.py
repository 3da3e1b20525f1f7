"""Weight algebra of fusion: pure functions on tensors, no modules, no devices.

Everything is composed in float64 and returned in the dtype of the input, so that the only error left is
that of the deploy form's own arithmetic. Each function states when it is exact.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv_transpose2d


def fold_batch_norm(
    weight: Tensor,
    bias: Tensor | None,
    mean: Tensor,
    var: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that equals convolution then BatchNorm (in eval mode).

    Exact for any stride, padding, groups and dilation, at borders too.

    Args:
        weight: (out_channels, in_channels / groups, kh, kw) of the convolution.
        bias: (out_channels,) or None.
        mean: running mean, (out_channels,).
        var: running variance, (out_channels,).
        scale: the norm's affine weight, or None.
        shift: the norm's affine bias, or None.
        eps: the norm's epsilon.
    """
    factor = (var.double() + eps).rsqrt()
    if scale is not None:
        factor = factor * scale.double()
    folded = weight.double() * factor.reshape(-1, 1, 1, 1)
    offset = -mean.double() if bias is None else bias.double() - mean.double()
    offset = offset * factor if shift is None else offset * factor + shift.double()
    return folded.to(weight.dtype), offset.to(weight.dtype)


def compose_pointwise(weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias of the kxk convolution that equals kxk (dense) then 1x1 (dense).

    Exact for any stride and padding of the first, at borders too, since the second looks at one pixel.

    Raises:
        ValueError: the second is not 1x1, or its channels do not follow on the first's.
    """
    if weight2.shape[2:] != (1, 1) or weight2.shape[1] != weight1.shape[0]:
        raise ValueError(f"cannot compose {tuple(weight1.shape)} with {tuple(weight2.shape)}: the second must be 1x1")
    flipped = weight1.double().transpose(0, 1)
    weight = conv_transpose2d(flipped, weight2.double().transpose(0, 1)).transpose(0, 1)
    bias = weight2.double().flatten(1) @ bias1.double() + bias2.double()
    return weight.contiguous().to(weight1.dtype), bias.to(weight1.dtype)


def add_identity(weight: Tensor, groups: int = 1) -> Tensor:
    """The weight of the convolution that equals `x + conv(x)`: a Dirac kernel is added.

    Exact for stride 1, odd kernels padded by half, and equal channels in and out.

    Raises:
        ValueError: the kernel is even or the channels differ.
    """
    out_channels, in_channels, height, width = weight.shape
    if in_channels * groups != out_channels or height % 2 == 0 or width % 2 == 0:
        raise ValueError(f"no identity fits into a convolution of shape {tuple(weight.shape)}, groups {groups}")
    summed = weight.double()
    channel = torch.arange(out_channels, device=weight.device)
    dirac = torch.zeros_like(summed)
    dirac[channel, channel % in_channels, height // 2, width // 2] = 1
    return (summed + dirac).to(weight.dtype)

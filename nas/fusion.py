"""Weight algebra of fusion: pure functions on convolutions as tensors, no modules.

Everything is computed in float64 and returned in the dtype of the weights that come in: each step rounds once.
Each function states when it is exact, and raises where it would not be. All of it works on meta tensors too, where
only the structure is known.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor
from torch.nn.functional import conv_transpose2d

from nas.convolution import Pair, composed_axis
from nas.linear_conv import LinearConv


def batch_norm_affine(
    mean: Tensor, var: Tensor, scale: Tensor | None, shift: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """What BatchNorm is in eval mode: `factor * x + offset` per channel. Exact.

    Args:
        mean: running mean, (channels,).
        var: running variance, (channels,).
        scale: the norm's affine weight, or None.
        shift: the norm's affine bias, or None.
        eps: the norm's epsilon.

    Returns:
        (factor, offset), each (channels,) and float64.
    """
    factor = (var.double() + eps).rsqrt()
    if scale is not None:
        factor = factor * scale.double()
    offset = -mean.double() * factor
    return factor, offset if shift is None else offset + shift.double()


def affine_after(conv: LinearConv, factor: Tensor, offset: Tensor) -> LinearConv:
    """The convolution that equals `conv`, then `factor * y + offset` per channel.

    Exact for every convolution, at borders too.

    Args:
        conv: the convolution.
        factor: (out_channels,).
        offset: (out_channels,).
    """
    weight = conv.weight.double() * factor.double().reshape(-1, 1, 1, 1)
    bias = offset.double() if conv.bias is None else conv.bias.double() * factor.double() + offset.double()
    return dataclasses.replace(conv, weight=weight, bias=bias).to(conv.weight.dtype)


def affine_before(factor: Tensor, offset: Tensor, conv: LinearConv) -> tuple[LinearConv, Tensor | None]:
    """The convolution that equals `factor * x + offset` per channel, then `conv`.

    Exact at borders too, provided that the input is padded as returned: `conv` pads with zeros what leaves the
    affine map, hence its input must be padded with the values that the map takes to zero.

    Args:
        factor: (in_channels,).
        offset: (in_channels,).
        conv: the convolution.

    Returns:
        The convolution, and the values (in_channels,) with which the caller pads its input by `conv.padding`
        first; the convolution itself then has no padding. The values are None where `conv` has no padding.

    Raises:
        ValueError: `conv` has padding, and a factor is 0 or so small that no finite value goes to zero.
    """
    per_input = conv.weight.double().unflatten(0, (conv.groups, -1))
    scaled = per_input * factor.double().reshape(conv.groups, 1, -1, 1, 1)
    gained = torch.einsum("goihw,gi->go", per_input, offset.double().reshape(conv.groups, -1)).flatten()
    bias = gained if conv.bias is None else conv.bias.double() + gained
    folded = dataclasses.replace(conv, weight=scaled.flatten(0, 1), bias=bias).to(conv.weight.dtype)
    if conv.padding == (0, 0):
        return folded, None
    border = (-offset.double() / factor.double()).to(conv.weight.dtype)
    # The one look at values; on the meta device there are none.
    if not border.is_meta and not bool(torch.isfinite(border).all()):
        raise ValueError("a factor of 0 before a padded convolution: no border value makes the two one convolution")
    return dataclasses.replace(folded, padding=(0, 0)), border


def regroup(conv: LinearConv, groups: int) -> LinearConv:
    """The same map with fewer groups: block-diagonal weights. Exact.

    Raises:
        ValueError: `groups` does not divide the convolution's groups.
    """
    if groups < 1 or conv.groups % groups:
        raise ValueError(f"groups={groups} must divide the convolution's {conv.groups} groups")
    if groups == conv.groups:
        return conv
    blocks = conv.weight.unflatten(0, (groups, conv.groups // groups, -1))
    # (groups, block of outputs, outputs, block of inputs, inputs, kh, kw), zero where the blocks differ.
    diagonal = torch.diag_embed(blocks.movedim(1, -1)).movedim((-2, -1), (1, 3))
    return dataclasses.replace(conv, weight=diagonal.flatten(3, 4).flatten(0, 2), groups=groups)


def identity_conv(channels: int, *, like: Tensor) -> LinearConv:
    """The identity as a 1x1 depthwise convolution, of the dtype and on the device of `like`."""
    return LinearConv(torch.ones(channels, 1, 1, 1, dtype=like.dtype, device=like.device), None, groups=channels)


def average_pool_conv(
    channels: int, kernel_size: Pair, *, stride: Pair, padding: Pair, count_include_pad: bool, like: Tensor
) -> LinearConv:
    """Average pooling as a depthwise convolution, of the dtype and on the device of `like`.

    Exact, borders included, where padding counts into the average.

    Raises:
        ValueError: padding that does not count (`count_include_pad=False`): its divisor changes at the border.
    """
    if padding != (0, 0) and not count_include_pad:
        raise ValueError(f"average pooling with padding={padding} and count_include_pad=False is no convolution")
    height, width = kernel_size
    shape = (channels, 1, height, width)
    weight = torch.full(shape, 1 / (height * width), dtype=like.dtype, device=like.device)
    return LinearConv(weight, None, stride, padding, groups=channels)


def parallel_sum(*convs: LinearConv) -> LinearConv:
    """The convolution that equals the sum of convolutions of one input. Exact, at borders too.

    Branches are aligned by their padding: with P the largest padding, tap t of branch i sits at
    `t * dilation_i + P - padding_i`. The result has the gcd of the groups, and the largest dilation on which
    all taps lie.

    Raises:
        ValueError: no branch, or branches of different strides, channels or output sizes.
    """
    if not convs:
        raise ValueError("a sum of convolutions needs at least one of them")
    _must_agree("strides", [conv.stride for conv in convs])
    _must_agree("channels (in, out)", [(conv.in_channels, conv.out_channels) for conv in convs])
    # The output sizes agree for every input only if these do.
    _must_agree("2 * padding - extent", [tuple(2 * conv.padding[d] - conv.extent[d] for d in (0, 1)) for conv in convs])
    groups = reduce(math.gcd, (conv.groups for conv in convs))
    padding = max(conv.padding[0] for conv in convs), max(conv.padding[1] for conv in convs)
    rows, columns = (_lattice(convs, d, padding[d]) for d in (0, 1))
    first = convs[0]
    kernel, dilation = (rows[0], columns[0]), (rows[1], columns[1])
    weight = first.weight.new_zeros(first.out_channels, first.in_channels // groups, *kernel, dtype=torch.float64)
    for conv in convs:
        taps = [_taps(conv, d, padding[d], dilation[d]) for d in (0, 1)]
        weight[:, :, taps[0], taps[1]] += regroup(conv, groups).weight.double()
    biases = [conv.bias.double() for conv in convs if conv.bias is not None]
    bias = torch.stack(biases).sum(0) if biases else None
    return LinearConv(weight, bias, first.stride, padding, dilation, groups).to(first.weight.dtype)


def compose(first: LinearConv, second: LinearConv) -> LinearConv:
    """The convolution that equals `first`, then `second`, for any strides, groups and dilations.

    Exact, at borders too, where it does not raise. `Convolution.then` says which structure the result has.

    Raises:
        ValueError: what `Convolution.then` raises. Where that is padding, pad once up front instead (`pad_once`):
            another function at borders.
    """
    whole = first.structure.then(second.structure)
    rows, columns = (composed_axis(first.structure, second.structure, d) for d in (0, 1))
    groups = whole.groups
    inner, outer = regroup(first, groups).weight.double(), regroup(second, groups).weight.double()
    # Groups of the second become channels of an image that the first's kernels are painted onto, tap by tap.
    image = outer.unflatten(0, (groups, -1)).transpose(0, 1).flatten(1, 2)
    step, spread = (rows.step, columns.step), (rows.spread, columns.spread)
    painted = conv_transpose2d(image, inner, stride=step, dilation=spread, groups=groups)
    weight = painted.unflatten(1, (groups, -1)).transpose(0, 1).flatten(0, 1).contiguous()
    bias = None if second.bias is None else second.bias.double()
    if first.bias is not None:
        gained = torch.einsum("goihw,gi->go", outer.unflatten(0, (groups, -1)), first.bias.double().view(groups, -1))
        bias = gained.flatten() if bias is None else bias + gained.flatten()
    return LinearConv(weight, bias, whole.stride, whole.padding, whole.dilation, groups).to(first.weight.dtype)


def pad_once(convs: Sequence[LinearConv]) -> tuple[LinearConv, ...]:
    """The same run of convolutions with all its padding, `sum p_i * prod_{j<i} s_j`, moved to the first.

    Output sizes stay, and so do outputs whose whole receptive field lies within the image. It is *not* the same
    function at borders; but this one can be composed exactly.
    """
    height, width, step = 0, 0, (1, 1)
    for conv in convs:
        height, width = height + conv.padding[0] * step[0], width + conv.padding[1] * step[1]
        step = step[0] * conv.stride[0], step[1] * conv.stride[1]
    paddings = [(height, width), *[(0, 0)] * (len(convs) - 1)]
    return tuple(dataclasses.replace(conv, padding=padding) for conv, padding in zip(convs, paddings, strict=False))


def conv_into_linear(conv: LinearConv, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """The fully connected layer that, after global average pooling, equals `conv`, pooling and the given layer.

    Exact for a 1x1 convolution of stride 1 without padding: it commutes with the average over all pixels.

    Args:
        conv: the convolution before pooling.
        weight: (classes, out_channels) of the fully connected layer.
        bias: (classes,) or None.

    Returns:
        Weight (classes, in_channels) and bias (classes,).

    Raises:
        ValueError: another kernel, stride or padding, or channels that do not follow on.
    """
    if (conv.kernel_size, conv.stride, conv.padding) != ((1, 1), (1, 1), (0, 0)):
        how = f"kernel {conv.kernel_size}, stride {conv.stride}, padding {conv.padding}"
        raise ValueError(f"only a 1x1 convolution of stride 1 without padding commutes with pooling, got {how}")
    if weight.dim() != 2 or weight.shape[1] != conv.out_channels:
        raise ValueError(f"a layer of weight {tuple(weight.shape)} cannot follow on {conv.out_channels} channels")
    wide = weight.double()
    merged = wide @ regroup(conv, 1).weight.double().flatten(1)
    constant = wide.new_zeros(weight.shape[0]) if bias is None else bias.double()
    if conv.bias is not None:
        constant = constant + wide @ conv.bias.double()
    return merged.to(weight.dtype), constant.to(weight.dtype)


def _lattice(convs: Sequence[LinearConv], d: int, padding: int) -> tuple[int, int]:
    """Kernel size and dilation along axis `d` of the sum of convolutions, padded by `padding`."""
    starts = [padding - conv.padding[d] for conv in convs]
    steps = [conv.dilation[d] for conv in convs if conv.kernel_size[d] > 1]
    dilation = reduce(math.gcd, [*starts, *steps]) or 1
    return max(start + conv.extent[d] - 1 for start, conv in zip(starts, convs, strict=True)) // dilation + 1, dilation


def _taps(conv: LinearConv, d: int, padding: int, dilation: int) -> slice:
    """Where along axis `d` the taps of `conv` lie in the kernel of a sum of that padding and dilation."""
    start, step = (padding - conv.padding[d]) // dilation, max(1, conv.dilation[d] // dilation)
    return slice(start, start + (conv.kernel_size[d] - 1) * step + 1, step)


def _must_agree(what: str, values: Sequence[object]) -> None:
    if len(set(values)) > 1:
        raise ValueError(f"parallel convolutions must agree in {what}, got {', '.join(map(str, values))}")

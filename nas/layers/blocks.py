"""What each block does on the device, layer by layer: the counterpart of the modules' forward in `nas.networks`.

A function is called with a sketch, the block as it is on the device (`Block.shipped`) and the map that enters, and
returns the map that leaves. What the forward still holds when it is no longer read (in a variable, or as an argument
of a module that runs) is told by `Sketch.keep`: it occupies memory.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from nas.blocks import (
    Basic,
    Classifier,
    Conv,
    Dense,
    Fire,
    Inception,
    InvertedResidual,
    NormActivation,
    Pool,
    Separable,
    SeriesActivation,
    ShuffleV1,
    ShuffleV2,
    Transition,
    Xception,
)
from nas.blocks.multi_branch import kernel_chain
from nas.convolution import Pair
from nas.layers.sketch import Map, Sketch


def _conv(sketch: Sketch, spec: Conv, x: Map) -> Map:
    y = sketch.conv(
        *(x, spec.out_channels, spec.kernel_size),
        stride=spec.stride,
        padding=spec.padding_pixels,
        dilation=spec.dilation,
        groups=spec.groups,
        norm=spec.norm,
        bias=spec.bias,
    )
    return sketch.activation(y, spec.activation)


def _separable(sketch: Sketch, spec: Separable, x: Map) -> Map:
    norm = "none" if spec.mid_activation == "none" else spec.norm
    y = sketch.conv(
        *(x, x.channels * spec.depth_multiplier, spec.kernel_size),
        stride=spec.stride,
        dilation=spec.dilation,
        groups=x.channels,
        norm=norm,
        bias=spec.mid_activation != "none",
    )
    y = sketch.conv(sketch.activation(y, spec.mid_activation), spec.out_channels, norm=spec.norm)
    return sketch.activation(y, spec.activation)


def _pool(sketch: Sketch, spec: Pool, x: Map) -> Map:
    if spec.kernel_size == spec.stride == 1:
        return x
    return sketch.pool(x, spec.kind, spec.kernel_size, spec.stride, spec.padding_pixels, ceil=spec.ceil)


def _norm_activation(sketch: Sketch, spec: NormActivation, x: Map) -> Map:
    return sketch.activation(sketch.norm(x, spec.norm), spec.activation)


def _series_activation(sketch: Sketch, spec: SeriesActivation, x: Map) -> Map:
    return sketch.conv(sketch.activation(x, "relu"), x.channels, 2 * spec.series + 1, groups=x.channels)


def _inverted_residual(sketch: Sketch, spec: InvertedResidual, x: Map) -> Map:
    mid, squeeze = spec.mid_channels(x.channels), spec.se_channels(x.channels)
    y = x
    if mid != x.channels:
        y = sketch.activation(sketch.conv(y, mid, groups=spec.groups, norm=spec.norm), spec.activation)
    y = sketch.conv(y, mid, spec.kernel_size, stride=spec.stride, groups=mid, norm=spec.norm)
    y = sketch.activation(y, spec.activation)
    if squeeze:
        y = sketch.squeeze_excite(y, squeeze)
    y = sketch.conv(y, spec.out_channels, groups=spec.groups, norm=spec.norm)
    return sketch.add(x, y) if spec.keeps_shape(x.channels) else y


def _residual(sketch: Sketch, spec: Basic, x: Map) -> Map:
    """A basic block or bottleneck."""
    if spec.pre_activation:
        return _pre_activation(sketch, spec, x)
    same = spec.keeps_shape(x.channels)
    kept = x if same else sketch.conv(x, spec.out_channels, stride=spec.stride, norm=spec.norm)
    y = _convolutions(sketch, spec, x, spec.norm)
    return sketch.activation(sketch.add(kept, y), spec.activation)


def _pre_activation(sketch: Sketch, spec: Basic, x: Map) -> Map:
    active = sketch.activation(sketch.norm(x, spec.norm), spec.activation)
    # What reads the sum, the next block's norm, cannot fold: the projection and the last convolution are bare.
    bias = spec.norm == "none"
    same = spec.keeps_shape(x.channels)
    kept = x if same else sketch.conv(active, spec.out_channels, stride=spec.stride, norm="none", bias=bias)
    y = sketch.add(kept, _convolutions(sketch, spec, active, "none", bias))
    sketch.keep(active)
    return y


def _convolutions(sketch: Sketch, spec: Basic, x: Map, last_norm: str, last_bias: bool = True) -> Map:
    """The convolutions beside the input, with activations between them."""
    in_channels = x.channels
    *firsts, last = spec.convolutions(in_channels)
    for _, out, size, stride, groups in firsts:
        x = sketch.conv(x, out, size, stride=stride, groups=groups, norm=spec.norm)
        x = sketch.activation(x, spec.activation)
    _, out, size, stride, groups = last
    return sketch.conv(x, out, size, stride=stride, groups=groups, norm=last_norm, bias=last_bias)


def _xception(sketch: Sketch, spec: Xception, x: Map) -> Map:
    same = spec.keeps_shape(x.channels)
    kept = x if same else sketch.conv(x, spec.out_channels, stride=spec.stride, norm=spec.norm)
    grows = 0 if spec.grow == "first" else spec.layers - 1
    y = x
    for i in range(spec.layers):
        if i > 0 or spec.pre_activation:
            y = sketch.activation(y, spec.activation)
        y = sketch.conv(y, y.channels, spec.kernel_size, groups=y.channels, norm="none", bias=False)
        y = sketch.conv(y, spec.out_channels if i >= grows else y.channels, norm=spec.norm)
    if spec.stride > 1:
        y = sketch.pool(y, "max", 3, spec.stride, 1)
    return sketch.add(kept, y)


def _inception(sketch: Sketch, spec: Inception, x: Map) -> Map:
    def conv(entering: Map, out_channels: int, size: Pair = (1, 1), stride: int = 1) -> Map:
        padding = 0 if stride > 1 and spec.padding == 0 else None
        y = sketch.conv(entering, out_channels, size, stride=stride, padding=padding, norm=spec.norm)
        y = sketch.activation(y, spec.activation)
        sketch.keep(entering)
        return y

    branches = [conv(x, spec.branch1, stride=spec.stride)] if spec.branch1 else []
    for reduce, kernels, out in spec.branches():
        y = conv(x, reduce) if reduce else x
        row, ends = kernel_chain(kernels, y.channels, out)
        for _, after, size in row:
            y = conv(y, after, size)
        branches.append(sketch.concat(*[conv(y, after, size, spec.stride) for _, after, size in ends]))
        sketch.keep(y)
    if spec.branch4 or spec.passed_channels(x.channels):
        pooled = sketch.pool(x, spec.pool, 3, spec.stride, spec.padding_pixels)
        branches.append(conv(pooled, spec.branch4) if spec.branch4 else pooled)
    return sketch.concat(*branches)


def _fire(sketch: Sketch, spec: Fire, x: Map) -> Map:
    squeezed = sketch.activation(sketch.conv(x, spec.squeeze, norm=spec.norm), spec.activation)
    ones = sketch.conv(squeezed, spec.expand1x1, 1, norm=spec.norm)
    threes = sketch.conv(squeezed, spec.expand3x3, 3, norm=spec.norm)
    both = sketch.concat(ones, threes)
    sketch.keep(squeezed)
    return sketch.activation(both, spec.activation)


def _dense(sketch: Sketch, spec: Dense, x: Map) -> Map:
    active = sketch.activation(sketch.norm(x, spec.norm), spec.activation)
    squeezed = sketch.activation(sketch.conv(active, spec.mid_channels(), norm=spec.norm), spec.activation)
    new = sketch.conv(squeezed, spec.growth_rate, spec.kernel_size, norm="none", bias=spec.norm == "none")
    return sketch.concat(x, new)


def _transition(sketch: Sketch, spec: Transition, x: Map) -> Map:
    active = sketch.activation(sketch.norm(x, spec.norm), spec.activation)
    y = sketch.conv(active, spec.output_channels(x.channels), norm="none", bias=spec.norm == "none")
    return sketch.pool(y, "avg", spec.stride, spec.stride) if spec.stride > 1 else y


def _shuffle_v1(sketch: Sketch, spec: ShuffleV1, x: Map) -> Map:
    conv = partial(sketch.conv, norm=spec.norm)
    mid, groups = spec.mid_channels(), spec.groups
    entered = sketch.activation(conv(x, mid, groups=groups if spec.grouped_entry else 1), spec.activation)
    shuffled = sketch.shuffle(entered, groups)
    y = conv(shuffled, mid, spec.kernel_size, stride=spec.stride, groups=mid)
    new = conv(y, spec.new_channels(x.channels), groups=groups)
    kept = sketch.pool(x, "avg", 3, spec.stride, 1) if spec.stride > 1 else x
    both = sketch.add(kept, new) if spec.keeps_channels(x.channels) else sketch.concat(kept, new)
    y = sketch.activation(both, spec.activation)
    sketch.keep(shuffled, kept, new)
    return y


def _shuffle_v2(sketch: Sketch, spec: ShuffleV2, x: Map) -> Map:
    conv = partial(sketch.conv, norm=spec.norm)
    half, size, stride = spec.out_channels // 2, spec.kernel_size, spec.stride
    if spec.keeps_shape(x.channels):
        kept, entering = sketch.split(x)
    else:
        down = conv(x, x.channels, size, stride=stride, groups=x.channels)
        kept, entering = sketch.activation(conv(down, half), spec.activation), x
    y = sketch.activation(conv(entering, half), spec.activation)
    y = conv(conv(y, half, size, stride=stride, groups=half), half)
    return sketch.shuffle(sketch.concat(kept, sketch.activation(y, spec.activation)), 2)


def classifier(sketch: Sketch, spec: Classifier, x: Map, num_classes: int) -> Map:
    """The logits, as a map of one pixel."""
    if spec.layer == "conv":
        return sketch.global_pool(sketch.activation(sketch.conv(x, num_classes), spec.activation))
    y = pooled = sketch.global_pool(x, spec.pool_size)
    for _ in range(spec.hidden_layers if spec.hidden_features else 0):
        y = sketch.activation(sketch.linear(y, spec.hidden_features), spec.activation)
    logits = sketch.linear(y, num_classes)
    sketch.keep(pooled)
    return logits


BLOCK_LAYERS: dict[str, Callable[..., Map]] = {
    "conv": _conv,
    "separable": _separable,
    "pool": _pool,
    "norm_activation": _norm_activation,
    "series_activation": _series_activation,
    "inverted_residual": _inverted_residual,
    "basic": _residual,
    "bottleneck": _residual,
    "xception": _xception,
    "inception": _inception,
    "fire": _fire,
    "dense": _dense,
    "transition": _transition,
    "shuffle_v1": _shuffle_v1,
    "shuffle_v2": _shuffle_v2,
    "classifier": classifier,
}
"""By the name of a block on the device; `reduce` is a `conv` there, `auxiliary` nothing."""

"""How layers and functions of a traced network are written as ONNX operators."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from onnx import helper
from torch import fx, nn
from torch.nn import functional
from torch.nn.modules.utils import _pair

from nas.networks.fading import FadingActivation
from nas.networks.onnx_writer import Value, Writer

Layer = Callable[[Writer, fx.Node, Any, str], Value]
"""Writes a module that reads the value of the last argument."""


def _plain(kind: str, **attributes: Any) -> Layer:
    """A module that is one operator without weights."""
    return lambda writer, node, module, x: writer.add(node, kind, x, **attributes)


def _conv(writer: Writer, node: fx.Node, conv: nn.Conv2d, x: str) -> Value:
    if conv.padding_mode != "zeros":
        return None
    # "same" and "valid" are numbers there; before an even kernel, "same" pads one side more.
    left, right, top, bottom = conv._reversed_padding_repeated_twice
    window: dict[str, Any] = {"kernel_shape": conv.kernel_size, "strides": conv.stride, "dilations": conv.dilation}
    window["pads"] = [top, left, bottom, right]
    return writer.add(node, "Conv", x, *writer.weights(node, conv, "weight", "bias"), group=conv.groups, **window)


def _linear(writer: Writer, node: fx.Node, linear: nn.Linear, x: str) -> Value:
    weights = writer.weights(node, linear, "weight", "bias")
    return writer.add(node, "Gemm", x, *weights, transB=1) if len(writer.shapes[node]) == 2 else None


def _batch_norm(writer: Writer, node: fx.Node, norm: nn.BatchNorm2d, x: str) -> Value:
    weights = writer.weights(node, norm, "weight", "bias", "running_mean", "running_var")
    return writer.add(node, "BatchNormalization", x, *weights, epsilon=norm.eps) if len(weights) == 4 else None


def _fading(writer: Writer, node: fx.Node, fading: FadingActivation, x: str) -> Value:
    """As it stands in the train form, whatever `lam` is by now: both terms are computed there."""
    active = SAME_SHAPE[type(fading.activation)](writer, node, fading.activation, x)
    if not isinstance(active, str):
        return None
    lam, rest = (writer.number(float(each)) for each in (fading.lam, 1 - fading.lam))
    active, same = writer.add(node, "Mul", active, lam, step="active"), writer.add(node, "Mul", x, rest, step="same")
    return writer.add(node, "Add", active, same, step="mixed")


def _group_norm(writer: Writer, node: fx.Node, norm: nn.GroupNorm, x: str) -> Value:
    """As torch's exporter writes it; GroupNormalization came with a later opset, and ONNX Runtime takes it apart."""
    one = writer.constant(f"ones:{norm.num_groups}", torch.ones(norm.num_groups, dtype=writer.dtype))
    zero = writer.constant(f"zeros:{norm.num_groups}", torch.zeros(norm.num_groups, dtype=writer.dtype))
    x = writer.reshape(node, x, norm.num_groups, -1, step="groups")
    x = writer.add(node, "InstanceNormalization", x, one, zero, step="norm", epsilon=norm.eps)
    x = writer.reshape(node, x, *writer.shapes[node][1:], step="map")
    for kind, name in (("Mul", "weight"), ("Add", "bias")) if norm.affine else ():
        column = getattr(norm, name)
        if column is not None:
            column = column.reshape(-1, *[1] * (len(writer.shapes[node]) - 2))
            x = writer.add(node, kind, x, writer.constant(f"{node.target}.{name}", column), step=name)
    return x


def _window(writer: Writer, node: fx.Node, pool: nn.MaxPool2d | nn.AvgPool2d) -> dict[str, Any]:
    """A pool's window; where torch rounds up, the map's end is padded until the last window fits.

    Until opset 22, ONNX's own ceil_mode kept windows that begin beyond the map.
    """
    kernel, stride, padding = (list(_pair(each)) for each in (pool.kernel_size, pool.stride, pool.padding))
    dilation, ends = list(_pair(getattr(pool, "dilation", 1))), []
    for i, side in enumerate(writer.shapes[node.all_input_nodes[0]][-2:]):
        reached = (writer.shapes[node][-2:][i] - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + 1
        ends.append(max(padding[i], reached - side - padding[i]))
    dilations = {"dilations": dilation} if isinstance(pool, nn.MaxPool2d) else {}
    return {"kernel_shape": kernel, "strides": stride, "pads": [*padding, *ends], **dilations}


def _max_pool(writer: Writer, node: fx.Node, pool: nn.MaxPool2d, x: str) -> Value:
    window = _window(writer, node, pool)
    # ONNX Runtime wants paddings below the kernel's size, dilated or not.
    fits = all(pad < size for pad, size in zip(window["pads"], 2 * window["kernel_shape"], strict=True))
    return writer.add(node, "MaxPool", x, **window) if fits and not pool.return_indices else None


def _avg_pool(writer: Writer, node: fx.Node, pool: nn.AvgPool2d, x: str) -> Value:
    if pool.divisor_override is not None:
        return None
    window = _window(writer, node, pool)
    top, left, bottom, right = window["pads"]
    counted = pool.count_include_pad and top + left > 0
    if counted and (top, left) != (bottom, right):  # torch counts its padding, but not what rounding up adds
        x = writer.add(node, "Pad", x, writer.integers(0, 0, top, left, 0, 0, top, left), step="pad")
        window["pads"], counted = [0, 0, bottom - top, right - left], False
    return writer.add(node, "AveragePool", x, count_include_pad=int(counted), **window)


def _adaptive_pool(writer: Writer, node: fx.Node, pool: nn.AdaptiveAvgPool2d, x: str) -> Value:
    *_, channels, height, width = writer.shapes[node.all_input_nodes[0]]
    rows, columns = writer.shapes[node][-2:]
    if rows == columns == 1:
        return writer.add(node, "GlobalAveragePool", x)
    if (rows, columns) == (height, width):
        return x
    if height % rows == width % columns == 0:
        window = [height // rows, width // columns]
        return writer.add(node, "AveragePool", x, kernel_shape=window, strides=window)
    # Windows of several sizes: each pixel's share in each of them, as a matrix.
    shares = functional.adaptive_avg_pool2d(torch.eye(height * width).reshape(1, -1, height, width), (rows, columns))
    shares = shares.reshape(-1, rows * columns).to(writer.dtype)
    matrix = writer.constant(f"shares:{height}x{width}:{rows}x{columns}", shares)
    x = writer.add(node, "MatMul", writer.reshape(node, x, channels, -1, step="pixels"), matrix, step="windows")
    return writer.reshape(node, x, channels, rows, columns)


def _reshaped(writer: Writer, node: fx.Node, source: Any, start_dim: int = 0, _rest: object = None) -> Value:
    """What flattening or unflattening from a dimension on gives."""
    shape, x = writer.shapes[node], writer.operand(source)
    if x is None or start_dim % len(writer.shapes[source]) == 0:
        return None
    return writer.add(node, "Flatten", x, axis=1) if len(shape) == 2 else writer.reshape(node, x, *shape[1:])


def _binary(kind: str) -> Callable[..., Value]:
    """An operator of two tensors or numbers."""

    def write(writer: Writer, node: fx.Node, *arguments: object) -> Value:
        names = writer.operands(arguments)
        return writer.add(node, kind, *names) if len(names) == 2 else None

    return write


def _padded(
    writer: Writer, node: fx.Node, source: Any, sides: Sequence[int], mode: str = "constant", value: float | None = None
) -> Value:
    """A map within a frame of zeros; torch counts the sides of the last dimension first."""
    x, dims = writer.operand(source), len(writer.shapes[node])
    if x is None or mode != "constant" or value or min(sides) < 0 or len(sides) > 2 * (dims - 1):
        return None
    before, after = ([0] * (dims - len(sides) // 2) + list(sides[i::2])[::-1] for i in (0, 1))
    return writer.add(node, "Pad", x, writer.integers(*before, *after))


def _dropout(
    writer: Writer, node: fx.Node, source: Any, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Value:
    return None if training or inplace else writer.operand(source)


def _cat(writer: Writer, node: fx.Node, tensors: object, dim: int = 0) -> Value:
    names, axis = writer.operands(tensors), dim % len(writer.shapes[node])
    return writer.add(node, "Concat", *names, axis=axis) if names and axis else None


def _transpose(writer: Writer, node: fx.Node, source: Any, dim0: int, dim1: int) -> Value:
    x, order = writer.operand(source), list(range(len(writer.shapes[node])))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return writer.add(node, "Transpose", x, perm=order) if x and order[0] == 0 else None


def _chunk(writer: Writer, node: fx.Node, source: Any, chunks: int, dim: int = 0) -> Value:
    x, shape = writer.operand(source), writer.shapes[source]
    axis = dim % len(shape)
    if x is None or axis == 0:
        return None
    sizes = [part.numel() for part in torch.empty(shape[axis], device="meta").chunk(chunks)]
    parts = tuple(f"{node.name}:{i}" for i in range(len(sizes)))
    name = f"{node.name}:out"
    writer.graph.node.append(helper.make_node("Split", [x, writer.integers(*sizes)], parts, name, axis=axis))
    return parts


def _item(writer: Writer, node: fx.Node, source: Any, index: object) -> Value:
    parts = writer.values[source]
    return parts[index] if isinstance(parts, tuple) and isinstance(index, int) else None


SAME_SHAPE: dict[type[nn.Module], Layer] = {
    nn.Identity: lambda writer, node, module, x: x,
    nn.Dropout: lambda writer, node, module, x: x,
    nn.BatchNorm2d: _batch_norm,
    nn.GroupNorm: _group_norm,
    nn.ReLU: _plain("Relu"),
    nn.ReLU6: lambda writer, node, module, x: writer.add(node, "Clip", x, writer.number(0), writer.number(6)),
    nn.Hardswish: _plain("HardSwish"),
    nn.Hardsigmoid: _plain("HardSigmoid", alpha=1 / 6, beta=0.5),
    nn.Sigmoid: _plain("Sigmoid"),
    nn.SiLU: lambda writer, node, _, x: writer.add(node, "Mul", x, writer.add(node, "Sigmoid", x, step="gate")),
    FadingActivation: _fading,
    nn.GELU: lambda writer, node, gelu, x: writer.add(node, "Gelu", x, approximate=gelu.approximate),
}
"""Layers that keep the shape, by exact class: a subclass may compute something else."""

MODULES: dict[type[nn.Module], Layer] = {
    **SAME_SHAPE,
    nn.Conv2d: _conv,
    nn.Linear: _linear,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _avg_pool,
    nn.AdaptiveAvgPool2d: _adaptive_pool,
    nn.Flatten: lambda writer, node, flat, x: _reshaped(writer, node, node.args[0], flat.start_dim, flat.end_dim),
}
"""All layers that can be written."""

FUNCTIONS: dict[Any, Callable[..., Value]] = {
    operator.add: _binary("Add"),
    operator.sub: _binary("Sub"),
    operator.mul: _binary("Mul"),
    operator.truediv: _binary("Div"),
    operator.getitem: _item,
    torch.cat: _cat,
    torch.flatten: _reshaped,
    functional.pad: _padded,
    functional.dropout: _dropout,
    "chunk": _chunk,
    "flatten": _reshaped,
    "transpose": _transpose,
    "unflatten": _reshaped,
}
"""Functions, and methods by name: writers that take the function's own arguments after writer and node."""

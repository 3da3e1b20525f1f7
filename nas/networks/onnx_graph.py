"""Networks as ONNX graphs, written layer by layer in milliseconds; torch's exporter takes seconds."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from inspect import signature
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, fx, nn

from nas.config import first_line
from nas.cost import on_meta
from nas.networks.conv_modules import is_plain
from nas.networks.fading import FadingActivation
from nas.networks.onnx_layers import FUNCTIONS, MODULES, SAME_SHAPE
from nas.networks.onnx_writer import UnknownOperator, Value, Writer
from nas.networks.tracing import traced

OPSET, IR_VERSION = 20, 10  # those of torch's exporter
DTYPES: dict[torch.dtype, int] = {
    torch.float16: TensorProto.FLOAT16,
    torch.float32: TensorProto.FLOAT,
    torch.float64: TensorProto.DOUBLE,
}


def onnx_model(network: nn.Module, input_shape: tuple[int, int, int] | None = None) -> onnx.ModelProto:
    """A network as ONNX: "images" (batch, C, H, W) to "logits", with a free batch size and its weights inside.

    Args:
        network: in eval mode; it is not changed.
        input_shape: (C, H, W) of the images; None takes the network's attribute of that name.

    Raises:
        UnknownOperator: something in the network is not in `MODULES` or `FUNCTIONS`, or it cannot be traced.
        ValueError: no input shape.
    """
    shape = getattr(network, "input_shape", None) if input_shape is None else input_shape
    if shape is None or len(shape) != 3:
        raise ValueError(f"input_shape={shape} is not (C, H, W), and the network names none of its own")
    dtype = next((parameter.dtype for parameter in network.parameters()), torch.float32)
    if dtype not in DTYPES:
        raise UnknownOperator(f"weights of {dtype} have no ONNX form here; known: {', '.join(map(str, DTYPES))}")
    try:
        # A copy is traced: the tracer would register tensors that it finds in no module with the network.
        probe, image = on_meta(network, shape)
        trace = traced(probe, leaves=(FadingActivation,))
        run = _Shapes(probe, graph=trace)
        run.run(image)
    except Exception as error:  # tracing runs the network's own code, which may raise anything
        raise UnknownOperator(f"network cannot be traced: {first_line(error)}") from error
    model = _empty_model(DTYPES[dtype], shape, run.shapes.get(trace.output_node(), ()))
    writer = Writer(model.graph, network, dtype, run.shapes)
    for node in trace.nodes:
        writer.values[node] = _written(writer, node)
    return model


def _empty_model(dtype: int, shape: Sequence[int], output_shape: Sequence[int]) -> onnx.ModelProto:
    images = helper.make_tensor_value_info("images", dtype, ["batch", *shape])
    logits = helper.make_tensor_value_info("logits", dtype, ["batch", *output_shape[1:]])
    graph = helper.make_graph([], "network", [images], [logits])
    opset = helper.make_operatorsetid("", OPSET)
    return helper.make_model(graph, producer_name="nas", opset_imports=[opset], ir_version=IR_VERSION)


class _Shapes(fx.Interpreter):
    """Runs a traced network, and keeps the shape of each tensor."""

    def __init__(self, module: nn.Module, graph: fx.Graph) -> None:
        super().__init__(module, graph=graph)
        self.shapes: dict[fx.Node, Sequence[int]] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.shapes[n] = result.shape
        return result

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # On the meta device torch takes activations apart in Python, which is most of the time of a whole network.
        return args[0] if type(self.fetch_attr(target)) in SAME_SHAPE else super().call_module(target, args, kwargs)


def _written(writer: Writer, node: fx.Node) -> Value:
    """Writes a node of the trace.

    Raises:
        UnknownOperator: it cannot be written.
    """
    value, place = None, next(reversed(node.meta.get("nn_module_stack") or ["network"]))
    name = getattr(node.target, "__qualname__", str(node.target))
    if node.op == "placeholder":
        value = None if writer.values or node.args else "images"
    elif node.op == "output":
        value = _output(writer, node.args[0])
    elif node.op == "get_attr":
        value = _attribute(writer, str(node.target))
    elif node.op == "call_module":
        place, module = str(node.target), writer.network.get_submodule(str(node.target))
        name = f"{type(module).__name__}({module.extra_repr()})"
        why = next(filter(None, (_unusual(each, writer.dtype) for each in module.modules())), None)
        if why:
            raise UnknownOperator(f"{name} at {place} {why}")
        x = writer.operand(node.args[0]) if len(node.args) == 1 and not node.kwargs else None
        value = MODULES[type(module)](writer, node, module, x) if x and type(module) in MODULES else None
    elif node.target in FUNCTIONS:
        value = _called(writer, node)
    if value is None:
        raise UnknownOperator(f"{name} at {place} has no ONNX form here")
    return value


def _output(writer: Writer, source: Any) -> Value:
    """Gives the network's output its name."""
    value = writer.operand(source)
    if value is None or writer.shapes[source][:1] != (1,):
        return None
    nodes = writer.graph.node
    if not nodes or nodes[-1].output[0] != value:
        writer.add(source, "Identity", value, step="logits")
    nodes[-1].output[0] = "logits"
    return "logits"


def _attribute(writer: Writer, path: str) -> Value:
    """A tensor of the network; those that the tracer made are none."""
    try:
        tensor = operator.attrgetter(path)(writer.network)
    except AttributeError:
        return None
    return writer.constant(path, tensor) if isinstance(tensor, Tensor) and tensor.dtype == writer.dtype else None


def _unusual(module: nn.Module, dtype: torch.dtype) -> str | None:
    """Why a module does not compute what its class and attributes say."""
    if not is_plain(module, type(module)):
        return "has hooks, parametrizations or a forward of its own"
    if module.training:
        return "is in training mode"
    if getattr(module, "inplace", False):
        return "works in place: who else reads its input is not known"
    floats = (each for each in (*module.parameters(), *module.buffers()) if each.is_floating_point())
    return None if all(each.dtype == dtype for each in floats) else f"is not of {dtype}"


def _called(writer: Writer, node: fx.Node) -> Value:
    write = FUNCTIONS[node.target]
    try:
        bound = signature(write).bind(writer, node, *node.args, **node.kwargs)
    except TypeError:  # the function has arguments that are not known here
        return None
    return write(*bound.args, **bound.kwargs)

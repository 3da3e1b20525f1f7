"""Adding to an ONNX graph what nodes of a trace compute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
import torch
from onnx import helper
from torch import Tensor, fx, nn

Value = str | tuple[str, ...] | None
"""Names in the ONNX graph of what a node of the trace gives; None where it cannot be written."""


class UnknownOperator(ValueError):
    """A network that cannot be written layer by layer; the message names the operator and its place."""


class Writer:
    """Adds to an ONNX graph; `values` holds what nodes of the trace give there."""

    def __init__(
        self, graph: onnx.GraphProto, network: nn.Module, dtype: torch.dtype, shapes: dict[fx.Node, Sequence[int]]
    ) -> None:
        self.graph, self.network, self.dtype, self.shapes = graph, network, dtype, shapes
        self.values: dict[fx.Node, Value] = {}
        self.constants: set[str] = set()

    def add(self, node: fx.Node, kind: str, *inputs: str, step: str = "out", **attributes: Any) -> str:
        """Adds an operator; `step` tells those of one node apart. The colon keeps names apart from those of weights."""
        name = f"{node.name}:{step}"
        self.graph.node.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def constant(self, name: str, value: Tensor) -> str:
        """Adds a tensor, once for each name."""
        if name not in self.constants:
            self.constants.add(name)
            array = value.detach().cpu().numpy()
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            # Made in its place: onnx.numpy_helper's tensor would have to be copied into the graph.
            self.graph.initializer.add(name=name, dims=array.shape, data_type=kind, raw_data=array.tobytes())
        return name

    def number(self, value: float) -> str:
        """Adds a number."""
        return self.constant(f"number:{value}", torch.tensor(value, dtype=self.dtype))

    def integers(self, *values: int) -> str:
        """Adds a list of integers."""
        return self.constant(f"integers:{','.join(map(str, values))}", torch.tensor(values))

    def weights(self, node: fx.Node, module: nn.Module, *names: str) -> list[str]:
        """Adds a module's tensors, without those that are None."""
        found = [(name, getattr(module, name)) for name in names]
        return [self.constant(f"{node.target}.{name}", value) for name, value in found if value is not None]

    def reshape(self, node: fx.Node, x: str, *shape: int, step: str = "out") -> str:
        """Reshapes all but the batch."""
        return self.add(node, "Reshape", x, self.integers(0, *shape), step=step)

    def operand(self, argument: object) -> str | None:
        """The name of a tensor or number that a function is given."""
        if isinstance(argument, int | float):
            return self.number(argument)
        value = self.values[argument] if isinstance(argument, fx.Node) else None
        return value if isinstance(value, str) else None

    def operands(self, arguments: Any) -> list[str]:
        """The names of several; none if one has no name."""
        if isinstance(arguments, fx.Node):
            return list(self.values[arguments] or ()) if isinstance(self.values[arguments], tuple) else []
        names = [name for each in arguments if (name := self.operand(each))]
        return names if len(names) == len(arguments) else []

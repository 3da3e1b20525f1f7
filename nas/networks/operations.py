"""What a network does with one image, operation by operation: shapes, counts and receptive fields."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torchvision.ops import StochasticDepth

from nas.config import first_line
from nas.convolution import Pair
from nas.cost import Observer, on_meta
from nas.networks.fading import FadingActivation
from nas.networks.tracing import traced
from nas.receptive_field import IMAGE, ReceptiveField, Window, widest

LEAVES = (FadingActivation, StochasticDepth, nn.Dropout)  # with a forward of our own or of torchvision
ADAPTIVE = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


@dataclass(frozen=True)
class Operation:
    """A layer or function that a network calls.

    Attributes:
        name: of a module as in `named_modules`; of a function that of the module that calls it, and its own.
        kind: the module's class or the function's name.
        in_shape: of the first thing that it reads, without the batch: (C, H, W) or (features,).
        out_shape: of what it makes.
        window: what it reads of a map. A linear layer on the numbers of a map reads all of that map.
        groups: of a convolution, else 1.
        params: parameters that no operation before it had.
        macs: multiply-adds, as `nas.cost.count` counts them.
        entering: receptive field of what it reads.
        field: receptive field of what it makes; its jump is the effective stride.
    """

    name: str
    kind: str
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    window: Window
    groups: int
    params: int
    macs: int
    entering: ReceptiveField
    field: ReceptiveField


def operations(network: nn.Module, input_shape: tuple[int, int, int]) -> tuple[Operation, ...]:
    """What a network does with one image in eval mode, in the order in which it runs.

    Found on the meta device: nothing is computed, and the network is not changed. Views that move no numbers (a
    flattened map, the halves of a split) are left out, and so is what does not run for the answer.

    Args:
        network: any module that torch.fx can trace and that takes (1, C, H, W).
        input_shape: (C, H, W).

    Raises:
        ValueError: a network that cannot be traced, or that does not take such images.
    """
    with torch.inference_mode(False), torch.no_grad():
        probe, image = on_meta(network, input_shape)
        try:
            graph = traced(probe, LEAVES)
        except Exception as error:  # tracing runs the network's own code, which may raise anything
            raise ValueError(f"network cannot be traced for its layers: {first_line(error)}") from error
        recorder = _Recorder(probe, graph, Observer([*probe.parameters(), *probe.buffers()], image))
        try:
            with recorder.observer:
                recorder.run(image)
        except RuntimeError as error:
            raise ValueError(f"images of {'x'.join(map(str, input_shape))}: {first_line(error)}") from error
    return tuple(recorder.done)


class _Recorder(fx.Interpreter):
    """Runs a network call by call and writes each one down."""

    def __init__(self, network: nn.Module, graph: fx.Graph, observer: Observer) -> None:
        super().__init__(fx.GraphModule(network, graph))
        self.extra_traceback = False
        self.observer = observer
        self.done: list[Operation] = []
        self._fields: dict[fx.Node, ReceptiveField] = {}
        self._flattened: dict[fx.Node, Pair] = {}  # of features: the size of the map that they are the numbers of
        self._calls: Counter[str] = Counter()
        self._counted: set[int] = set()  # parameters

    def run_node(self, n: fx.Node) -> Any:
        """Runs a call."""
        before = self.observer.flops
        result = super().run_node(n)
        parts = result if isinstance(result, tuple | list) else [result]
        if n.op in ("get_attr", "output") or not all(isinstance(each, Tensor) for each in parts):
            return result
        read = [each for each in n.all_input_nodes if each in self._fields]
        sources = [self.env[each] for each in read]
        if n.op == "placeholder":
            self._fields[n] = IMAGE
        elif isinstance(result, Tensor) and read and all(isinstance(each, Tensor) for each in sources):
            self._write(n, read, sources, result, (self.observer.flops - before) // 2)
        elif read:  # parts of a map
            self._fields[n] = widest(self._fields[each] for each in read)
        return result

    def _write(self, n: fx.Node, read: list[fx.Node], sources: list[Tensor], result: Tensor, macs: int) -> None:
        """Writes down a call that made `result` of what other calls had made."""
        module = self.fetch_attr(str(n.target)) if n.op == "call_module" else None
        pairs = zip(read, sources, strict=True)
        entering = widest(_seen(self._fields[each], source, result) for each, source in pairs)
        window = self._window(n, module, read[0], sources[0], result)
        field = entering.through(window)
        if _reduces(module, sources[0], result) and _map_size(result) == (1, 1) != _map_size(sources[0]):
            field = replace(field, everywhere=True)
        self._fields[n] = field
        is_view = result.untyped_storage()._cdata in {each.untyped_storage()._cdata for each in sources}
        if isinstance(module, nn.Identity | nn.Flatten) or (module is None and is_view):
            return
        name, kind = self._called(n, module)
        shapes = tuple(sources[0].shape[1:]), tuple(result.shape[1:])
        groups = module.groups if isinstance(module, nn.Conv2d) else 1
        params = self._params(n, module)
        self.done.append(Operation(name, kind, *shapes, window, groups, params, macs, entering, field))

    def _window(self, n: fx.Node, module: nn.Module | None, source: fx.Node, first: Tensor, result: Tensor) -> Window:
        """What a call reads of the map that comes first."""
        flattened = self._flattened.get(source, (1, 1))
        if isinstance(module, nn.Linear):
            return Window(flattened)
        if first.ndim == 4 and result.ndim == 2 and result.numel() == first.numel():
            flattened = _map_size(first)
        if result.ndim == 2:
            self._flattened[n] = flattened
        return _window(module, first, result)

    def _called(self, n: fx.Node, module: nn.Module | None) -> tuple[str, str]:
        if module is not None:
            return str(n.target), type(module).__name__
        kind = n.target if isinstance(n.target, str) else getattr(n.target, "__name__", str(n.target))
        inside = [*n.meta.get("nn_module_stack", {})]
        name = f"{inside[-1]}.{kind}" if inside else kind
        self._calls[name] += 1
        return (name if self._calls[name] == 1 else f"{name}_{self._calls[name]}"), kind

    def _params(self, n: fx.Node, module: nn.Module | None) -> int:
        """The numbers that are trained in a call and were in none before."""
        given = [self.fetch_attr(str(each.target)) for each in n.all_input_nodes if each.op == "get_attr"]
        owned = [*module.parameters()] if module is not None else [x for x in given if isinstance(x, nn.Parameter)]
        new = [each for each in owned if id(each) not in self._counted]
        self._counted |= {id(each) for each in new}
        return sum(each.numel() for each in new)


def _seen(field: ReceptiveField, source: Tensor, result: Tensor) -> ReceptiveField:
    """The receptive field by which a source counts: a gate, one value for a whole map, is told of and not measured."""
    gate = source.ndim == result.ndim == 4 and _map_size(source) == (1, 1) != _map_size(result)
    return replace(IMAGE, everywhere=field.everywhere) if gate else field


def _window(module: nn.Module | None, first: Tensor, result: Tensor) -> Window:
    if isinstance(module, nn.Conv2d | nn.MaxPool2d):
        return Window(_pair(module.kernel_size), _pair(module.stride), _pair(module.dilation))
    if isinstance(module, nn.AvgPool2d):
        return Window(_pair(module.kernel_size), _pair(module.stride))
    if _reduces(module, first, result):
        (rows, down), (columns, right) = (
            _shares(side, into) for side, into in zip(_map_size(first), _map_size(result), strict=True)
        )
        return Window((rows, columns), (down, right))
    return Window()


def _reduces(module: nn.Module | None, first: Tensor, result: Tensor) -> bool:
    """Whether a call averages shares of a map: an adaptive pool, or a mean over all of it."""
    mean = module is None and first.ndim == 4 and result.numel() < first.numel() and _map_size(result) == (1, 1)
    return isinstance(module, ADAPTIVE) or mean


def _shares(side: int, into: int) -> tuple[int, int]:
    """The largest window of an adaptive pool along one side, and the largest distance between two."""
    ends = [(i * side // into, -(-(i + 1) * side // into)) for i in range(into)]
    return max(end - start for start, end in ends), math.ceil(side / into)


def _map_size(x: Tensor) -> Pair:
    return (x.shape[2], x.shape[3]) if x.ndim == 4 else (1, 1)


def _pair(value: Any) -> Pair:
    return (value, value) if isinstance(value, int) else tuple(value)

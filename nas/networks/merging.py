"""Merging runs of linear convolutions of a deployed network into fewer ones, where that is exact and pays."""

from __future__ import annotations

import copy
import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import torch
from torch import fx, nn
from torch.nn.functional import conv2d

from nas.bounded import parse_json
from nas.config import first_line
from nas.convolution import Convolution
from nas.cost import entering_shapes
from nas.fusion import compose
from nas.layers.merging import cheapest, exact_spans
from nas.linear_conv import LinearConv
from nas.networks.conv_modules import conv2d_from, is_plain, linear_of
from nas.networks.fusing import places
from nas.networks.tracing import traced

Shape = tuple[int, int, int]
ConvCost = Callable[[nn.Conv2d, Shape], float]
"""What a convolution costs on an input of (C, H, W)."""


@dataclass(frozen=True)
class MergePlan:
    """Which convolutions of a deployed network become one.

    Attributes:
        segments: names, as in `named_modules`, of the convolutions of each merger, in their order.

    Raises:
        ValueError: a segment of fewer than two convolutions, or a name in two places.
    """

    segments: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        for segment in self.segments:
            if len(segment) < 2:
                raise ValueError(f"a segment merges at least two convolutions, got {segment}")
        for name, times in Counter(name for segment in self.segments for name in segment).items():
            if times > 1:
                raise ValueError(f"convolution {name!r} is in the merge plan {times} times; allowed: once")

    def to_json(self) -> str:
        """The plan as JSON, for `merge_plan_from_json`."""
        return json.dumps({"segments": self.segments})


def merge_plan_from_json(text: str) -> MergePlan:
    """The plan that `MergePlan.to_json` wrote.

    Raises:
        ValueError: anything else.
    """
    try:
        found = parse_json(text)
    except ValueError as error:
        raise ValueError(f"a merge plan must be JSON: {error}") from None
    segments = found.get("segments") if isinstance(found, dict) and len(found) == 1 else None
    if not isinstance(segments, list) or not all(isinstance(segment, list) for segment in segments):
        raise ValueError('a merge plan must be {"segments": [[name, ...], ...]}')
    if not all(isinstance(name, str) for segment in segments for name in segment):
        raise ValueError("a merge plan's segments must hold names of modules only")
    return MergePlan(tuple(tuple(segment) for segment in segments))


def conv_macs(conv: nn.Conv2d, input_shape: Shape) -> float:
    """Multiply-adds of a convolution for one image of (C, H, W)."""
    image = torch.empty(1, *input_shape, device="meta", dtype=conv.weight.dtype)
    weight = conv.weight.detach().to("meta")
    out = conv2d(image, weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)
    return float(out.shape[2] * out.shape[3] * weight.numel())


def conv_params(conv: nn.Conv2d, input_shape: Shape) -> float:
    """Weights of a convolution; biases are as many after merging as the last one had."""
    return float(conv.weight.numel())


def one_each(conv: nn.Conv2d, input_shape: Shape) -> float:
    """The same for every convolution, so that the plan of least cost merges whatever can be merged."""
    return 1.0


MERGE_COSTS: dict[str, ConvCost | None] = {
    "none": None,
    "macs": conv_macs,
    "params": conv_params,
    "all": one_each,
}
"""What mergers are planned by; none merges nothing."""


def merge_plan(deployed: nn.Module, merge: str) -> MergePlan:
    """The mergers of a network in deploy form by the name of a cost.

    Raises:
        ValueError: an unknown name.
    """
    if merge not in MERGE_COSTS:
        raise ValueError(f"merge={merge} is unknown; known: {', '.join(MERGE_COSTS)}")
    cost = MERGE_COSTS[merge]
    return MergePlan(()) if cost is None else plan_merges(deployed, cost)


def linear_runs(deployed: nn.Module) -> tuple[tuple[str, ...], ...]:
    """Names of the convolutions of each maximal linear run, in order; each run has at least two.

    Within a run each convolution feeds the next one alone, with nothing but Identity between them. In no run are
    convolutions that are used twice or whose weights are read elsewhere, that have hooks or parametrizations,
    or that pad with anything but zeros, equally on both sides.

    Raises:
        ValueError: the network cannot be traced, hence who feeds whom is unknown.
    """
    try:
        graph = traced(deployed)
    except Exception as error:  # tracing runs the network's own code, which may raise anything
        raise ValueError(f"network cannot be traced for runs of convolutions: {first_line(error)}") from error
    modules = {node: deployed.get_submodule(str(node.target)) for node in graph.nodes if node.op == "call_module"}
    calls, registered = Counter(modules.values()), places(deployed)
    read = {str(node.target).rpartition(".")[0] for node in graph.nodes if node.op == "get_attr"}
    mergeable = {
        node
        for node, module in modules.items()
        if _is_linear(module) and calls[module] == registered[module] == 1
        if str(node.target) not in read and len(node.args) == 1
    }
    runs: dict[fx.Node, list[fx.Node]] = {}  # by their last convolution so far
    for node in graph.nodes:  # in this order, a convolution comes after the one that feeds it
        if node in mergeable:
            source = _only_source(node, modules)
            runs[node] = [*(runs.pop(source, []) if source is not None else []), node]
    return tuple(tuple(str(node.target) for node in run) for run in runs.values() if len(run) > 1)


def plan_merges(deployed: nn.Module, cost: ConvCost, input_shape: Shape | None = None) -> MergePlan:
    """The mergers that make the sum of `cost` over all convolutions least, among those that are exact.

    Each run (`linear_runs`) is cut into segments by dynamic programming; of equal sums the one of fewer
    convolutions is taken, so by `conv_macs` the multiply-adds never rise. The network is not changed.

    Args:
        deployed: a network in deploy form.
        cost: called once for each structure and input shape, with a convolution on the CPU that has the structure
            and the dtype of the merged one, its numbers made up (constant, finite and not denormal), and with the
            (C, H, W) that enters it.
        input_shape: (C, H, W) of the images; None takes the network's attribute of that name.

    Raises:
        ValueError: no input shape, one that the network does not take, a network that cannot be traced, or a cost
            that is NaN.
    """
    shape = getattr(deployed, "input_shape", None) if input_shape is None else input_shape
    if shape is None or len(shape) != 3:
        raise ValueError(f"input_shape={shape} is not (C, H, W), and the network names none of its own")
    channels, height, width = shape
    runs = linear_runs(deployed)
    try:
        shapes = dict(entering_shapes(deployed, (channels, height, width), [name for run in runs for name in run]))
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"input_shape={shape} does not fit the network: {first_line(error)}") from error
    known: dict[tuple[Convolution, torch.dtype, Shape], float] = {}

    def priced(conv: Convolution, dtype: torch.dtype, entering: Shape) -> float:
        key = conv, dtype, entering
        if key not in known:
            known[key] = float(cost(_with_numbers(conv, dtype), entering))
            if math.isnan(known[key]):
                raise ValueError(f"cost of {conv} on {entering} is NaN")
        return known[key]

    segments: list[tuple[str, ...]] = []
    for run in runs:
        convs = [_convolution(deployed, name) for name in run]
        spans = exact_spans([linear_of(conv).structure for conv in convs])
        costs = {
            # A merged convolution has the dtype of its first.
            span: priced(merged, convs[span[0]].weight.dtype, shapes[run[span[0]]])
            for span, merged in spans.items()
        }
        segments += [run[start:end] for start, end in cheapest(len(run), costs) if end - start > 1]
    return MergePlan(tuple(segments))


def apply_merges(deployed: nn.Module, plan: MergePlan) -> nn.Module:
    """A copy of a network with the segments of a plan merged; the argument is not changed.

    The first convolution of a segment becomes the merged one, the others become Identity. Composed in float64,
    and rounded once to the dtype of the weights: exact but for that, at borders too.

    Raises:
        ValueError: a segment that is not part of a linear run of this network, or whose merger is not exact.
    """
    merged = copy.deepcopy(deployed)
    runs = linear_runs(deployed) if plan.segments else ()
    for segment in plan.segments:
        if not any(run[i : i + len(segment)] == segment for run in runs for i in range(len(run))):
            raise ValueError(f"{', '.join(segment)}: not a linear run of convolutions of this network")
        convs = [linear_of(_convolution(deployed, name)) for name in segment]
        try:
            whole = reduce(compose, (conv.to(torch.float64) for conv in convs))
        except ValueError as error:
            raise ValueError(f"{', '.join(segment)}: {error}") from None
        _replace(merged, segment[0], conv2d_from(whole.to(convs[0].weight.dtype)))
        for name in segment[1:]:
            _replace(merged, name, nn.Identity().eval())
    return merged


def _is_linear(module: nn.Module) -> bool:
    """Whether a module is a convolution that `linear_of` takes, and nothing more."""
    if not isinstance(module, nn.Conv2d) or not is_plain(module, nn.Conv2d):
        return False
    try:
        linear_of(module)
    except ValueError:
        return False
    return True


def _only_source(node: fx.Node, modules: dict[fx.Node, nn.Module]) -> fx.Node | None:
    """The node that feeds this one through nothing but Identity, and feeds nothing else; None where there is none."""
    while True:
        sources = node.all_input_nodes
        if len(sources) != 1 or len(sources[0].users) != 1:
            return None
        node = sources[0]
        if node not in modules or not is_plain(modules[node], nn.Identity):
            return node


def _with_numbers(conv: Convolution, dtype: torch.dtype) -> nn.Conv2d:
    """A convolution of a structure on the CPU, with made-up numbers that keep activations within range."""
    shape = (conv.out_channels, conv.in_channels // conv.groups, *conv.kernel_size)
    weight = torch.full(shape, conv.out_channels / conv.weights, dtype=dtype)
    bias = torch.zeros(conv.out_channels, dtype=dtype) if conv.bias else None
    return conv2d_from(LinearConv(weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups))


def _convolution(network: nn.Module, name: str) -> nn.Conv2d:
    module = network.get_submodule(name)
    assert isinstance(module, nn.Conv2d)
    return module


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)

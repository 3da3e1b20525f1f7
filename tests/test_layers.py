"""The layers that an architecture says it has on the device are those of the network that is built."""

import math
import operator
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

import nas
from nas.architecture import Architecture
from nas.blocks import BLOCK_SCHEMAS, Basic, Block, Classifier, Conv, Pool, Reduce
from nas.cost import footprint, on_meta
from nas.layers import LAYER_COSTS, Layer, deploy_layers, described, merged_layers
from nas.layers.blocks import BLOCK_LAYERS
from nas.layers.sketch import Map, Sketch
from nas.networks.builder import build
from nas.networks.merging import MERGE_COSTS, apply_merges, merge_plan
from nas.space_file import load_architecture, load_space, space_names, zoo_names
from tests.test_networks import BODY_BLOCKS, LIGHT_ZOO, variants

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore")]

CLASSES = 7
MERGES = tuple(name for name, cost in LAYER_COSTS.items() if cost is not None)
SHAPES = [(1, 8, 8), (3, 32, 32), (3, 65, 130), (3, 224, 224)]
KINDS: dict[object, str] = {
    nn.Conv2d: "conv",
    nn.Linear: "linear",
    nn.BatchNorm2d: "batch_norm",
    nn.GroupNorm: "group_norm",
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.Hardswish: "hswish",
    nn.SiLU: "silu",
    nn.GELU: "gelu",
    nn.Hardsigmoid: "hardsigmoid",
    nn.MaxPool2d: "max_pool",
    nn.AvgPool2d: "avg_pool",
    nn.AdaptiveAvgPool2d: "global_pool",
    operator.add: "add",
    operator.mul: "multiply",
    torch.cat: "concat",
    "chunk": "split",
    "transpose": "shuffle",
}
VIEWS = (nn.Identity, nn.Flatten, "flatten", "unflatten", operator.getitem)


class Ran(NamedTuple):
    """One operation of a network as it ran: what `Layer` says, None where the operation itself does not know."""

    kind: str
    in_elements: int
    out_elements: int
    params: int
    in_channels: int | None = None
    out_channels: int | None = None
    in_size: tuple[int, ...] | None = None
    out_size: tuple[int, ...] | None = None
    kernel_size: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    bias: bool = False


class Observer(fx.Interpreter):
    """Runs a network operation by operation and writes each one down."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(fx.symbolic_trace(network))
        self.ran: list[Ran] = []

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.op in ("placeholder", "output"):
            return result
        module = self.fetch_attr(str(n.target)) if n.op == "call_module" else None
        what = n.target if module is None else type(module)
        if what in VIEWS:
            return result
        inputs = [self.env[each] for each in n.all_input_nodes]
        outputs = result if isinstance(result, tuple) else (result,)
        elements = sum(each.numel() for each in inputs), sum(each.numel() for each in outputs)
        structure = {} if module is None else of_module(module, inputs[0], result)
        if what == "transpose":
            structure["groups"] = inputs[0].shape[n.args[1]]
        params = 0 if module is None else sum(each.numel() for each in module.parameters())
        self.ran.append(Ran(KINDS[what], *elements, params, **structure))
        return result


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def of_module(module: nn.Module, x: Tensor, y: Tensor) -> dict[str, Any]:
    """All that a module and the maps on both sides of it say."""
    found: dict[str, Any] = {
        "in_channels": x.shape[1],
        "out_channels": y.shape[1],
        "in_size": tuple(x.shape[2:]) or (1, 1),
        "out_size": tuple(y.shape[2:]) or (1, 1),
    }
    for name in ("kernel_size", "stride", "padding", "dilation"):
        if hasattr(module, name):
            found[name] = pair(getattr(module, name))
    if isinstance(module, nn.Conv2d | nn.Linear):
        found["bias"] = module.bias is not None
    groups = {nn.Conv2d: "groups", nn.GroupNorm: "num_groups"}.get(type(module))
    return found if groups is None else found | {"groups": getattr(module, groups)}


@torch.no_grad()
def observed(network: nn.Module, shape: tuple[int, int, int]) -> list[Ran]:
    """What a network does with one image, in order."""
    probe, image = on_meta(network, shape)
    observer = Observer(probe)
    observer.run(image)
    return observer.ran


def said(layer: Layer, ran: Ran) -> Ran:
    """What a layer says of what an operation knows."""
    return Ran(*(None if value is None else getattr(layer, name) for name, value in ran._asdict().items()))


def assert_same(layers: tuple[Layer, ...], ran: list[Ran]) -> None:
    assert [layer.kind for layer in layers] == [each.kind for each in ran]
    for layer, each in zip(layers, ran, strict=True):
        assert said(layer, each) == each


def built(arch: Architecture, shape: tuple[int, int, int]) -> nn.Module:
    with torch.device("meta"):
        return build(arch, num_classes=CLASSES, input_shape=shape, form="deploy")


def assert_describes(arch: Architecture, shape: tuple[int, int, int], merges: tuple[str, ...] = ()) -> None:
    """Layers, and what is left of them by each cost, are those of the network; so is what it keeps in memory."""
    network = built(arch, shape)
    assert_described(arch, shape, merges, network, observed(network, shape))


def assert_described(
    arch: Architecture, shape: tuple[int, int, int], merges: tuple[str, ...], network: nn.Module, ran: list[Ran]
) -> None:
    layers = deploy_layers(arch, CLASSES, shape)
    assert_same(layers, ran)
    assert (sum(each.params for each in layers), sum(each.macs for each in layers)) == nas.count(network, shape)
    assert described(arch, CLASSES, shape) == (layers, footprint(network, shape))
    for merge in merges:
        plan = merge_plan(network, merge)
        left = deploy_layers(arch, CLASSES, shape, merge)
        assert len(left) == len(layers) - sum(len(segment) - 1 for segment in plan.segments)
        if plan.segments:
            merged = apply_merges(network, plan)
            assert_same(left, observed(merged, shape))
            assert described(arch, CLASSES, shape, merge) == (left, footprint(merged, shape))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", space_names())
def test_layers_of_every_space_are_those_of_the_network(name, shape):
    assert_describes(load_space(name).sample(SHAPES.index(shape)), shape, MERGES)


@pytest.mark.parametrize("name", zoo_names())
def test_layers_of_the_zoo_are_those_of_the_network(name):
    arch = load_architecture(name)
    assert_describes(arch, (3, 224, 224))
    if name in LIGHT_ZOO:
        assert_describes(arch, (1, 28, 31), MERGES)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", [*space_names(), *zoo_names()])
def test_more_layers_are_those_of_the_network(name, shape):
    archs = [load_architecture(name)] if name in zoo_names() else map(load_space(name).sample, range(100, 125))
    for arch in archs:
        assert_describes(arch, shape, MERGES)


def test_every_block_on_the_device_says_its_layers():
    shipped = {"conv" if name == "reduce" else name for name in BLOCK_SCHEMAS if name != "auxiliary"}
    assert set(BLOCK_LAYERS) == shipped


def chain(*blocks: Block) -> Architecture:
    return Architecture(stem=(Conv(out_channels=8, activation="none"),), stages=(blocks,), head=(Classifier(),))


@pytest.mark.parametrize("name", BODY_BLOCKS)
def test_layers_of_every_variant_of_a_block_are_those_of_the_module(name):
    seen = set()
    for block in variants(name):
        arch = chain(block)
        if arch.deploy_id not in seen:
            seen.add(arch.deploy_id)
            assert_describes(arch, (2, 11, 9))


@pytest.mark.parametrize("block", variants("classifier"), ids=repr)
def test_layers_of_every_classifier_are_those_of_the_module(block):
    stem = Conv(out_channels=8, activation="none")
    try:
        block.check(8)
    except ValueError:
        return
    assert_describes(Architecture((stem,), (), (block,)), (2, 11, 9), MERGES)


ALL_VARIANTS = [block for name in (*BODY_BLOCKS, "auxiliary") for block in variants(name)]
LINEAR = [
    *(
        Reduce(out_channels=c, kernel_size=k, stride=s, activation="none")
        for c in (4, 24)
        for k in (1, 3)
        for s in (1, 2)
    ),
    *(
        Conv(out_channels=c, kernel_size=1, activation="none", bias=b, norm="none")
        for c in (4, 24)
        for b in (True, False)
    ),
    *(Conv(out_channels=8, padding=0, activation="none", dilation=d, groups=g) for d in (1, 2) for g in (1, 4)),
    Pool(kernel_size=1, stride=1),
]


@st.composite
def chains(draw: st.DrawFn) -> Architecture:
    """Random blocks one after another, each with groups that fit; half of them linear, so that there are runs."""
    blocks, channels = [], 8
    for block in draw(st.lists(st.sampled_from(ALL_VARIANTS) | st.sampled_from(LINEAR), min_size=1, max_size=6)):
        try:
            block.check(channels)
        except ValueError:
            continue
        blocks.append(block)
        channels = block.output_channels(channels)
    return chain(*blocks)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(arch=chains(), shape=st.sampled_from([(2, 11, 9), (3, 23, 38)]))
def test_layers_of_random_chains_are_those_of_the_network(arch, shape):
    try:
        network = built(arch, shape)
        ran = observed(network, shape)
    except (RuntimeError, ValueError):  # a map vanishes
        with pytest.raises(ValueError, match="leaves nothing"):
            deploy_layers(arch, CLASSES, shape)
        return
    assert_described(arch, shape, MERGES, network, ran)


# What is merged


def test_costs_of_mergers_have_the_names_that_plans_have():
    assert {"none", "macs", "params"} <= set(LAYER_COSTS) <= set(MERGE_COSTS)
    with pytest.raises(ValueError, match="merge=mac is unknown; known: none, macs, params, all"):
        deploy_layers(chain(), CLASSES, (3, 8, 8), "mac")


@pytest.mark.parametrize(
    ("blocks", "follow"),
    [
        ([Conv(out_channels=4)], [False, True]),  # after a stem without activation
        ([Conv(out_channels=4), Conv(out_channels=4)], [False, True, False]),
        ([Pool(kernel_size=1, stride=1), Conv(out_channels=4)], [False, True]),
        ([Pool(), Conv(out_channels=4)], [False, False]),
        ([Basic(out_channels=8)], [False, False, False]),  # the sum reads the stem too
    ],
)
def test_a_convolution_follows_the_one_whose_output_it_alone_reads(blocks, follow):
    layers = deploy_layers(chain(*blocks), CLASSES, (3, 16, 16))
    assert [layer.follows for layer in layers if layer.kind == "conv"] == follow
    assert not any(layer.follows for layer in layers if layer.kind != "conv")


@pytest.mark.parametrize("read_inside", [False, True])
def test_a_map_that_leaves_a_block_begins_no_run_where_the_block_reads_it_too(read_inside):
    sketch = Sketch()
    made = sketch.conv(Map(4, (5, 5)), 8)
    if read_inside:
        sketch.activation(made, "relu")
    layers, after_conv = sketch.finished(made, after_conv=True)
    assert layers[0].follows and after_conv is not read_inside


def test_any_cost_plans_and_everything_else_stays():
    linear = [Reduce(out_channels=16, activation="none")] * 3
    layers = deploy_layers(chain(*linear, Reduce(out_channels=16)), CLASSES, (3, 16, 16))
    fewest = merged_layers(layers, lambda layer: 1.0)
    (whole,) = [layer for layer in fewest if layer.kernel_size == (9, 9)]
    assert (whole.in_channels, whole.out_channels, whole.padding) == (8, 16, (4, 4))
    assert [layer for layer in fewest if layer.kind != "conv"] == [layer for layer in layers if layer.kind != "conv"]
    assert merged_layers(layers, lambda layer: math.prod(layer.kernel_size) ** 2) == layers


# What a layer says


def test_layers_of_a_small_network_by_hand():
    conv, relu, pool, linear = deploy_layers(
        Architecture((Conv(out_channels=4, groups=2, stride=2),), (), (Classifier(),)), 3, (2, 8, 10)
    )
    assert (conv.kind, conv.in_size, conv.out_size, conv.padding) == ("conv", (8, 10), (4, 5), (1, 1))
    assert (conv.weights, conv.params, conv.macs) == (4 * 1 * 9, 4 * 9 + 4, 4 * 9 * 20)
    assert (conv.in_elements, conv.out_elements) == (160, 80)
    assert (relu.kind, relu.params, relu.macs, relu.in_elements, relu.out_elements) == ("relu", 0, 0, 80, 80)
    assert (pool.kind, pool.out_size) == ("global_pool", (1, 1))
    assert (linear.kind, linear.params, linear.macs) == ("linear", 4 * 3 + 3, 12)


def test_equal_layers_are_equal_wherever_they_stand():
    layers = deploy_layers(
        chain(Conv(out_channels=8, kernel_size=1), Conv(out_channels=8, kernel_size=1)), 3, (8, 9, 9)
    )
    _, follows, _, other = layers[:4]
    assert follows.follows and not other.follows
    assert follows == other and len({follows, other}) == 1


@pytest.mark.parametrize(
    ("shape", "classes"), [((8, 8), 3), ((0, 8, 8), 3), ((3, 8, -8), 3), ((3, 8, 8), 0), ((3.0, 8, 8), 3)]
)
def test_impossible_sizes_are_refused_as_the_builder_does(shape, classes):
    with pytest.raises(ValueError) as error:
        deploy_layers(chain(), classes, shape)
    with pytest.raises(ValueError) as expected:
        build(chain(), num_classes=classes, input_shape=shape, form="deploy")
    assert str(error.value) == str(expected.value)


def test_groups_that_do_not_fit_and_maps_that_vanish_are_refused():
    arch = Architecture((Conv(out_channels=4, groups=2),), (), (Classifier(),))
    with pytest.raises(ValueError, match=r"conv\.groups: 2 is not allowed"):
        deploy_layers(arch, CLASSES, (3, 8, 8))
    with pytest.raises(ValueError, match="leaves nothing"):
        deploy_layers(chain(*[Conv(out_channels=8, kernel_size=4)] * 3), CLASSES, (3, 9, 3))

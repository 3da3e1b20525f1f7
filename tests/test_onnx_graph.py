"""ONNX graphs that are written layer by layer give what their networks give, and name what they cannot hold."""

import copy
from collections import OrderedDict

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from nas.networks.activations import ACTIVATIONS
from nas.networks.bricks import shuffle_channels
from nas.networks.builder import build
from nas.networks.conv_modules import ShiftedConv
from nas.networks.fading import FadingActivation, set_fading
from nas.networks.fusing import fuse
from nas.networks.merging import apply_merges, conv_macs, plan_merges
from nas.networks.onnx_file import onnx_bytes
from nas.networks.onnx_graph import MODULES, UnknownOperator, onnx_model
from nas.space_file import load_architecture, load_space, space_names
from tests.helpers import randomise, relative_difference
from tests.test_networks import LIGHT_ZOO

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore")]
SHAPES = [(3, 16, 16), (1, 20, 27)]
SHAPE = (4, 9, 12)
FEW_ZOO = ("alexnet", "densenet121", "mobilenet_v3_small", "shufflenet_v1", "squeezenet1_1")


def shipped(arch, shape: tuple[int, int, int], seed: int = 0) -> nn.Module:
    """A deploy form as it comes from training: no number is at its fresh value."""
    torch.manual_seed(seed)
    network = randomise(build(arch, num_classes=5, input_shape=shape), seed)
    set_fading(network, 0)
    fused = fuse(network)
    return apply_merges(fused, plan_merges(fused, conv_macs))


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same weights and images whichever tests came before: others leave a ReLU nothing but zeros now and then."""
    torch.manual_seed(1)


def check(network: nn.Module, shape: tuple[int, int, int] = SHAPE, dtype: torch.dtype = torch.float32) -> set[str]:
    """Asserts that the graph is valid and gives what the network gives; returns the kinds of its operators."""
    model = onnx_model(network, shape)
    onnx.checker.check_model(model, full_check=True)  # infers all shapes, and compares them with what is written
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch_size in (1, 3):
        x = torch.randn(batch_size, *shape, dtype=dtype)
        with torch.no_grad():
            expected = network(x)
        actual = torch.from_numpy(np.asarray(session.run(["logits"], {"images": x.numpy()})[0]))
        assert expected.dtype == actual.dtype
        assert relative_difference(expected, actual) < 1e-4
    return {node.op_type for node in model.graph.node}


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", space_names())
def test_samples_of_every_space(name, seed):
    shape = SHAPES[seed % 2]
    check(shipped(load_space(name).sample(seed), shape, seed), shape)


@pytest.mark.parametrize("name", [name for name in space_names() if name not in ("resnet", "vgg")])  # the largest
def test_train_forms_of_other_spaces(name):
    """A search measures those of its front, to say what fusing has won."""
    network = build(load_space(name).sample(0), num_classes=5, input_shape=SHAPES[0], form="train")
    check(randomise(network).eval(), SHAPES[0])


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0])
def test_activations_that_fade(name, lam):
    network = nn.Sequential(FadingActivation(name)).eval()
    set_fading(network, lam)
    check(network)


def test_a_hook_on_what_fades_is_not_overlooked():
    network = nn.Sequential(FadingActivation("relu")).eval()
    network[0].activation.register_forward_hook(lambda module, inputs, output: output + 1)
    with pytest.raises(UnknownOperator, match="hooks"):
        onnx_model(network, SHAPE)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 22))
@pytest.mark.parametrize("name", space_names())
def test_more_samples_of_every_space(name, seed):
    shape = SHAPES[seed % 2]
    check(shipped(load_space(name).sample(seed), shape, seed), shape)


@pytest.mark.parametrize("name", FEW_ZOO)
def test_published_networks(name):
    network = build(load_architecture(name), num_classes=5, input_shape=(3, 32, 32), form="deploy")
    check(randomise(network), (3, 32, 32))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 37, 50)])
@pytest.mark.parametrize("name", LIGHT_ZOO)
def test_the_zoo(name, shape):
    check(shipped(load_architecture(name), shape), shape)


@given(
    st.sampled_from([nn.MaxPool2d, nn.AvgPool2d]),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.booleans(),
    st.booleans(),
    st.tuples(st.integers(4, 11), st.integers(4, 11)),
)
@settings(max_examples=60, deadline=None)
def test_pools_round_and_count_as_in_torch(kind, kernel, stride, padding, ceil_mode, counts, sides):
    assume(all(2 * p <= k for p, k in zip(padding, kernel, strict=True)))
    extra = {"count_include_pad": counts} if kind is nn.AvgPool2d else {"dilation": 1 + counts}
    assume(kind is nn.AvgPool2d or not (ceil_mode and counts))  # a test of its own: what is refused
    assume(kind is nn.AvgPool2d or all(extra["dilation"] * (k - 1) < s for k, s in zip(kernel, sides, strict=True)))
    check(nn.Sequential(kind(kernel, stride, padding, ceil_mode=ceil_mode, **extra)).eval(), (2, *sides))


@given(st.tuples(st.integers(1, 9), st.integers(1, 9)), st.tuples(st.integers(1, 9), st.integers(1, 9)))
@settings(max_examples=30, deadline=None)
def test_adaptive_pools_of_any_size(size, sides):
    kinds = check(nn.Sequential(nn.AdaptiveAvgPool2d(size)).eval(), (2, *sides))
    divides = all(side % n == 0 for n, side in zip(size, sides, strict=True))
    assert ("MatMul" in kinds) == (not divides)
    assert ("GlobalAveragePool" in kinds) == (size == (1, 1))


@given(
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.sampled_from(["same", "valid", (0, 0), (1, 2)]),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
    st.sampled_from([1, 2, 4]),
    st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_convolutions_of_any_kind(kernel, padding, stride, dilation, groups, bias):
    stride = (1, 1) if padding == "same" else stride
    check(nn.Sequential(nn.Conv2d(4, 8, kernel, stride, padding, dilation, groups, bias)).eval())


LAYERS = {
    **{name: make() for name, make in ACTIVATIONS.items()},
    "gelu_tanh": nn.GELU("tanh"),
    "sigmoid": nn.Sigmoid(),
    "hardsigmoid": nn.Hardsigmoid(),
    "dropout": nn.Dropout(0.5),
    "norm": nn.BatchNorm2d(4),
    "group_norm": nn.GroupNorm(2, 4),
    "group_norm_without_weights": nn.GroupNorm(2, 4, affine=False),
    "shifted": ShiftedConv(torch.rand(4), nn.Conv2d(4, 5, 3, padding=1)),
    "linear": nn.Sequential(nn.Flatten(), nn.Linear(4 * 9 * 12, 3, bias=False)),
    "flatten_maps": nn.Flatten(2),
    "flatten_channels": nn.Flatten(1, 2),
    "shared": nn.Sequential(*[nn.Conv2d(4, 4, 1)] * 3),
    "names": nn.Sequential(OrderedDict(images=nn.Conv2d(4, 4, 1), logits=nn.Conv2d(4, 4, 1), x=nn.ReLU())),
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer(name):
    layer = randomise(copy.deepcopy(LAYERS[name])).eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    check(nn.Sequential(layer).eval())
    check(nn.Sequential(nn.Conv2d(4, 4, 1), layer, nn.ReLU()).eval())


def test_all_known_layers_are_tested_here():
    tested = {type(module) for layer in LAYERS.values() for module in layer.modules()}
    assert set(MODULES) - tested == {nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, FadingActivation}


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (x + x) * 2 - x / 3,
        lambda x: 1 - x,
        lambda x: torch.cat([x, x * x], 1),
        lambda x: torch.cat((x, x), dim=-1),
        lambda x: torch.cat(x.chunk(3, 2), 1),
        lambda x: torch.cat([x.chunk(4, 1)[i] for i in (-1, 0, 2)], 1),
        lambda x: x.chunk(chunks=5, dim=-1)[2],
        lambda x: shuffle_channels(x, 2),
        lambda x: x.transpose(-1, 1).flatten(2),
        lambda x: torch.flatten(x, start_dim=1),
        lambda x: x.unflatten(1, (2, 2)).flatten(1, 2),
        lambda x: functional.pad(x, (1, 2, 3, 0)),
        lambda x: functional.pad(x, (0, 1)),
        lambda x: functional.pad(x, (0, 0, 1, 0, 0, 2)),
        lambda x: functional.dropout(x, 0.5, training=False),
    ],
)
def test_every_function(function):
    check(Function(function).eval())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_weights_give_the_dtype(dtype):
    layers = [nn.ReLU6(), nn.AdaptiveAvgPool2d(5), Function(lambda x: x * 2), nn.Flatten(), nn.Linear(100, 3)]
    check(nn.Sequential(*layers).to(dtype).eval(), dtype=dtype)


def hooked() -> nn.Module:
    layer = nn.ReLU()
    layer.register_forward_hook(lambda module, args, output: output + 1)
    return layer


UNKNOWN = {
    "PReLU(num_parameters=1) at 1": nn.PReLU(),
    "softmax at 1": Function(lambda x: torch.softmax(x, 1)),
    "size at 1": Function(lambda x: x.view(x.size(0), -1)),
    "getitem at 1": Function(lambda x: x[:, 0]),
    "add at 1": Function(lambda x: torch.add(x, x, alpha=2)),
    "transpose at 1": Function(lambda x: x.transpose(0, 1)),
    "flatten at 1": Function(lambda x: x.flatten()),
    "cat at 1": Function(lambda x: torch.cat([x, x])),
    "pad at 1": Function(lambda x: functional.pad(x, (1, 1, 1, 1), mode="reflect")),
    "dropout at 1": Function(lambda x: functional.dropout(x, 0.5)),
    "Linear(in_features=12": nn.Linear(12, 3),
    "padding_mode=reflect) at 1": nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
    "AvgPool2d(kernel_size=2, stride=2, padding=0) at 1": nn.AvgPool2d(2, divisor_override=3),
    "ceil_mode=True) at 1": nn.MaxPool2d(2, 2, 1, dilation=2, ceil_mode=True),
    "ReLU() at 1 has hooks": hooked(),
    "ReLU(inplace=True) at 1 works in place": nn.ReLU(inplace=True),
    "is not of torch.float32": nn.BatchNorm2d(4).to(torch.float16),
    "output": Function(lambda x: (x, x)),
    "cannot be traced": Function(lambda x: x if x.sum() > 0 else -x),
    "BatchNorm2d": nn.BatchNorm2d(4, track_running_stats=False),
}


@pytest.mark.parametrize(("sides", "value"), [((1, 0), 2.0), ((0, -1), None), ((0, 0, 0, 0, 0, 0, 1, 1), None)])
def test_other_paddings_are_unknown(sides, value):
    with pytest.raises(UnknownOperator, match="pad at network has no ONNX form"):
        onnx_model(Function(lambda x: functional.pad(x, sides, value=value)).eval(), SHAPE)


@pytest.mark.parametrize("words", UNKNOWN)
def test_what_is_unknown_is_named_with_its_place(words):
    with pytest.raises(UnknownOperator) as error:
        onnx_model(nn.Sequential(nn.Conv2d(4, 4, 1), UNKNOWN[words]).eval(), SHAPE)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_layer_in_training_mode_is_refused():
    with pytest.raises(UnknownOperator, match=r"Dropout\(p=0.5, inplace=False\) at 0 is in training mode"):
        onnx_model(nn.Sequential(nn.Dropout(0.5)), SHAPE)


def test_a_network_without_an_input_shape_is_refused():
    with pytest.raises(ValueError, match=r"not \(C, H, W\)"):
        onnx_model(nn.ReLU().eval())


def exporter(*args, **kwargs):
    raise AssertionError("torch's exporter was called")


def test_known_networks_are_written_without_torchs_exporter(tmp_path, monkeypatch):
    network = shipped(load_space("tiny").sample(0), SHAPES[0])
    monkeypatch.setattr(torch.onnx, "export", exporter)
    (tmp_path / "direct.onnx").write_bytes(onnx_bytes(network, SHAPES[0]))
    session = onnxruntime.InferenceSession(tmp_path / "direct.onnx", providers=["CPUExecutionProvider"])
    assert [(each.name, each.shape, each.type) for each in session.get_inputs()] == [
        ("images", ["batch", *SHAPES[0]], "tensor(float)")
    ]
    assert [(each.name, each.shape) for each in session.get_outputs()] == [("logits", ["batch", 5])]


def test_torchs_exporter_writes_the_others_by_the_same_contract(tmp_path):
    network = nn.Sequential(nn.Conv2d(4, 4, 3), nn.PReLU(), nn.Flatten(), nn.Linear(4 * 7 * 10, 5)).eval()
    known = copy.deepcopy(network)
    known[1] = nn.ReLU()
    sessions = []
    for each, name in ((network, "by_torch"), (known.eval(), "direct")):
        (tmp_path / name).write_bytes(onnx_bytes(each, SHAPE))
        sessions.append(onnxruntime.InferenceSession(tmp_path / name, providers=["CPUExecutionProvider"]))
        x = torch.randn(3, *SHAPE)
        actual = torch.from_numpy(np.asarray(sessions[-1].run(["logits"], {"images": x.numpy()})[0]))
        with torch.no_grad():
            assert relative_difference(each(x), actual) < 1e-4
    by_torch, direct = (
        [(value.name, value.shape, value.type) for value in (*session.get_inputs(), *session.get_outputs())]
        for session in sessions
    )
    assert by_torch == direct
    models = [onnx.load(tmp_path / name) for name in ("by_torch", "direct")]
    assert len({(model.ir_version, *[(o.domain, o.version) for o in model.opset_import]) for model in models}) == 1


@pytest.mark.parametrize("name", space_names())
def test_a_network_is_not_changed_and_has_one_graph(name):
    network = build(load_space(name).sample(3), num_classes=5, input_shape=SHAPES[0], form="deploy")
    before, names = copy.deepcopy(network.state_dict()), set(vars(network))
    models = [onnx_model(network).SerializeToString(deterministic=True) for _ in range(2)]
    models.append(onnx_model(copy.deepcopy(network), SHAPES[0]).SerializeToString())
    assert models[0] == models[1] == models[2]
    assert set(vars(network)) == names and list(network.state_dict()) == list(before)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_constants_that_tracing_finds_are_not_left_in_the_network():
    constant = torch.ones(4, 1, 1)
    network = Function(lambda x: x + constant).eval()
    with pytest.raises(UnknownOperator):
        onnx_model(network, SHAPE)
    assert not [name for name in vars(network) if "constant" in name]

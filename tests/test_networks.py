import copy
import dataclasses
import math

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.mobilenetv3 import InvertedResidual as MobileNetV3Block
from torchvision.models.mobilenetv3 import InvertedResidualConfig as MobileNetV3Config
from torchvision.models.resnet import BasicBlock
from torchvision.models.resnet import Bottleneck as ResnetBottleneck

import nas
from nas.architecture import Architecture
from nas.block_fields import ACTIVATION_NAMES
from nas.blocks import (
    BLOCK_SCHEMAS,
    Auxiliary,
    Basic,
    Block,
    Bottleneck,
    Classifier,
    Conv,
    Dense,
    Fire,
    Inception,
    InvertedResidual,
    NormActivation,
    Pool,
    Reduce,
    Separable,
    SeriesActivation,
    ShuffleV1,
    ShuffleV2,
    Transition,
    Xception,
    rules,
)
from nas.networks.activations import ACTIVATIONS, activation
from nas.networks.builder import BLOCKS, build
from nas.networks.fading import FadingActivation, set_fading
from nas.networks.fusing import fuse, unfused_norms
from nas.networks.heads import AuxiliaryBlock
from nas.space_file import load_architecture, load_space, space_names, zoo_names
from tests.helpers import randomise, relative_difference

pytestmark = pytest.mark.usefixtures("one_thread")

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-9}
SAMPLES = range(8)
SHAPES = [(1, 8, 8), (3, 19, 26)]
CLASSES = 7
HEAVY = ("alexnet", "vgg", "vanillanet", "wrn", "wide", "resnet1", "resnet50", "resnext", "inception_v3", "xception")
# Networks of the zoo of which a test can afford several copies; the others have theirs in tests/test_zoo_*.py.
LIGHT_ZOO = [n for n in zoo_names() if n in ("resnet18",) or not n.startswith(HEAVY)]
FADING = tuple(name for name in ACTIVATION_NAMES if name != "none")


def faded(arch: Architecture, input_shape: tuple[int, int, int], seed: int = 0, dtype: torch.dtype = torch.float32):
    """The train form as training leaves it: lam at 0, no number at its fresh value, in train mode."""
    torch.manual_seed(seed)
    network = build(arch, num_classes=CLASSES, input_shape=input_shape)
    randomise(network, seed)
    if dtype == torch.float64:
        # Fresh depthwise weights are sqrt(channels) too small for random statistics: images would hardly matter.
        # In float32 so lively a deep network shows its own rounding instead of the fusion's.
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.data *= math.sqrt(module.groups)
    set_fading(network, 0)
    return network.to(dtype)


def foldable_norms(network: nn.Module) -> list[str]:
    """BatchNorms that read a convolution's output which nobody else reads."""
    found = []
    for node in torch.fx.symbolic_trace(network).graph.nodes:
        if node.op == "call_module" and isinstance(network.get_submodule(node.target), nn.BatchNorm2d):
            source = node.args[0]
            if source.op == "call_module" and isinstance(network.get_submodule(source.target), nn.Conv2d):
                found += [node.target] if len(source.users) == 1 else []
    return found


def images(shape: tuple[int, ...], seed: int = 0, dtype: torch.dtype = torch.float32, batch: int = 3) -> Tensor:
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def features(network: nn.Module, x: Tensor) -> Tensor:
    """The last feature map, borders and all, before it is pooled."""
    for block in list(network.blocks)[:-1]:
        x = block(x)
    return x


def structure(network: nn.Module) -> tuple[str, dict[str, tuple[int, ...]]]:
    return str(network), {key: tuple(value.shape) for key, value in network.state_dict().items()}


def chain(*blocks: Block) -> Architecture:
    return Architecture(stem=(), stages=(blocks,), head=(Classifier(),))


@torch.no_grad()
def assert_fuses_exactly(arch: Architecture, shape: tuple[int, int, int], seed: int, dtype: torch.dtype) -> None:
    network = faded(arch, shape, seed, dtype).eval()
    fused = fuse(network)
    x = images(shape, seed, dtype)
    assert relative_difference(features(network, x), features(fused, x)) < TOLERANCE[dtype]
    assert relative_difference(network(x), fused(x)) < TOLERANCE[dtype]


# ---------------------------------------------------------------- every shipped space


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", space_names())
@pytest.mark.parametrize("seed", SAMPLES)
def test_fused_networks_of_every_space_equal_their_train_form(name, seed, dtype):
    assert_fuses_exactly(load_space(name).sample(seed), SHAPES[seed % 2], seed, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("name", space_names())
def test_two_hundred_networks_of_every_space_fuse_exactly(name):
    space = load_space(name)
    for seed in range(200):
        assert_fuses_exactly(space.sample(seed), SHAPES[seed % 2], seed, torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", LIGHT_ZOO)
def test_fused_networks_of_the_zoo_equal_their_train_form(name, dtype):
    assert_fuses_exactly(load_architecture(name), (3, 33, 40), 0, dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", [*space_names(), *LIGHT_ZOO])
def test_fusing_gives_the_structure_that_is_built_directly(name, shape):
    archs = [load_architecture(name)] if name in zoo_names() else map(load_space(name).sample, SAMPLES)
    for arch in archs:
        fused = fuse(faded(arch, shape))
        direct = build(arch, num_classes=CLASSES, input_shape=shape, form="deploy")
        assert structure(fused) == structure(direct)
        assert [type(module) for module in fused.modules()] == [type(module) for module in direct.modules()]
        assert not any(module.training for module in (*fused.modules(), *direct.modules()))
        assert unfused_norms(fused) == unfused_norms(direct)
        assert foldable_norms(fused) == []
        assert not any(isinstance(module, FadingActivation | nn.Dropout) for module in fused.modules())
        assert nas.count(fused, shape) == nas.count(direct, shape)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", space_names())
def test_fusing_leaves_its_argument_untouched(name, training):
    for seed in (0, 1, 2):
        network = faded(load_space(name).sample(seed), (3, 16, 16)).train(training)
        network.blocks[0].train(not training)
        before = {key: value.clone() for key, value in network.state_dict().items()}
        modules = [(key, id(module), module.training) for key, module in network.named_modules()]
        flags = [parameter.requires_grad for parameter in network.parameters()]
        fused = fuse(network)
        with torch.no_grad():
            for tensor in (*fused.parameters(), *fused.buffers()):
                tensor.fill_(0.5)
        after = network.state_dict()
        assert list(after) == list(before)
        assert all(torch.equal(after[key], before[key]) for key in before)
        assert [(key, id(module), module.training) for key, module in network.named_modules()] == modules
        assert [parameter.requires_grad for parameter in network.parameters()] == flags


@torch.no_grad()
def test_fusing_again_changes_nothing():
    network = fuse(faded(load_space("tiny").sample(1), (1, 8, 8)))
    again, x = fuse(network), images((1, 8, 8))
    assert structure(again) == structure(network)
    assert torch.equal(again(x), network(x))


@torch.no_grad()
def test_a_batch_norm_that_cannot_be_folded_stays_and_is_named():
    network = nn.Sequential(faded(load_space("tiny").sample(0), (1, 8, 8)), nn.BatchNorm1d(CLASSES)).eval()
    fused, x = fuse(network), images((1, 8, 8))
    assert unfused_norms(fused) == ["1"]
    assert relative_difference(network(x), fused(x)) < 1e-5


@pytest.mark.parametrize("form", ["train", "deploy"])
@pytest.mark.parametrize("name", space_names())
def test_the_last_map_has_the_size_that_the_strides_say(name, form):
    for seed in (0, 1, 2):
        arch = load_space(name).sample(seed)
        for shape in ((1, 8, 8), (3, 28, 28), (3, 65, 224)):
            with torch.device("meta"):
                network = build(arch, num_classes=CLASSES, input_shape=shape, form=form)
                x = torch.empty(2, *shape)
            sides = list(shape[1:])
            for block in arch.applied(shape):
                sides = [block.output_side(side) for side in sides]
            assert features(network, x).shape[2:] == tuple(sides)
            assert network(x).shape == (2, CLASSES)


@pytest.mark.parametrize("name", space_names())
def test_every_parameter_of_the_train_form_learns(name):
    for seed in (0, 1, 2):
        torch.manual_seed(seed)
        network = build(load_space(name).sample(seed), num_classes=CLASSES, input_shape=(3, 16, 16))
        assert network.training
        randomise(network, seed)
        set_fading(network, 0.5)
        loss = nn.functional.cross_entropy(network(images((3, 16, 16), batch=6)), torch.arange(6) % CLASSES)
        loss.backward()
        still = [key for key, value in network.named_parameters() if value.grad is None or not value.grad.any()]
        assert still == []


@pytest.mark.parametrize("form", ["train", "deploy"])
@pytest.mark.parametrize("name", space_names())
def test_ids_and_structures_tell_the_same_networks_apart(name, form):
    space = load_space(name)
    archs = map(space.architecture, space.enumerate()) if space.size < 50 else map(space.sample, range(12))
    by_id: dict[str, set[str]] = {}
    by_structure: dict[str, set[str]] = {}
    for arch in archs:
        with torch.device("meta"):
            found = repr(structure(build(arch, num_classes=CLASSES, input_shape=(3, 256, 256), form=form)))
        identity = arch.arch_id if form == "train" else arch.deploy_id
        by_id.setdefault(identity, set()).add(found)
        by_structure.setdefault(found, set()).add(identity)
    assert len(by_id) > 5
    assert {len(found) for found in (*by_id.values(), *by_structure.values())} == {1}


# ---------------------------------------------------------------- every block


def changed(block: Block, field: str) -> Block:
    """The block with another value of one field, which it may have."""
    rule = rules(type(block))[field]
    for candidate in (*rule.options, True, False, 2, 5, 0.5, 0.25, 24):
        try:
            other = dataclasses.replace(block, **{field: candidate})
            other.check(8)
        except ValueError:
            continue
        if other != block:
            return other
    raise AssertionError(f"no other value of {rule}")


# One typical block of each schema, for a map of 8 channels.
TYPICAL: dict[str, Block] = {
    "conv": Conv(out_channels=8),
    "separable": Separable(out_channels=8),
    "pool": Pool(),
    "norm_activation": NormActivation(),
    "series_activation": SeriesActivation(),
    "inverted_residual": InvertedResidual(out_channels=8),
    "basic": Basic(out_channels=8),
    "bottleneck": Bottleneck(out_channels=8),
    "xception": Xception(out_channels=8),
    "inception": Inception(branch1=4, reduce2=4, branch2=6, reduce3=2, branch3=4, branch4=2),
    "fire": Fire(squeeze=4, expand1x1=6, expand3x3=8),
    "dense": Dense(growth_rate=4),
    "transition": Transition(),
    "shuffle_v1": ShuffleV1(out_channels=8, expansion=1),
    "shuffle_v2": ShuffleV2(out_channels=8),
    "reduce": Reduce(out_channels=8),
    "auxiliary": Auxiliary(),
    "classifier": Classifier(),
}


def variants(name: str) -> list[Block]:
    """A block with each of its fields at some values in turn, with and without change of shape."""
    plain = TYPICAL[name]
    found = [plain]
    for field, rule in rules(type(plain)).items():
        for value in (*rule.options, True, False, 0, 1, 2, 3, 5, 0.5, 16):
            try:
                block = dataclasses.replace(plain, **{field: value})
                block.check(8)
            except ValueError:
                continue
            found.append(block)
    if isinstance(plain, Conv | Separable):
        found += [
            dataclasses.replace(plain, branches=b, dilation=2, branch_count=2) for b in ("repvgg", "acnet", "dbb")
        ]
    return list(dict.fromkeys(found))


BODY_BLOCKS = [name for name in BLOCK_SCHEMAS if name not in ("classifier", "auxiliary")]


def test_every_schema_has_its_module_and_every_activation_its_class():
    assert set(BLOCKS) == set(BLOCK_SCHEMAS) == set(TYPICAL)
    assert set(ACTIVATIONS) == set(ACTIVATION_NAMES)
    with pytest.raises(ValueError, match=r"'swish' is unknown; known: .*relu6"):
        activation("swish")


@pytest.mark.parametrize("name", BODY_BLOCKS)
def test_every_variant_of_a_block_fuses_exactly_into_what_is_built_directly(name):
    for block in variants(name):
        arch = chain(Conv(out_channels=8, activation="none"), block)
        assert_fuses_exactly(arch, (2, 11, 9), 1, torch.float64)
        direct = build(arch, num_classes=CLASSES, input_shape=(2, 11, 9), form="deploy")
        assert structure(fuse(faded(arch, (2, 11, 9)))) == structure(direct)


@pytest.mark.parametrize("name", BODY_BLOCKS)
def test_every_variant_of_a_block_gives_the_shape_that_it_declares(name):
    for block in variants(name):
        network = build(chain(Conv(out_channels=8), block), num_classes=CLASSES, input_shape=(2, 33, 40))
        with torch.no_grad():
            shape = features(network, images((2, 33, 40))).shape
        assert shape == (3, block.output_channels(8), block.output_side(33), block.output_side(40)), block


def fingerprint(arch: Architecture, form) -> str:
    """All that tells two built networks apart but the numbers in them."""
    with torch.device("meta"):
        network = build(arch, num_classes=CLASSES, input_shape=(3, 256, 256), form=form)
    weights = [module.weight for module in network.modules() if isinstance(module, AuxiliaryBlock)]
    return repr((structure(network), torch.fx.symbolic_trace(network).code, weights))


@pytest.mark.parametrize("form", ["train", "deploy"])
@pytest.mark.parametrize("name", BODY_BLOCKS)
def test_ids_are_equal_just_where_the_networks_are(name, form):
    ids: dict[str, set[str]] = {}
    for stem in (Conv(out_channels=8), Conv(out_channels=24)):
        for block in variants(name):
            try:
                block.check(stem.out_channels)
            except ValueError:
                continue
            arch = chain(stem, block)
            ids.setdefault(fingerprint(arch, form), set()).add(arch.arch_id if form == "train" else arch.deploy_id)
    assert [sorted(each) for each in ids.values() if len(each) > 1] == []
    assert len(set().union(*ids.values())) == len(ids)


@pytest.mark.parametrize(("name", "field"), [(n, f) for n, s in BLOCK_SCHEMAS.items() for f in rules(s)])
def test_each_field_changes_an_id_just_when_it_changes_the_form(name, field):
    plain = TYPICAL[name]
    stem = Conv(out_channels=8)
    one, other = (
        Architecture((stem,), (), (block,)) if name == "classifier" else chain(stem, block)
        for block in (plain, changed(plain, field))
    )

    assert (one.arch_id != other.arch_id) == (fingerprint(one, "train") != fingerprint(other, "train"))
    assert (one.deploy_id != other.deploy_id) == (fingerprint(one, "deploy") != fingerprint(other, "deploy"))


@torch.no_grad()
@pytest.mark.parametrize(
    "block",
    [
        InvertedResidual(out_channels=8),
        InvertedResidual(out_channels=8, expansion=1, groups=2),
        Basic(out_channels=8, activation="none"),
        Reduce(out_channels=8, activation="none"),
    ],
)
def test_a_residual_is_there_where_shapes_allow(block):
    network = build(chain(Conv(out_channels=8), block), num_classes=CLASSES, input_shape=(3, 8, 8)).eval()
    set_fading(network, 0)
    for norm in network.blocks[1].modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.weight.zero_()
    x = images((8, 8, 8))
    assert torch.equal(network.blocks[1](x), x)
    assert torch.allclose(fuse(network).blocks[1](x), x, atol=1e-6)
    wider = build(
        chain(Conv(out_channels=4), dataclasses.replace(block, out_channels=12)), num_classes=2, input_shape=(3, 8, 8)
    )
    assert wider.blocks[1](images((4, 8, 8))).shape[1] == 12


# ---------------------------------------------------------------- fading


@torch.no_grad()
@pytest.mark.parametrize("name", FADING)
def test_a_fading_activation_mixes_and_does_not_touch_its_input(name):
    fading, act = FadingActivation(name), activation(name)
    x = images((4, 5, 5))
    kept = x.clone()
    assert float(fading.lam) == 1
    assert torch.equal(fading(x), act(kept))
    for lam in (0.75, 0.25):
        set_fading(fading, lam)
        assert torch.allclose(fading(x), lam * act(kept) + (1 - lam) * kept)
    set_fading(fading, 0)
    assert torch.equal(fading(x), kept)
    assert torch.equal(x, kept)


@pytest.mark.parametrize("name", ACTIVATION_NAMES)
def test_no_activation_works_in_place(name):
    x = images((4, 5, 5))
    kept = x.clone()
    activation(name)(x)
    assert torch.equal(x, kept)


def test_fading_relu_is_a_leaky_relu():
    fading = FadingActivation("relu")
    set_fading(fading, 0.3)
    x = images((4, 5, 5))
    assert torch.allclose(fading(x), nn.functional.leaky_relu(x, 0.7))


def test_lam_is_a_buffer_that_travels_with_copies_and_state_dicts():
    network = build(chain(Reduce(out_channels=8)), num_classes=CLASSES, input_shape=(3, 8, 8))
    keys = [key for key in network.state_dict() if key.split(".")[-1] == "lam"]
    assert len(keys) == 1 and keys[0] in dict(network.named_buffers())
    assert not any(key.split(".")[-1] == "lam" for key, _ in network.named_parameters())
    set_fading(network, 0.25)
    assert float(network.state_dict()[keys[0]]) == 0.25
    twin = copy.deepcopy(network)
    averaged = torch.optim.swa_utils.AveragedModel(network)
    other = build(chain(Reduce(out_channels=8)), num_classes=CLASSES, input_shape=(3, 8, 8))
    other.load_state_dict(network.state_dict())
    set_fading(network, 0)
    assert float(network.state_dict()[keys[0]]) == 0
    for kept in (twin, averaged.module, other):
        assert float(kept.state_dict()[keys[0]]) == 0.25
    assert network.to(torch.float64).state_dict()[keys[0]].dtype == torch.float64


@torch.no_grad()
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_output_of_a_fresh_network_changes_with_lam(mode):
    torch.manual_seed(0)
    network = build(chain(*[Reduce(out_channels=8)] * 3), num_classes=CLASSES, input_shape=(3, 12, 12))
    network.train(mode == "train")
    x = images((3, 12, 12))
    outputs = []
    for lam in (1.0, 0.5, 0.0):
        set_fading(network, lam)
        outputs.append(network(x))
    for one, other in ((0, 1), (1, 2), (0, 2)):
        assert relative_difference(outputs[one], outputs[other]) > 1e-2


@pytest.mark.parametrize("lam", [1.0, 0.5, 1e-4, -0.5, math.nan])
def test_fuse_refuses_a_network_that_has_not_faded_and_names_the_module(lam):
    network = build(
        chain(Conv(out_channels=8), Reduce(out_channels=8), Reduce(out_channels=8)),
        num_classes=CLASSES,
        input_shape=(3, 12, 12),
    )
    set_fading(network, 0)
    set_fading(network.blocks[2], lam)
    with pytest.raises(ValueError, match=r"network\.blocks\.2.*lam"):
        fuse(network)
    set_fading(network, 0)
    fuse(network)


def departure_from_affine(f: nn.Module, shape: tuple[int, ...]) -> float:
    a, b = images(shape, 1, torch.float64), images(shape, 2, torch.float64)
    outputs = f(a), f(b), f(torch.zeros_like(a)), f(a + b)
    departure = (outputs[0] + outputs[1] - outputs[2] - outputs[3]).abs().max()
    return (departure / outputs[3].abs().max()).item()


@torch.no_grad()
@pytest.mark.parametrize("fading", FADING)
def test_a_run_of_blocks_without_survivors_is_affine_just_when_it_has_faded(fading):
    linear = {"fading_activation": fading, "activation": "none"}
    run = [
        Reduce(out_channels=6, kernel_size=5, **linear),
        Reduce(out_channels=6, bottleneck_width=2, **linear),
        Reduce(out_channels=9, stride=2, **linear),
        Reduce(out_channels=9, **linear),
    ]
    network = faded(chain(*run), (3, 17, 18), dtype=torch.float64).eval()
    assert departure_from_affine(network.blocks, (3, 17, 18)) < 1e-11
    assert departure_from_affine(fuse(network).blocks, (3, 17, 18)) < 1e-11
    for lam in (1.0, 0.5, 1e-3):
        set_fading(network, lam)
        assert departure_from_affine(network.blocks, (3, 17, 18)) > 1e-6
    survivor = dataclasses.replace(run[1], activation="relu")
    nonlinear = faded(chain(run[0], survivor, *run[2:]), (3, 17, 18), dtype=torch.float64).eval()
    assert departure_from_affine(nonlinear.blocks, (3, 17, 18)) > 1e-2


@pytest.mark.parametrize("stride", [1, 2])
def test_a_reduce_block_is_deployed_as_one_convolution_of_its_kernel(stride):
    arch = chain(Reduce(out_channels=8, kernel_size=5, bottleneck_width=3, stride=stride, activation="hswish"))
    fused = fuse(faded(arch, (8, 12, 12)))
    layers = [module for module in fused.blocks[0].modules() if not list(module.children())]
    assert [type(layer) for layer in layers] == [nn.Conv2d, nn.Hardswish]
    assert (layers[0].kernel_size, layers[0].stride, layers[0].groups) == ((5, 5), (stride, stride), 1)


# ---------------------------------------------------------------- held against torchvision


@torch.no_grad()
def test_mobilenet_v2_is_torchvisions_function_for_function():
    torch.manual_seed(0)
    reference = randomise(torchvision.models.mobilenet_v2(weights=None), 0).eval()
    ours = build(load_architecture("mobilenet_v2"), num_classes=1000, input_shape=(3, 224, 224)).eval()
    theirs, own = reference.state_dict(), ours.state_dict()
    assert len(theirs) == len(own)
    assert [tuple(value.shape) for value in theirs.values()] == [tuple(value.shape) for value in own.values()]
    ours.load_state_dict(dict(zip(own, theirs.values(), strict=True)))
    x = images((3, 224, 224), batch=1)
    assert relative_difference(reference.features(x), features(ours, x)) < 1e-5
    assert relative_difference(reference(x), ours(x)) < 1e-5
    assert relative_difference(reference(x), fuse(ours)(x)) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize(
    ("block", "reference"),
    [
        (Basic(out_channels=16, stride=2), lambda: BasicBlock(8, 16, 2, downsample(8, 16, 2))),
        (Basic(out_channels=8), lambda: BasicBlock(8, 8)),
        (
            Bottleneck(out_channels=64, stride=2, groups=4),
            lambda: ResnetBottleneck(8, 16, 2, downsample(8, 64, 2), groups=4, base_width=16),
        ),
        (
            InvertedResidual(out_channels=8, kernel_size=5, expansion=5, se_ratio=0.25, activation="hswish"),
            lambda: MobileNetV3Block(MobileNetV3Config(8, 5, 40, 8, True, "HS", 1, 1, 1.0), nn.BatchNorm2d),
        ),
        (
            InvertedResidual(out_channels=16, expansion=9, se_ratio=0.25, activation="relu", stride=2),
            lambda: MobileNetV3Block(MobileNetV3Config(8, 3, 72, 16, True, "RE", 2, 1, 1.0), nn.BatchNorm2d),
        ),
    ],
)
def test_blocks_are_torchvisions_function_for_function(block, reference):
    theirs = randomise(reference(), 3).eval().double()
    stem = Conv(out_channels=8, activation="none")
    ours = build(chain(stem, block), num_classes=2, input_shape=(3, 21, 22)).eval().double().blocks[1]
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    x = images((8, 21, 22), dtype=torch.float64)
    assert relative_difference(theirs(x), ours(x)) < 1e-12
    assert relative_difference(theirs(x), fuse(ours)(x)) < 1e-9


def downsample(before: int, after: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))


# ---------------------------------------------------------------- the builder's manners


def test_deploy_form_is_in_eval_mode_and_train_form_in_train_mode():
    arch = load_space("tiny").sample(0)
    train = build(arch, num_classes=CLASSES, input_shape=(1, 8, 8))
    assert all(module.training for module in train.modules())
    assert unfused_norms(train)
    deploy = build(arch, num_classes=CLASSES, input_shape=(1, 8, 8), form="deploy")
    assert not any(module.training for module in deploy.modules())


def test_weights_are_fresh_and_follow_torchs_seed():
    arch = load_space("tiny").sample(0)

    def weights(seed: int) -> Tensor:
        torch.manual_seed(seed)
        network = build(arch, num_classes=CLASSES, input_shape=(1, 8, 8))
        return torch.cat([parameter.flatten() for parameter in network.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.parametrize(
    ("changed", "parts"),
    [
        ({"form": "export"}, ["'export'", "train, deploy"]),
        ({"form": None}, ["None", "train, deploy"]),
        ({"num_classes": 0}, ["num_classes=0", "positive"]),
        ({"num_classes": -3}, ["num_classes=-3", "positive"]),
        ({"input_shape": (8, 8)}, ["(8, 8)", "(C, H, W)"]),
        ({"input_shape": (1, 1, 8, 8)}, ["(1, 1, 8, 8)", "(C, H, W)"]),
        ({"input_shape": (0, 8, 8)}, ["(0, 8, 8)", "positive"]),
        ({"input_shape": (1, -8, 8)}, ["(1, -8, 8)", "positive"]),
        ({"input_shape": ()}, ["()", "(C, H, W)"]),
    ],
)
def test_build_refuses_bad_input_and_says_what_is_allowed(changed, parts):
    arguments = {"num_classes": 10, "input_shape": (1, 8, 8), **changed}
    with pytest.raises(ValueError) as error:
        build(load_space("tiny").sample(0), **arguments)
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize("form", ["train", "deploy"])
def test_build_refuses_groups_that_do_not_divide_the_channels_of_the_data(form):
    arch = chain(Conv(out_channels=8, groups=2))
    with pytest.raises(ValueError, match=r"conv\.groups: 2 is not allowed.* 3 in and 8 out"):
        build(arch, num_classes=2, input_shape=(3, 8, 8), form=form)
    build(arch, num_classes=2, input_shape=(4, 8, 8), form=form)


@torch.no_grad()
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 9), (2, 5, 3)])
@pytest.mark.parametrize("name", space_names())
def test_the_smallest_images_still_give_logits(name, shape):
    network = faded(load_space(name).sample(0), shape).eval()
    assert network(images(shape)).shape == fuse(network)(images(shape)).shape == (3, CLASSES)

"""The zoo's plain, Inception, SqueezeNet, DenseNet and Xception networks against published figures and torchvision."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d, cross_entropy, linear, max_pool2d, relu

import nas
from nas.blocks import Auxiliary, Block, Classifier, Conv, Inception, Pool, Separable
from nas.networks.builder import Network
from nas.networks.heads import AuxiliaryBlock
from nas.networks.multi_branch import InceptionBlock
from nas.networks.plain import SeparableBlock
from nas.space_file import load_space
from tests.helpers import randomise, relative_difference

pytestmark = pytest.mark.usefixtures("one_thread")

IMAGENET, LARGE = (3, 224, 224), (3, 299, 299)

# Input, classes, parameters of the train form, multiply-adds (None: not published to the last digit).
PUBLISHED = {
    "lenet5": ((1, 32, 32), 10, 61_706, 415_680 + 840),
    "alexnet": (IMAGENET, 1000, 61_100_840, 714_188_480),
    "alexnet_2012": ((3, 227, 227), 1000, 62_378_344, None),
    "vgg11": (IMAGENET, 1000, 132_863_336, 7_609_090_048),
    "vgg13": (IMAGENET, 1000, 133_047_848, 11_308_466_176),
    "vgg16": (IMAGENET, 1000, 138_357_544, 15_470_264_320),
    "vgg19": (IMAGENET, 1000, 143_667_240, 19_632_062_464),
    "nin": ((3, 32, 32), 10, 966_986, None),
    "googlenet": (IMAGENET, 1000, 13_004_888, 1_498_376_192),
    "googlenet_5x5": (IMAGENET, 1000, 13_385_816, None),
    "inception_v3": (LARGE, 1000, 27_161_264, 5_713_216_096),
    "squeezenet1_1": (IMAGENET, 1000, 1_235_496, 349_151_936),
    "densenet121": (IMAGENET, 1000, 7_978_856, 2_834_161_664),
    "xception": (LARGE, 1000, 22_855_952, None),
}
NAMES = (*PUBLISHED, "inception_v2")
BIG = ("alexnet", "alexnet_2012", "vgg11", "vgg13", "vgg16", "vgg19")
LIGHT = tuple(name for name in NAMES if name not in BIG)

# Images small enough to be quick and large enough for every stride, of odd sizes where pools count what hangs over.
TWINS = {
    "alexnet": (3, 129, 142),
    "vgg11": (3, 129, 128),
    "vgg13": (3, 129, 128),
    "vgg16": (3, 129, 128),
    "vgg19": (3, 129, 128),
    "googlenet": (3, 130, 143),
    "inception_v3": (3, 139, 150),
    "squeezenet1_1": (3, 71, 82),
    "densenet121": (3, 130, 143),
}
SLOW_TWINS = ("vgg13", "vgg16", "vgg19")
WITH_INIT_OPTION = ("vgg11", "vgg13", "vgg16", "vgg19", "googlenet", "inception_v3")


def structure(name: str, shape: tuple[int, int, int], classes: int) -> Network:
    """The train form on the meta device: shapes without numbers."""
    with torch.device("meta"):
        return nas.build(nas.load_architecture(name), num_classes=classes, input_shape=shape, form="train")


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def kernels(module: nn.Module) -> int:
    """Weights of convolutions, without biases and normalization."""
    return sum(layer.weight.numel() for layer in module.modules() if isinstance(layer, nn.Conv2d))


def images(shape: tuple[int, ...], batch: int = 2, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


@torch.no_grad()
def alive(network: nn.Module) -> nn.Module:
    """Random numbers everywhere, in eval mode; of a size (He, by fan-in) under which images reach the logits."""
    rng = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            bound = math.sqrt(6 / parameter[0].numel())
            parameter.uniform_(-bound, bound, generator=rng)
    return randomise(network).eval()


def assert_the_same(expected: Tensor, actual: Tensor, tolerance: float = 1e-5) -> None:
    """Equal logits of two images, which differ: those that hang on biases alone prove nothing."""
    assert (expected[0] - expected[1]).abs().max() > 1e-3 * expected.abs().max()
    assert relative_difference(expected, actual) < tolerance


# ---------------------------------------------------------------- published sizes


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_train_form_has_the_published_size(name):
    shape, classes, params, macs = PUBLISHED[name]
    counted = nas.count(structure(name, shape, classes), shape)
    assert counted == (params, counted[1] if macs is None else macs)
    stated = load_space(f"zoo/{name}").published
    assert (stated["params"], stated.get("macs")) == (params, macs)
    assert (tuple(stated["input_shape"]), stated["num_classes"]) == (shape, classes)


@pytest.mark.parametrize("name", TWINS)
def test_the_size_is_the_one_that_torchvision_states(name):
    stated = torchvision.models.get_model_weights(name).DEFAULT.meta
    shape, classes, _, _ = PUBLISHED[name]
    network = structure(name, shape, classes)
    params, macs = nas.count(network, shape)
    if name == "googlenet":  # its weights come without the auxiliary heads
        params -= sum(parameters(block) for block in network.blocks if isinstance(block, AuxiliaryBlock))
    assert params == stated["num_params"]
    assert abs(macs / 1e9 - stated["_ops"]) <= 0.0005


def test_lenet_has_the_published_size_up_to_f6():
    network = structure("lenet5", (1, 32, 32), 10)
    f6, output = (layer for layer in network.blocks[-1].layers if isinstance(layer, nn.Linear))
    assert (f6.in_features, f6.out_features) == (120, 84)
    assert parameters(network) - parameters(output) == 60_856


def test_inception_v2_has_the_weights_that_slim_counts():
    # Slim counts three values for each channel of a BatchNorm (no scale, but both statistics), and the first
    # convolution has 64 biases in its place.
    blocks = list(structure("inception_v2", IMAGENET, 1000).blocks)
    body = nn.Sequential(*blocks[:-1])
    channels = sum(layer.num_features for layer in body.modules() if isinstance(layer, nn.BatchNorm2d))
    assert kernels(body) == 10_143_384
    assert kernels(body) + 3 * (channels - 64) + 64 == 10_173_112


def test_modules_of_googlenet_have_the_published_size():
    modules = [
        block for block in structure("googlenet_5x5", IMAGENET, 1000).blocks if isinstance(block, InceptionBlock)
    ]
    assert [parameters(module) for module in modules[:3]] == [164_064, 389_376, 376_800]


def test_a_1x1_before_a_5x5_makes_it_cheap():
    direct = InceptionBlock(Inception(branch1=1, branch3=64), 256, "train")
    reduced = InceptionBlock(Inception(branch1=1, reduce3=32, branch3=64), 256, "train")
    assert kernels(direct.branches[1]) == 409_600
    assert kernels(reduced.branches[1]) == 59_392


@pytest.mark.parametrize(("multiplier", "weights"), [(1, 36 + 32), (2, 72 + 64)])
def test_a_separable_convolution_has_a_share_of_the_weights_of_a_dense_one(multiplier, weights):
    spec = Separable(out_channels=8, depth_multiplier=multiplier, mid_activation="none")
    assert kernels(SeparableBlock(spec, 4, "train")) == weights
    assert 3 * 3 * 4 * 8 == 288


# ---------------------------------------------------------------- layouts


def longest(block: Block) -> list[tuple[int, int]]:
    """Kernel and stride of each layer on a block's longest path, along one side of the map."""
    if isinstance(block, Inception):
        paths = [
            word.split("_")
            for word, width in ((block.kernels2, block.branch2), (block.kernels3, block.branch3))
            if width
        ]
        sides = [[max(int(half.split("x")[1]) for half in word.split("+")) for word in path] for path in paths]
        *firsts, last = max(sides, key=lambda path: sum(side - 1 for side in path))
        return [*((side, 1) for side in firsts), (last, block.stride)]
    if isinstance(block, Conv | Pool | Separable):
        return [(block.kernel_size, block.stride)]
    assert isinstance(block, Auxiliary | Classifier)
    return []


def receptive_fields(name: str) -> Iterator[int]:
    """After each layer: r = r + (k - 1) * jump."""
    field, jump = 1, 1
    for block in nas.load_architecture(name).blocks:
        for kernel, stride in longest(block):
            field += (kernel - 1) * jump
            jump *= stride
            yield field


def test_layers_see_what_the_publications_say():
    assert list(receptive_fields("lenet5"))[:4] == [5, 6, 14, 16]
    for name in ("alexnet", "alexnet_2012"):
        assert list(receptive_fields(name)) == [11, 19, 51, 67, 99, 131, 163, 195]
    assert list(receptive_fields("vgg16"))[-1] == 212
    assert list(receptive_fields("inception_v2"))[-1] == 699
    assert list(receptive_fields("inception_v3"))[-1] == 1311


@pytest.mark.parametrize("name", NAMES)
def test_no_stride_is_dropped_at_the_published_size(name):
    arch = nas.load_architecture(name)
    shape = tuple(load_space(f"zoo/{name}").published["input_shape"])
    assert arch.applied(shape) == arch.blocks


@pytest.mark.parametrize(
    ("name", "shape", "sides"),
    [
        ("lenet5", (1, 32, 32), [28, 14, 10, 5, 1]),
        ("alexnet_2012", (3, 227, 227), [55, 27, 13, 6]),
        ("nin", (3, 32, 32), [32, 16, 8]),
        ("googlenet", IMAGENET, [112, 56, 28, 14, 7]),
        ("inception_v2", IMAGENET, [112, 56, 28, 14, 7]),
        ("inception_v3", LARGE, [149, 147, 73, 71, 35, 17, 8]),
        ("squeezenet1_1", IMAGENET, [111, 55, 27, 13]),
        ("xception", LARGE, [149, 147, 74, 37, 19, 10]),
    ],
)
def test_maps_have_the_published_sides(name, shape, sides):
    x = torch.empty(1, *shape, device="meta")
    seen: list[int] = []
    for block in list(structure(name, shape, 10).eval().blocks)[:-1]:
        x = block(x)
        seen += [] if x.shape[-1] in seen[-1:] else [x.shape[-1]]
    assert seen == sides


# ---------------------------------------------------------------- function for function


def random_twin(name: str, dtype: torch.dtype) -> nn.Module:
    """torchvision's network with random numbers, in eval mode."""
    options = {"init_weights": False} if name in WITH_INIT_OPTION else {}
    with torch.device("meta"):
        twin = torchvision.models.get_model(name, weights=None, **options)
    return alive(twin.to_empty(device="cpu").to(dtype))


def in_the_chain(names: list[str]) -> list[str]:
    """GoogLeNet's auxiliary heads where data passes them; torchvision registers them after all modules."""
    for head, module in (("aux1.", "inception4a."), ("aux2.", "inception4d.")):
        moved = [name for name in names if name.startswith(head)]
        if moved:
            others = [name for name in names if not name.startswith(head)]
            end = 1 + max(i for i, name in enumerate(others) if name.startswith(module))
            names = [*others[:end], *moved, *others[end:]]
    return names


def carried_over(twin: nn.Module, name: str, shape: tuple[int, int, int]) -> Network:
    """Our train form on the twin's own tensors, which are taken in their order."""
    network, given = structure(name, shape, 1000), twin.state_dict()
    state = {key: torch.zeros((), dtype=torch.long) for key in network.state_dict() if key.endswith("_tracked")}
    ours = [(key, value) for key, value in network.state_dict().items() if key not in state]
    theirs = in_the_chain([key for key in given if not key.endswith("_tracked")])
    for (key, wanted), other in zip(ours, theirs, strict=True):
        value = given[other]
        if value.shape != wanted.shape:  # a linear layer of theirs is a convolution over the whole map
            assert ".fc1." in other and value.shape == wanted.flatten(1).shape, (key, other)
        state[key] = value.reshape(wanted.shape)
    network.load_state_dict(state, assign=True)
    return network.eval()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW_TWINS else ()) for name in TWINS]
)
@torch.no_grad()
def test_the_network_is_the_function_that_torchvision_has(name):
    dtype = torch.float32 if name in BIG else torch.float64
    shape, arch = TWINS[name], nas.load_architecture(name)
    assert arch.applied(shape) == arch.blocks
    twin = random_twin(name, dtype)
    network = carried_over(twin, name, shape)
    x = images(shape, dtype=dtype)
    expected = twin(x)
    assert_the_same(expected, network(x))
    assert_the_same(expected, nas.fuse(network)(x))


def xception(network: Network, x: Tensor) -> Tensor:
    """The paper's figure 5, written down at once, on a network's own tensors in their order."""
    convolutions = (layer.weight for layer in network.modules() if isinstance(layer, nn.Conv2d))
    norms = (layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d))

    def normed(x: Tensor) -> Tensor:
        norm = next(norms)
        return batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=1e-3)

    def separable(x: Tensor) -> Tensor:
        return normed(conv2d(conv2d(x, next(convolutions), padding=1, groups=x.shape[1]), next(convolutions)))

    def halved(x: Tensor, begins_with_relu: bool = True) -> Tensor:
        kept = normed(conv2d(x, next(convolutions), stride=2))
        x = separable(relu(x) if begins_with_relu else x)
        return max_pool2d(separable(relu(x)), 3, 2, 1) + kept

    x = relu(normed(conv2d(x, next(convolutions), stride=2)))
    x = relu(normed(conv2d(x, next(convolutions))))
    x = halved(halved(halved(x, begins_with_relu=False)))
    for _ in range(8):
        x = x + separable(relu(separable(relu(separable(relu(x))))))
    x = relu(separable(relu(separable(halved(x)))))
    (logits,) = (layer for layer in network.modules() if isinstance(layer, nn.Linear))
    assert next(convolutions, None) is next(norms, None) is None
    return linear(x.mean((2, 3)), logits.weight, logits.bias)


@torch.no_grad()
def test_xception_is_the_function_of_the_paper():
    shape, arch = (3, 129, 142), nas.load_architecture("xception")
    assert arch.applied(shape) == arch.blocks
    network = alive(nas.build(arch, num_classes=10, input_shape=shape)).double()
    x = images(shape, dtype=torch.float64)
    assert_the_same(xception(network, x), network(x), 1e-9)


@torch.no_grad()
def test_auxiliary_heads_are_the_functions_that_torchvision_has():
    twin = random_twin("googlenet", torch.float64)
    network = carried_over(twin, "googlenet", IMAGENET)
    heads = [block for block in network.blocks if isinstance(block, AuxiliaryBlock)]
    assert [head.weight for head in heads] == [0.3, 0.3]
    for head, other, channels in zip(heads, (twin.aux1, twin.aux2), (512, 528), strict=True):
        x = images((channels, 14, 14), dtype=torch.float64)
        assert_the_same(other(x), head.logits(x), 1e-9)

    twin = random_twin("inception_v3", torch.float64)
    network = carried_over(twin, "inception_v3", LARGE)
    (head,) = [block for block in network.blocks if isinstance(block, AuxiliaryBlock)]
    # Theirs pools 17 pixels to 5 by windows of 5 at a distance of 3, ours by adaptive windows: equal on even maps.
    x = images((768, 1, 1), dtype=torch.float64).expand(-1, -1, 17, 17)
    assert_the_same(twin.AuxLogits(x), head.logits(x), 1e-9)


# ---------------------------------------------------------------- small images


@pytest.mark.parametrize("name", LIGHT)
def test_one_step_of_training_on_small_images(name):
    torch.manual_seed(0)
    shape = (1, 8, 8)
    network = nas.build(nas.load_architecture(name), num_classes=10, input_shape=shape)
    x, labels = images(shape, batch=4), torch.arange(4)
    logits, auxiliary = network.with_auxiliary(x)
    loss = cross_entropy(logits, labels) + sum(weight * cross_entropy(other, labels) for weight, other in auxiliary)
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())
    torch.optim.SGD(network.parameters(), lr=1e-3).step()
    assert torch.isfinite(network(x)).all()
    heads = {"googlenet": 2, "googlenet_5x5": 2, "inception_v3": 1}
    assert [tuple(other.shape) for _, other in auxiliary] == [(4, 10)] * heads.get(name, 0)


@pytest.mark.parametrize("name", BIG)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 33, 40)])
def test_big_networks_take_small_images(name, shape):
    with torch.device("meta"):
        for form in ("train", "deploy"):
            network = nas.build(nas.load_architecture(name), num_classes=10, input_shape=shape, form=form)
            assert network(torch.empty(2, *shape)).shape == (2, 10)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 35, 42)])
@pytest.mark.parametrize("name", LIGHT)
@torch.no_grad()
def test_the_fused_network_is_the_same_function(name, shape):
    network = alive(nas.build(nas.load_architecture(name), num_classes=10, input_shape=shape))
    fused, x = nas.fuse(network), images(shape)
    assert_the_same(network(x), fused(x))
    assert parameters(fused) < parameters(network) or name in ("lenet5", "nin", "squeezenet1_1")

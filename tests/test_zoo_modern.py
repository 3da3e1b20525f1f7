"""The zoo's networks since ResNet, held against published figures and against torchvision."""

import functools

import pytest
import torch
import torchvision
from torch import Tensor, nn

import nas
from nas.architecture import Architecture
from nas.blocks import Basic, Block, Bottleneck, Classifier, Conv, Separable
from nas.networks.builder import build
from nas.networks.fading import set_fading
from nas.networks.fusing import fuse
from nas.space_file import load_architecture, load_space
from tests.helpers import randomise, relative_difference

pytestmark = pytest.mark.usefixtures("one_thread")

IMAGENET = (1000, (3, 224, 224))
CIFAR = (10, (3, 32, 32))
DIGITS = (10, (1, 8, 8))

# Parameters and multiply-adds of the train form, for 1000 classes at 224x224; torchvision's names.
TORCHVISION = {
    "resnet18": (11_689_512, 1_814_073_344),
    "resnet34": (21_797_672, 3_663_761_408),
    "resnet50": (25_557_032, 4_089_184_256),
    "resnet101": (44_549_160, 7_801_405_440),
    "resnet152": (60_192_808, 11_513_626_624),
    "resnext50_32x4d": (25_028_904, 4_230_479_872),
    "wide_resnet50_2": (68_883_240, 11_398_021_120),
    "mobilenet_v2": (3_504_872, 300_774_272),
    "mobilenet_v3_small": (2_542_856, 56_510_400),
    "mobilenet_v3_large": (5_483_032, 216_589_760),
    "shufflenet_v2": (2_278_604, 144_907_992),
    "mnasnet1_0": (4_383_312, 314_415_872),
}
OTHER_NAMES = {"shufflenet_v2": "shufflenet_v2_x1_0"}

# (form, what is counted, figure as published, decimals that it is published with, in millions).
PUBLISHED = {
    "resnet20": [("train", "params", 0.27, 2), ("train", "macs", 40.8, 1)],
    "resnet56": [("train", "macs", 125.7, 1)],  # its parameters: see below
    "resnet110": [("train", "params", 1.7, 1)],
    "wrn_28_10": [("train", "params", 36.5, 1), ("train", "macs", 5200, -2)],
    "mobilenet_v1": [("train", "params", 4.231976, 6), ("train", "macs", 569, 0)],
    "shufflenet_v1": [("train", "macs", 137, 0)],
    "repvgg_a0": [("train", "params", 9.11, 2), ("deploy", "params", 8.31, 2), ("deploy", "macs", 1400, -2)],
    "mobileone_s0": [("deploy", "params", 2.1, 1), ("deploy", "macs", 275, 0)],
    "vanillanet_5": [("deploy", "params", 15.523304, 6), ("deploy", "macs", 5200, -2)],
    "vanillanet_9": [("deploy", "params", 41.4, 1), ("deploy", "macs", 8600, -2)],
}
REDUCENETS = ("reducenet_20", "reducenet_56")
ON_CIFAR = ("resnet20", "resnet56", "resnet110", "wrn_28_10", *REDUCENETS)
NAMES = (*TORCHVISION, *PUBLISHED, *REDUCENETS)
HEAVY = ("resnet101", "resnet152", "wide_resnet50_2", "wrn_28_10", "vanillanet_5", "vanillanet_9")


def weighed(names, heavy=HEAVY):
    """Parameters of a test, the heavy ones marked slow."""
    return [pytest.param(name, marks=pytest.mark.slow) if name in heavy else name for name in names]


@functools.cache
def counted(name: str, form) -> dict[str, int]:
    classes, shape = CIFAR if name in ON_CIFAR else IMAGENET
    with torch.device("meta"):
        network = build(load_architecture(name), num_classes=classes, input_shape=shape, form=form)
    return dict(zip(("params", "macs"), nas.count(network, shape), strict=True))


def images(shape: tuple[int, ...], seed: int = 0, dtype: torch.dtype = torch.float32, batch: int = 8) -> Tensor:
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@torch.no_grad()
def settled(network: nn.Module, x: Tensor, seed: int = 0) -> nn.Module:
    """The network in eval mode, no number at its fresh value, its BatchNorms near the statistics of `x`.

    Statistics that have nothing to do with the data let the outputs of a hundred layers explode.
    """
    randomise(network, seed)
    set_fading(network, 0)
    norms = {module: module.momentum for module in network.modules() if isinstance(module, nn.BatchNorm2d)}
    for norm in norms:
        norm.momentum = 1.0
    network.train()(x)
    rng = torch.Generator().manual_seed(seed)
    for norm, momentum in norms.items():
        norm.momentum = momentum
        assert norm.running_mean is not None and norm.running_var is not None
        noise = torch.randn(norm.num_features, generator=rng)
        norm.running_mean += 0.2 * noise * norm.running_var.sqrt()
        norm.running_var *= torch.empty(norm.num_features).uniform_(0.7, 1.4, generator=rng)
    return network.eval()


def structure(network: nn.Module) -> tuple[str, dict[str, tuple[int, ...]]]:
    return str(network), {key: tuple(value.shape) for key, value in network.state_dict().items()}


# ---------------------------------------------------------------- figures


@pytest.mark.parametrize("name", TORCHVISION)
def test_parameters_and_multiply_adds_are_torchvisions(name):
    params, macs = TORCHVISION[name]
    assert counted(name, "train") == {"params": params, "macs": macs}
    meta = torchvision.models.get_model_weights(OTHER_NAMES.get(name, name))["IMAGENET1K_V1"].meta
    assert meta["num_params"] == params
    assert meta["_ops"] == pytest.approx(macs / 1e9, abs=6e-4)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_multiply_adds_are_the_papers(name):
    for form, what, millions, decimals in PUBLISHED[name]:
        figure = counted(name, form)[what] / 1e6
        assert round(figure, decimals) == millions, (form, what, figure)


@pytest.mark.parametrize(("name", "option_a"), [("resnet20", 269_722), ("resnet56", 853_018), ("resnet110", 1_727_962)])
def test_resnets_for_cifar_have_their_projections_beside_the_published_parameters(name, option_a):
    projections = 16 * 32 + 32 * 64 + 2 * (32 + 64)
    assert counted(name, "train")["params"] == option_a + projections


def test_wide_resnet_has_the_known_count():
    assert counted("wrn_28_10", "train")["params"] == 36_479_194


@pytest.mark.parametrize("name", NAMES)
def test_files_state_what_is_counted(name):
    stated = load_space(f"zoo/{name}").published
    classes, shape = CIFAR if name in ON_CIFAR else IMAGENET
    assert (stated["num_classes"], stated["input_shape"]) == (classes, shape)
    figures = {key: value for key, value in stated.items() if key not in ("num_classes", "input_shape", "note")}
    found: dict[str, int] = {}
    for form, prefix in (("train", ""), ("deploy", "deploy_")):
        if any(key.startswith("deploy_") == bool(prefix) for key in figures):
            found |= {prefix + what: value for what, value in counted(name, form).items()}
    assert figures and figures == {key: found[key] for key in figures}


def kernels(*blocks: Block, in_channels: int) -> int:
    """Weights of the convolutions without biases, for a map of so many channels."""
    arch = Architecture((), (blocks,), (Classifier(),))
    with torch.device("meta"):
        network = build(arch, num_classes=10, input_shape=(in_channels, 16, 16), form="deploy")
    return sum(module.weight.numel() for module in network.modules() if isinstance(module, nn.Conv2d))


def test_bricks_have_as_many_weights_as_published():
    assert kernels(Basic(out_channels=256), in_channels=256) == 1_179_648
    assert kernels(Bottleneck(out_channels=256), in_channels=256) == 69_632
    dense = kernels(Conv(out_channels=8), in_channels=4)
    assert kernels(Separable(out_channels=8), in_channels=4) / dense == (36 + 32) / 288
    assert kernels(Separable(out_channels=8, depth_multiplier=2), in_channels=4) / dense == (72 + 64) / 288


# ---------------------------------------------------------------- held against torchvision


def carry_over(theirs: nn.Module, ours: nn.Module) -> None:
    """Copies a state by order: both networks register the same tensors one after another."""
    source = [(key, value) for key, value in theirs.state_dict().items() if not key.endswith("num_batches_tracked")]
    target = [(key, value) for key, value in ours.state_dict().items() if not key.endswith("num_batches_tracked")]
    assert len(source) == len(target)
    for (their_key, value), (our_key, place) in zip(source, target, strict=True):
        assert value.shape == place.shape, (their_key, our_key)
        place.copy_(value)


@torch.no_grad()
@pytest.mark.parametrize("name", weighed(TORCHVISION))
def test_networks_are_torchvisions_function_for_function(name):
    torch.manual_seed(0)
    shape = (3, 128, 128)  # no stride is dropped
    x = images(shape, dtype=torch.float64, batch=2)
    theirs = torchvision.models.get_model(OTHER_NAMES.get(name, name), weights=None)
    theirs = settled(theirs.double(), x)
    ours = build(load_architecture(name), num_classes=1000, input_shape=shape).double().eval()
    carry_over(theirs, ours)
    expected = theirs(x)
    assert relative_difference(expected[:1], expected[1:]) > 1e-2  # the logits are not the biases alone
    assert relative_difference(expected, ours(x)) < 1e-5
    assert relative_difference(expected, fuse(ours)(x)) < 1e-5


# ---------------------------------------------------------------- training and fusing at a small size


@pytest.mark.parametrize("name", weighed(NAMES))
def test_networks_train_on_small_grey_images(name):
    classes, shape = DIGITS
    torch.manual_seed(0)
    network = build(load_architecture(name), num_classes=classes, input_shape=shape)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    grey = torch.randint(0, 17, (8, *shape), generator=torch.Generator().manual_seed(0)) / 16
    loss = nn.functional.cross_entropy(network(grey), torch.arange(8))
    loss.backward()
    before = next(network.parameters()).detach().clone()
    assert torch.isfinite(loss)
    for parameter in network.parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all()
    optimizer.step()
    assert not torch.equal(before, next(network.parameters()))
    with torch.no_grad():
        assert torch.isfinite(network.eval()(grey)).all()


@torch.no_grad()
@pytest.mark.parametrize("name", weighed(NAMES))
def test_networks_fuse_exactly_into_what_is_built_directly(name):
    classes, shape = DIGITS
    torch.manual_seed(0)
    arch = load_architecture(name)
    x = images(shape, dtype=torch.float64)
    network = settled(build(arch, num_classes=classes, input_shape=shape), x.float())
    fused = fuse(network)
    direct = build(arch, num_classes=classes, input_shape=shape, form="deploy")
    assert structure(fused) == structure(direct)
    assert nas.count(fused, shape) == nas.count(direct, shape)
    single, fused_single = network(x.float()).double(), fused(x.float()).double()
    exact = network.double()(x)
    assert relative_difference(exact[:1], exact[1:2]) > 1e-2  # the logits are not the biases alone
    assert relative_difference(exact, fuse(network)(x)) < 1e-9
    # In single precision a hundred layers round by more than 1e-5, whichever form has them.
    assert relative_difference(exact, fused_single) < max(1e-5, 2 * relative_difference(exact, single))


def leaves(name: str) -> list[nn.Module]:
    """The layers of the deploy form, identities left out."""
    with torch.device("meta"):
        network = build(load_architecture(name), num_classes=10, input_shape=(3, 32, 32), form="deploy")
    modules = [module for module in network.modules() if not list(module.children())]
    return [module for module in modules if not isinstance(module, nn.Identity)]


@pytest.mark.parametrize(("name", "depth"), [("reducenet_20", 20), ("reducenet_56", 56), ("repvgg_a0", 23)])
def test_deploy_forms_are_plain_chains_of_convolutions(name, depth):
    layers = leaves(name)
    chain, head = layers[: 2 * (depth - 1)], layers[2 * (depth - 1) :]
    assert [type(layer) for layer in chain] == [nn.Conv2d, nn.ReLU] * (depth - 1)
    assert {layer.kernel_size for layer in chain[::2]} == {(3, 3)}
    assert [type(layer) for layer in head] == [nn.AdaptiveAvgPool2d, nn.Flatten, nn.Linear]


@pytest.mark.parametrize(("name", "depth"), [("vanillanet_5", 5), ("vanillanet_9", 9)])
def test_deploy_forms_of_vanillanets_have_as_many_layers_as_they_are_named_for(name, depth):
    layers = [layer for layer in leaves(name) if isinstance(layer, nn.Conv2d | nn.Linear)]
    dense = [layer for layer in layers if getattr(layer, "groups", 1) == 1]
    series = [layer for layer in layers if getattr(layer, "groups", 1) > 1]
    assert len(dense) == depth and len(series) == depth - 1
    assert {layer.kernel_size for layer in series} == {(7, 7)}
    assert [layer.kernel_size for layer in dense[:-1]] == [(4, 4)] + [(1, 1)] * (depth - 2)


@pytest.mark.parametrize(("prefix", "eps"), [("vanillanet", 1e-6), ("mobilenet_v3", 1e-3), ("mobilenet_v2", 1e-5)])
def test_normalizations_have_their_papers_epsilon(prefix, eps):
    for name in (name for name in NAMES if name.startswith(prefix)):
        with torch.device("meta"):
            network = build(load_architecture(name), num_classes=10, input_shape=(3, 32, 32))
        assert {module.eps for module in network.modules() if isinstance(module, nn.BatchNorm2d)} == {eps}


def test_only_pre_activation_keeps_normalizations_on_the_device():
    kept = {name: sum(isinstance(layer, nn.BatchNorm2d) for layer in leaves(name)) for name in NAMES}
    assert {name: count for name, count in kept.items() if count} == {"wrn_28_10": 13}

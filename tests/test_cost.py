import pytest
import torch
import torchvision
from torch import nn

import nas
from nas.architecture import Architecture
from nas.blocks import Basic, Bottleneck, Classifier, Conv, InvertedResidual, Reduce
from nas.cost import count
from nas.space_file import load_architecture, load_space, space_names
from tests.helpers import randomise

pytestmark = pytest.mark.usefixtures("one_thread")


def arch_of(*blocks) -> Architecture:
    return Architecture(stem=(), stages=(blocks,), head=(Classifier(),))


def conv(before: int, after: int, kernel: int, side: int, groups: int = 1) -> tuple[int, int]:
    """Parameters (with bias) and multiply-adds of a convolution with a square output of `side` pixels."""
    weights = after * before // groups * kernel * kernel
    return weights + after, weights * side * side


def total(*layers: tuple[int, int]) -> tuple[int, int]:
    return sum(params for params, _ in layers), sum(macs for _, macs in layers)


CLASSES = 10


@pytest.mark.parametrize(
    ("blocks", "layers"),
    [
        ((Conv(out_channels=8, stride=2),), [conv(3, 8, 3, 16), (80 + 10, 80)]),
        (
            (Conv(out_channels=8, kernel_size=5), Conv(out_channels=12, groups=4, stride=4)),
            [conv(3, 8, 5, 32), conv(8, 12, 3, 8, groups=4), (120 + 10, 120)],
        ),
        (
            (Conv(out_channels=8), InvertedResidual(out_channels=16, expansion=3, kernel_size=5, stride=2, groups=2)),
            [
                conv(3, 8, 3, 32),
                conv(8, 24, 1, 32, groups=2),
                conv(24, 24, 5, 16, groups=24),
                conv(24, 16, 1, 16, groups=2),
                (160 + 10, 160),
            ],
        ),
        (
            (Conv(out_channels=8), InvertedResidual(out_channels=8, expansion=1, se_ratio=1)),
            [
                conv(3, 8, 3, 32),
                conv(8, 8, 3, 32, groups=8),
                conv(8, 8, 1, 1),
                conv(8, 8, 1, 1),
                conv(8, 8, 1, 32),
                (80 + 10, 80),
            ],
        ),
        (
            (Conv(out_channels=8), Basic(out_channels=16, expansion=0.5, stride=2)),
            [conv(3, 8, 3, 32), conv(8, 8, 3, 16), conv(8, 16, 3, 16), conv(8, 16, 1, 16), (160 + 10, 160)],
        ),
        (
            (Conv(out_channels=8), Basic(out_channels=12, expansion=2, stride=2, groups=4)),
            [
                conv(3, 8, 3, 32),
                conv(8, 24, 3, 16, groups=4),
                conv(24, 12, 3, 16, groups=4),
                conv(8, 12, 1, 16),
                (120 + 10, 120),
            ],
        ),
        (
            (Conv(out_channels=8), Bottleneck(out_channels=8, kernel_size=5, expansion=0.5, groups=2)),
            [conv(3, 8, 3, 32), conv(8, 4, 1, 32), conv(4, 4, 5, 32, groups=2), conv(4, 8, 1, 32), (80 + 10, 80)],
        ),
        (
            (Conv(out_channels=8), Reduce(out_channels=16, bottleneck_width=4, stride=2)),
            [conv(3, 8, 3, 32), conv(8, 16, 3, 16), (160 + 10, 160)],
        ),
    ],
)
def test_cost_of_the_deploy_form_by_hand(blocks, layers):
    network = nas.build(arch_of(*blocks), num_classes=CLASSES, input_shape=(3, 32, 32), form="deploy")
    assert count(network, (3, 32, 32)) == total(*layers)


def test_train_form_of_reduce_pays_for_its_width():
    arch = arch_of(Conv(out_channels=8), Reduce(out_channels=8, bottleneck_width=4))
    network = nas.build(arch, num_classes=CLASSES, input_shape=(3, 32, 32))
    stem, wide, narrow, linear = 3 * 8 * 9, 8 * 32 * 9, 32 * 8, 8 * 10
    norms = 2 * (8 + 32 + 8)
    assert count(network, (3, 32, 32)) == (
        stem + wide + narrow + linear + CLASSES + norms,
        (stem + wide + narrow) * 32 * 32 + linear,
    )


def test_mobilenet_v2_has_the_published_cost():
    network = nas.build(load_architecture("mobilenet_v2"), num_classes=1000, input_shape=(3, 224, 224))
    assert count(network, (3, 224, 224)) == (3_504_872, 300_774_272)


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        ("resnet18", 11_689_512, 1_814_073_344),
        ("mobilenet_v3_small", 2_542_856, 56_510_400),
        ("shufflenet_v2_x1_0", 2_278_604, 144_907_992),
        ("squeezenet1_1", 1_235_496, 349_151_936),
    ],
)
def test_any_network_has_its_published_cost(name, params, macs):
    with torch.device("meta"):
        network = torchvision.models.get_model(name, weights=None)
    assert count(network, (3, 224, 224)) == (params, macs)


@pytest.mark.parametrize("form", ["train", "deploy"])
@pytest.mark.parametrize("name", space_names())
def test_counting_leaves_the_network_unchanged(name, form):
    arch = load_space(name).sample(3)
    network = randomise(nas.build(arch, num_classes=CLASSES, input_shape=(3, 24, 24), form=form))
    network.blocks[0].eval()
    state = {key: value.clone() for key, value in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    random_state = torch.get_rng_state()
    count(network, (3, 24, 24))
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert all(value.device.type == "cpu" for value in network.state_dict().values())
    assert [module.training for module in network.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_the_dtype_of_a_network_does_not_change_its_cost(dtype):
    network = nas.build(load_space("tiny").sample(0), num_classes=CLASSES, input_shape=(1, 8, 8), form="deploy")
    expected = count(network, (1, 8, 8))
    assert count(network.to(dtype), (1, 8, 8)) == expected


def test_shared_weights_are_stored_once_and_computed_twice():
    layer = nn.Conv2d(4, 4, 3, padding=1)
    assert count(nn.Sequential(layer, layer), (4, 5, 5)) == (4 * 4 * 9 + 4, 2 * 4 * 4 * 9 * 25)

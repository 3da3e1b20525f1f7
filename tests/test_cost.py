import itertools

import pytest
import torch
import torchvision
from torch import nn

import nas
from nas.architecture import Architecture
from nas.blocks import Basic, Bottleneck, Classifier, Conv, InvertedResidual, NormActivation, Reduce
from nas.cost import count, footprint, size
from nas.reading import Footprint
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


def test_a_network_costs_the_same_in_inference_mode():
    def made():
        return nas.build(load_architecture("lenet5"), num_classes=10, input_shape=(1, 28, 28), form="deploy")

    expected = count(made(), (1, 28, 28)), footprint(made(), (1, 28, 28))
    with torch.inference_mode():
        network = made()
        found = count(network, (1, 28, 28)), footprint(network, (1, 28, 28))
    assert found == expected == (count(network, (1, 28, 28)), footprint(network, (1, 28, 28)))


def test_shared_weights_are_stored_once_and_computed_twice():
    layer = nn.Conv2d(4, 4, 3, padding=1)
    assert count(nn.Sequential(layer, layer), (4, 5, 5)) == (4 * 4 * 9 + 4, 2 * 4 * 4 * 9 * 25)
    assert footprint(nn.Sequential(layer, layer), (4, 5, 5)).weights == 4 * 4 * 9


# Memory: the image (C, H, W) = (4, 6, 6) is there all the while, since who asks for logits has it.

IMAGE = 4 * 36


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter = nn.Conv2d(4, 8, 1)
        self.body = nn.Sequential(nn.Conv2d(8, 16, 1), nn.Conv2d(16, 8, 1))

    def forward(self, x):
        x = self.enter(x)
        return x + self.body(x)


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.branches = nn.ModuleList([nn.Conv2d(4, 8, 1), nn.Conv2d(4, 16, 1), nn.Conv2d(4, 2, 1)])

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], 1)


@pytest.mark.parametrize(
    ("network", "channels"),
    [
        # What a layer reads and what it writes; what is read no more is gone.
        (nn.Sequential(nn.Conv2d(4, 8, 1), nn.ReLU(), nn.Conv2d(8, 2, 1)), 8 + 8),
        (nn.Sequential(nn.Conv2d(4, 8, 1), nn.Conv2d(8, 16, 1), nn.Conv2d(16, 2, 1)), 8 + 16),
        # In place nothing is written anew.
        (nn.Sequential(nn.Conv2d(4, 8, 1), nn.ReLU(inplace=True), nn.Conv2d(8, 2, 1)), 8 + 2),
        # The skip waits for the body: it, the body's middle and the body's end.
        (Residual(), 8 + 16 + 8),
        # All branches and what they become.
        (Branches(), 8 + 16 + 2 + 26),
        # A view has no memory of its own.
        (nn.Sequential(nn.Conv2d(4, 8, 1), nn.Flatten(), nn.Unflatten(1, (8, 6, 6)), nn.Conv2d(8, 2, 1)), 8 + 2),
        # Neither the indices of a pool nor the statistics of a norm are kept.
        (nn.Sequential(nn.Conv2d(4, 8, 1), nn.MaxPool2d(3, 1, 1)), 8 + 8),
        (nn.Sequential(nn.Conv2d(4, 8, 1), nn.GroupNorm(2, 8)), 8 + 8),
        (nn.Identity(), 0),
    ],
)
def test_activations_at_once_by_hand(network, channels):
    assert footprint(network, (4, 6, 6)).activations == IMAGE + channels * 36


def test_a_block_holds_its_input_to_its_end():
    # Image and stem wait while the wide middle is convolved, gated by nothing, and added: 3, 8, 24 and 24 channels.
    arch = arch_of(Conv(out_channels=8, activation="none"), InvertedResidual(out_channels=8, expansion=3))
    network = nas.build(arch, num_classes=CLASSES, input_shape=(3, 6, 6), form="deploy")
    assert footprint(network, (3, 6, 6)).activations == (3 + 8 + 24 + 24) * 36


def test_parameters_and_buffers_are_kept_all_the_while():
    arch = arch_of(Conv(out_channels=8), NormActivation())
    network = nas.build(arch, num_classes=CLASSES, input_shape=(3, 6, 6), form="deploy")
    biases, norm = 4 * (8 + CLASSES), 4 * (4 * 8) + 8  # scale, shift, mean, variance; an int64 counts batches
    assert footprint(network, (3, 6, 6)) == (8 * 3 * 9 + 8 * CLASSES, biases + norm, (3 + 8 + 8 + 8) * 36)


def test_peak_memory_in_megabytes():
    kept = Footprint(weights=1000, other_bytes=80, activations=300)
    assert kept.peak_mb(1, "float32") == (4 * 1000 + 80 + 4 * 300) / 1e6
    assert kept.peak_mb(7, "float32") == (4 * 1000 + 80 + 7 * 4 * 300) / 1e6  # only activations are of a batch
    assert kept.peak_mb(7, "int8") == (1000 + 80 + 7 * 300) / 1e6


def test_all_sizes_are_of_one_network():
    network = nas.build(load_architecture("lenet5"), num_classes=10, input_shape=(1, 28, 28), form="deploy")
    shape = (1, 28, 28)
    assert size(network, shape, 4, "int8") == (*count(network, shape), footprint(network, shape).peak_mb(4, "int8"))


def allocated(network: nn.Module, image: torch.Tensor) -> int:
    """The most bytes at once that an eager forward takes from the allocator, and those of its image."""
    with torch.no_grad(), torch.profiler.profile(profile_memory=True) as profile:
        network(image)
    events = profile.profiler.kineto_results.events()
    steps = sorted((each.start_ns(), each.nbytes()) for each in events if each.name() == "[memory]")
    return max(itertools.accumulate((nbytes for _, nbytes in steps), initial=0)) + 4 * image.numel()


class Elementwise(nn.Module):
    """Kernels that need no memory but that of their results."""

    def forward(self, x):
        wide = torch.cat([x, x.relu(), x.sigmoid()], 1)
        both = wide + wide.tanh()
        return both.mean((2, 3)) * 2


def test_the_allocator_gives_what_is_counted():
    assert allocated(Elementwise(), torch.rand(1, 4, 32, 32)) == 4 * footprint(Elementwise(), (4, 32, 32)).activations


@pytest.mark.parametrize("name", ["lenet5", "resnet20", "shufflenet_v2"])
def test_the_allocator_gives_no_less_than_is_counted(name):
    network = nas.build(load_architecture(name), num_classes=10, input_shape=(1, 28, 28), form="deploy")
    assert allocated(network, torch.rand(1, 1, 28, 28)) >= 4 * footprint(network, (1, 28, 28)).activations

import copy

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from nas.fusion import affine_after, compose, identity_conv, parallel_sum
from nas.linear_conv import LinearConv
from nas.networks.conv_modules import ShiftedConv, affine_of, conv2d_from, linear_of
from nas.networks.fusing import fuse, fuse_children, unfused_norms
from tests.helpers import randomise, relative_difference

pytestmark = pytest.mark.usefixtures("one_thread")

RANDOM = settings(max_examples=30, deadline=None, derandomize=True)
EXACT = 1e-12


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


def images(channels: int = 4, size: int = 9, seed: int = 0) -> Tensor:
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ready(network: nn.Module, seed: int = 0) -> nn.Module:
    """In double precision, with random statistics, in train mode as a trainer leaves it."""
    network = randomise(network.double(), seed).train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.3, 2.5)
    return network


@torch.no_grad()
def check(network: nn.Module, x: Tensor, norms_left: int = 0) -> nn.Module:
    """Fuses, compares everywhere and on the border alone, and looks whether the argument was left alone."""
    before, mode = copy.deepcopy(network.state_dict()), [module.training for module in network.modules()]
    fused = fuse(network)
    assert [module.training for module in network.modules()] == mode
    after = network.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert not any(module.training for module in fused.modules())
    assert len(unfused_norms(fused)) == norms_left
    expected, actual = copy.deepcopy(network).eval()(x), fused(x)
    assert relative_difference(expected, actual) < EXACT
    if expected.dim() == 4:
        assert relative_difference(expected[..., 0, :], actual[..., 0, :]) < EXACT
        assert relative_difference(expected[..., -1], actual[..., -1]) < EXACT
    return fused


# Modules to tensors and back


@RANDOM
@given(
    groups=st.sampled_from([1, 2, 4]),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.integers(1, 2),
    padding=st.integers(0, 2) | st.sampled_from(["same", "valid"]),
    dilation=st.integers(1, 2),
    bias=st.booleans(),
)
def test_a_convolution_goes_to_tensors_and_back(groups, kernel, stride, padding, dilation, bias):
    stride = 1 if padding == "same" else stride
    conv = nn.Conv2d(4, 8, kernel, stride, padding, dilation, groups, bias, dtype=torch.float64)
    if padding == "same" and any((size - 1) * dilation % 2 for size in kernel):
        with pytest.raises(ValueError, match="one side more"):
            linear_of(conv)
        return
    tensors = linear_of(conv)
    back = conv2d_from(tensors)
    assert not tensors.weight.requires_grad and not back.training and back.weight.is_contiguous()
    assert torch.equal(tensors.apply(images()), conv(images())) and torch.equal(back(images()), conv(images()))
    assert back.weight.data_ptr() != conv.weight.data_ptr()
    assert [(name, value.shape) for name, value in back.state_dict().items()] == [
        (name, value.shape) for name, value in conv.state_dict().items()
    ]


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_other_padding_than_zeros_is_refused(mode):
    with pytest.raises(ValueError, match=mode):
        linear_of(nn.Conv2d(4, 4, 3, padding=1, padding_mode=mode))


def test_making_a_convolution_draws_no_random_numbers_and_keeps_dtype_and_device():
    state = torch.get_rng_state()
    conv = conv2d_from(LinearConv(torch.ones(4, 4, 3, 3, dtype=torch.float16), None))
    assert torch.equal(state, torch.get_rng_state()) and conv.weight.dtype == torch.float16 and conv.bias is None
    assert conv2d_from(LinearConv(torch.ones(4, 4, 3, 3, device="meta"), None)).weight.is_meta


def test_a_batch_norm_is_its_affine_map():
    norm = ready(nn.BatchNorm2d(4, eps=0.01)).eval()
    factor, offset = affine_of(norm)
    expected = norm(images())
    assert relative_difference(expected, images() * factor[:, None, None] + offset[:, None, None]) < EXACT
    with pytest.raises(ValueError, match="running statistics"):
        affine_of(nn.BatchNorm2d(4, track_running_stats=False))


# Folding in Sequentials


@RANDOM
@given(
    groups=st.sampled_from([1, 2, 4]),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 2),
    padding=st.integers(0, 2) | st.sampled_from(["same", "valid"]),
    mode=st.sampled_from(["zeros", "reflect", "circular"]),
    bias=st.booleans(),
    affine=st.booleans(),
)
def test_a_norm_folds_into_the_convolution_before_it(groups, kernel, stride, padding, mode, bias, affine):
    stride = 1 if padding == "same" else stride
    conv = nn.Conv2d(4, 8, kernel, stride, padding, 1, groups, bias, mode)
    norm = nn.BatchNorm2d(8, affine=affine)
    network = nn.Sequential(conv, norm, nn.ReLU()).double()
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.3, 2.5)
    fused = check(network, images())
    assert isinstance(fused, nn.Sequential) and [type(m) for m in fused] == [nn.Conv2d, nn.Identity, nn.ReLU]
    assert fused[0].padding == conv.padding and fused[0].padding_mode == mode


@RANDOM
@given(
    groups=st.sampled_from([1, 2, 4]),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    padding=st.integers(0, 2),
    bias=st.booleans(),
)
def test_a_norm_folds_into_the_convolution_after_it_at_borders_too(groups, kernel, stride, padding, bias):
    conv = nn.Conv2d(4, 8, kernel, stride, padding, 1, groups, bias)
    network = ready(nn.Sequential(nn.BatchNorm2d(4), nn.Identity(), conv))
    with torch.no_grad():
        fused = fuse(network)
        expected, actual = network.eval()(images()), fused(images())
    assert (expected - actual).abs().max() < EXACT * expected.abs().max() and not unfused_norms(fused)
    assert isinstance(fused, nn.Sequential) and isinstance(fused[2], ShiftedConv if padding else nn.Conv2d)


def test_a_norm_folds_into_the_convolution_before_it_rather_than_after():
    layers = [nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)]
    fused = check(ready(nn.Sequential(*layers)), images())
    assert isinstance(fused, nn.Sequential)
    assert [type(m) for m in fused] == [nn.Conv2d, nn.Identity, nn.Conv2d, nn.Identity]


def test_several_norms_on_both_sides_fold():
    conv = nn.Conv2d(4, 6, 3)
    network = nn.Sequential(nn.BatchNorm2d(4), conv, nn.Identity(), nn.BatchNorm2d(6), nn.BatchNorm2d(6))
    fused = check(ready(network), images())
    assert len([module for module in fused.modules() if isinstance(module, nn.Conv2d)]) == 1


def test_a_linear_layer_takes_its_norm():
    network = nn.Sequential(nn.Flatten(), nn.Linear(4 * 81, 7, bias=False), nn.BatchNorm1d(7), nn.ReLU())
    assert isinstance(check(ready(network), images()), nn.Sequential)


def test_a_padded_convolution_after_a_factor_of_zero_keeps_its_norm():
    network = ready(nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)))
    with torch.no_grad():
        network[0].weight[1] = 0  # type: ignore[index]
    check(network, images(), norms_left=1)


class Standardized(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        return self._conv_forward(input, weight, self.bias)


class NormAct(nn.BatchNorm2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).relu()


class Doubling(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return self[1](2 * self[0](x))


class Nested(nn.Module):
    """Its convolution is used in a Sequential and outside of it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.body = nn.Sequential(self.conv, nn.BatchNorm2d(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.conv(x)


def hooked() -> nn.Conv2d:
    conv = nn.Conv2d(4, 4, 3, padding=1)
    conv.register_forward_hook(lambda module, inputs, output: 2 * output + 1)
    return conv


def twice() -> nn.Sequential:
    conv = nn.Conv2d(4, 4, 3, padding=1)
    return nn.Sequential(conv, nn.BatchNorm2d(4), nn.ReLU(), conv, nn.BatchNorm2d(4))


@pytest.mark.parametrize(
    ("network", "norms_left"),
    [
        (nn.Sequential(Standardized(4, 4, 3), nn.BatchNorm2d(4)), 1),
        (nn.Sequential(nn.Conv2d(4, 4, 3), NormAct(4)), 1),
        (Doubling(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)), 1),
        (nn.Sequential(hooked(), nn.BatchNorm2d(4)), 1),
        (nn.Sequential(nn.BatchNorm2d(4), hooked()), 1),
        (nn.Sequential(parametrizations.weight_norm(nn.Conv2d(4, 4, 3)), nn.BatchNorm2d(4)), 1),
        (nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)), 1),
        (nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")), 1),
        (nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 2, padding="same")), 1),
        (Nested(), 1),
        (twice(), 2),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_what_cannot_be_folded_exactly_is_left(network, norms_left):
    check(ready(network), images(), norms_left)


def test_a_norm_without_running_statistics_is_left():
    network = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))
    check(network.double(), images(), norms_left=1)


def test_a_shared_norm_folds_wherever_it_is_used_and_a_shared_block_stays_shared():
    norm = nn.BatchNorm2d(4)
    block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), norm)
    network = nn.Sequential(block, nn.ReLU(), block, nn.ReLU(), nn.Conv2d(4, 4, 1), norm)
    fused = check(ready(network), images())
    assert isinstance(fused, nn.Sequential) and fused[0] is fused[2]


def test_tied_weights_of_another_layer_stay():
    one, other = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
    other.weight = one.weight
    check(ready(nn.Sequential(one, nn.BatchNorm2d(4), nn.ReLU(), other)), images())


# Foreign protocols


class RepBlock(nn.Module):
    """RepVGG's: kxk, 1x1 and identity, each with a norm, become one convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dense = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        self.point = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels))
        self.identity = nn.BatchNorm2d(channels)
        self.reparam: nn.Conv2d | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.reparam is not None:
            return self.reparam(x).relu()
        return (self.dense(x) + self.point(x) + self.identity(x)).relu()

    def merged(self) -> nn.Conv2d:
        (dense, norm1), (point, norm2) = self.dense, self.point
        assert isinstance(dense, nn.Conv2d) and isinstance(point, nn.Conv2d)
        assert isinstance(norm1, nn.BatchNorm2d) and isinstance(norm2, nn.BatchNorm2d)
        identity = identity_conv(dense.in_channels, like=dense.weight)
        parts = [(linear_of(dense), norm1), (linear_of(point), norm2), (identity, self.identity)]
        return conv2d_from(parallel_sum(*(affine_after(conv, *affine_of(norm)) for conv, norm in parts)))


class SwitchBlock(RepBlock):
    def switch_to_deploy(self) -> str:
        if self.reparam is None:
            self.reparam = self.merged()
            del self.dense, self.point, self.identity
        return "ignored"


class ReparameterizeBlock(RepBlock):
    def reparameterize(self) -> None:
        SwitchBlock.switch_to_deploy(self)  # type: ignore[arg-type]


class FuseBlock(RepBlock):
    def fuse(self) -> nn.Module:
        return nn.Sequential(self.merged(), nn.ReLU()).train()


class FuseInPlaceBlock(RepBlock):
    def fuse(self) -> None:
        SwitchBlock.switch_to_deploy(self)  # type: ignore[arg-type]


class BothBlock(FuseBlock):
    def switch_to_deploy(self) -> None:
        raise AssertionError("fuse() comes first")


BLOCKS = [SwitchBlock, ReparameterizeBlock, FuseBlock, FuseInPlaceBlock, BothBlock]


@pytest.mark.parametrize("block", BLOCKS)
def test_foreign_blocks_are_asked_to_deploy_themselves(block):
    network = nn.Sequential(nn.Sequential(nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6)), block(6), nn.Sequential(block(6)))
    fused = check(ready(network), images())
    assert len([module for module in fused.modules() if isinstance(module, nn.Conv2d)]) == 3


@pytest.mark.parametrize("block", BLOCKS)
def test_the_root_may_be_such_a_block_and_a_shared_one_stays_shared(block):
    check(ready(block(4)), images())
    shared = block(4)
    fused = check(ready(nn.Sequential(shared, shared)), images())
    assert isinstance(fused, nn.Sequential) and fused[0] is fused[1]


class Whole(nn.Module):
    """A whole network with `switch_to_deploy`, as ours has it."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)

    def switch_to_deploy(self) -> None:
        fuse_children(self)


class Refusing(nn.Module):
    def fuse(self) -> nn.Module:
        raise ValueError("lam is 0.5")


def test_a_whole_network_switches_by_fusing_its_children():
    def blocks() -> list[nn.Module]:
        return [nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6), FuseBlock(6), SwitchBlock(6)]

    check(ready(Whole(*blocks())), images())
    check(ready(nn.Sequential(Whole(*blocks()), nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6))), images())
    network = ready(Whole(*blocks()))
    expected = copy.deepcopy(network).eval()(images())
    network.switch_to_deploy()  # type: ignore[operator]
    assert not network.training and not unfused_norms(network)
    assert relative_difference(expected.detach(), network(images()).detach()) < EXACT


def test_a_layer_that_is_used_outside_of_a_network_that_switches_by_itself_keeps_its_weights():
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Whole(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
            self.again = self.inner.blocks[0]

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) + self.again(x)

    check(ready(Around()), images())


@pytest.mark.parametrize(
    ("network", "path"),
    [
        (Refusing(), "network"),
        (Whole(nn.ReLU(), Refusing()), "network.blocks.1"),
        (nn.Sequential(nn.ReLU(), Whole(nn.Sequential(Refusing()))), "network.1.blocks.0.0"),
    ],
)
def test_a_refusal_names_the_module(network, path):
    with pytest.raises(ValueError) as error:
        fuse(network)
    assert str(error.value) == f"{path}: lam is 0.5"


def test_methods_and_layers_that_only_share_the_name_are_not_called():
    class FeatureFusion(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))

        def fuse(self, one: Tensor, other: Tensor) -> Tensor:
            return one + other

        def forward(self, x: Tensor) -> Tensor:
            return self.fuse(x, self.inner(x))

    class FusionLayer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fuse = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))

        def forward(self, x: Tensor) -> Tensor:
            return self.fuse(x)

    check(ready(nn.Sequential(FeatureFusion(), FusionLayer())), images())


def test_a_fuse_that_returns_no_module_is_refused():
    class Strange(nn.Module):
        def fuse(self) -> int:
            return 3

    with pytest.raises(ValueError, match=r"network\.0: fuse\(\) returned int"):
        fuse(nn.Sequential(Strange()))


def test_dropout_stays():
    fused = fuse(nn.Sequential(nn.Conv2d(4, 4, 1), nn.Dropout(0.5), nn.BatchNorm2d(4)))
    assert isinstance(fused, nn.Sequential) and isinstance(fused[1], nn.Dropout) and unfused_norms(fused) == ["2"]


@pytest.mark.parametrize("name", ["mobilenet_v2", "vgg11_bn"])
def test_networks_of_torchvision_fuse_wholly(name):
    network = getattr(torchvision.models, name)(num_classes=10)
    if name == "vgg11_bn":  # its classifier alone has 120 million weights
        network.avgpool, network.classifier = nn.AdaptiveAvgPool2d(1), nn.Linear(512, 10)
    check(ready(network), images(3, 32))


def test_a_fused_pair_composes():
    """Modules, tensors and algebra together: two folded convolutions become one."""
    network = ready(
        nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4))
    )
    fused = fuse(network)
    assert isinstance(fused, nn.Sequential)
    first, second = fused[0], fused[2]
    assert isinstance(first, nn.Conv2d) and isinstance(second, nn.Conv2d)
    whole = conv2d_from(compose(linear_of(first), linear_of(second)))
    assert relative_difference(network.eval()(images()).detach(), whole(images()).detach()) < EXACT

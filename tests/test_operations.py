"""What a network is said to do, layer by layer, is what it does."""

import pytest
import torch
from torch import nn

import nas
from nas.networks.operations import operations
from nas.receptive_field import ReceptiveField, Window

pytestmark = pytest.mark.usefixtures("one_thread")


class Branches(nn.Module):
    """Branches of other kernels, strides in a convolution and a pool, dilation, a residual."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 2, (3, 5), 2, bias=False)
        self.wide, self.narrow = nn.Conv2d(2, 2, 5, 2, 2, bias=False), nn.Conv2d(2, 2, 1, 2, bias=False)
        self.pool = nn.AvgPool2d(3, 2)
        self.dilated = nn.Conv2d(2, 2, 3, padding=2, dilation=2, groups=2, bias=False)

    def forward(self, x):
        x = self.stem(x)
        x = self.pool(self.wide(x) + self.narrow(x))
        return torch.cat([x, self.dilated(x)], 1)


def extent(network, image, place):
    """First and last row and column of the pixels that an output of the last map depends on."""
    image = image.clone().requires_grad_()
    network(image)[0, :, place, place].sum().backward()
    rows, columns = (image.grad[0, 0] != 0).nonzero(as_tuple=True)
    return (rows.min().item(), columns.min().item()), (rows.max().item(), columns.max().item())


def test_receptive_fields_are_what_gradients_reach():
    network, image = Branches(), torch.ones(1, 1, 121, 121)
    for parameter in network.parameters():
        nn.init.ones_(parameter)
    last = operations(network, (1, 121, 121))[-1]
    first, end = extent(network, image, 6)
    assert last.field.size == (end[0] - first[0] + 1, end[1] - first[1] + 1)
    assert extent(network, image, 7)[0] == tuple(i + j for i, j in zip(first, last.field.jump, strict=True))


def test_operations_of_a_small_network_by_hand():
    stem, wide, narrow, add, pool, dilated, cat = operations(Branches(), (1, 33, 31))
    assert (stem.name, stem.kind, stem.in_shape, stem.out_shape) == ("stem", "Conv2d", (1, 33, 31), (2, 16, 14))
    assert (stem.params, stem.macs, stem.groups) == (30, 30 * 16 * 14, 1)
    assert stem.window == Window((3, 5), (2, 2)) and stem.field == ReceptiveField((3, 5), (2, 2))
    assert (wide.field, narrow.field) == (ReceptiveField((11, 13), (4, 4)), ReceptiveField((3, 5), (4, 4)))
    assert (add.kind, add.params, add.macs, add.field) == ("add", 0, 0, wide.field)
    assert pool.entering == add.field and pool.field == ReceptiveField((19, 21), (8, 8))
    assert dilated.window.dilation == (2, 2) and dilated.groups == 2
    assert (cat.name, cat.out_shape, cat.field) == ("cat", (4, *dilated.out_shape[1:]), dilated.field)


class Gated(nn.Module):
    """A gate beside a map, then a classifier; one module twice, one never; a parameter without a module."""

    def __init__(self):
        super().__init__()
        self.conv, self.idle = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 3, 1), nn.Sigmoid())
        self.scale = nn.Parameter(torch.ones(3, 1, 1))
        self.logits = nn.Linear(48, 5)

    def forward(self, x):
        x = self.conv(self.conv(x))
        x = x * self.gate(x) * self.scale
        return self.logits(x.flatten(1))


def test_a_gate_has_seen_all_and_widens_no_field():
    found = {each.name: each for each in operations(Gated(), (3, 4, 4))}
    assert found["gate.1"].field.everywhere and found["gate.0"].window.kernel_size == (4, 4)
    assert found["mul"].field == ReceptiveField((5, 5), everywhere=True)
    assert found["mul_2"].params == 3
    assert found["logits"].window.kernel_size == (4, 4) and found["logits"].field.size == (8, 8)


def test_parameters_are_counted_once_and_what_is_idle_not_at_all():
    network = Gated()
    layers = operations(network, (3, 4, 4))
    params, macs = nas.count(network, (3, 4, 4))
    idle = sum(each.numel() for each in network.idle.parameters())
    assert (sum(each.params for each in layers), sum(each.macs for each in layers)) == (params - idle, macs)


def test_shares_of_an_adaptive_pool_are_its_largest_windows():
    pool = operations(nn.Sequential(nn.AdaptiveAvgPool2d((3, 4))), (1, 7, 8))[0]
    assert pool.window == Window((3, 2), (3, 2)) and not pool.field.everywhere


class Undecided(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("network", "said"),
    [(Undecided(), "network cannot be traced for its layers"), (nn.Sequential(nn.Conv2d(1, 1, 9)), "images of 1x4x4")],
)
def test_what_cannot_be_described_is_refused_in_a_line(network, said):
    with pytest.raises(ValueError, match=said) as refused:
        operations(network, (1, 4, 4))
    assert "\n" not in str(refused.value)

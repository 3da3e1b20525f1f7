import copy
import itertools
import json

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nas.cost import count
from nas.fusion import pad_once
from nas.networks.conv_modules import conv2d_from, linear_of
from nas.networks.fusing import fuse
from nas.networks.merging import (
    MergePlan,
    apply_merges,
    conv_macs,
    linear_runs,
    merge_plan_from_json,
    plan_merges,
)
from tests.helpers import randomise, relative_difference

pytestmark = pytest.mark.usefixtures("one_thread")

RANDOM = settings(max_examples=25, deadline=None, derandomize=True)
EXACT = 1e-9
SHAPE = (4, 30, 29)


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


def images(shape: tuple[int, int, int] = SHAPE) -> Tensor:
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def deployed(*layers: nn.Module) -> nn.Sequential:
    network = nn.Sequential(*layers).double().eval()
    randomise(network)
    return network


def padded_once(*convs: nn.Conv2d) -> list[nn.Module]:
    return [conv2d_from(conv) for conv in pad_once([linear_of(conv) for conv in convs])]


@st.composite
def runs(draw):
    """Three to five random convolutions, padded once up front; with an Identity here and there."""
    torch.manual_seed(draw(st.integers(0, 10**6)))
    convs, channels = [], SHAPE[0]
    for _ in range(draw(st.integers(3, 5))):
        width = draw(st.sampled_from([4, 8]))
        convs.append(
            nn.Conv2d(
                channels,
                width,
                draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
                draw(st.integers(1, 2)) if len(convs) < 2 else 1,
                draw(st.integers(0, 2)),
                draw(st.integers(1, 2)),
                draw(st.sampled_from([1, 2, 4])),
                draw(st.booleans()),
            )
        )
        channels = width
    layers: list[nn.Module] = []
    for conv in padded_once(*convs):
        layers += [conv, nn.Identity()] if draw(st.booleans()) else [conv]
    return deployed(*layers)


def segmentations(run: tuple[str, ...]) -> list[tuple[tuple[str, ...], ...]]:
    """Every way to cut a run into segments, whole ones of a single convolution included."""
    return [
        tuple(run[start:end] for start, end in itertools.pairwise((0, *cuts, len(run))))
        for times in range(len(run))
        for cuts in itertools.combinations(range(1, len(run)), times)
    ]


def plan_of(segments: tuple[tuple[str, ...], ...]) -> MergePlan:
    return MergePlan(tuple(segment for segment in segments if len(segment) > 1))


def convolutions(network: nn.Module) -> list[nn.Conv2d]:
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]


@torch.no_grad()
def assert_same(one: nn.Module, other: nn.Module, x: Tensor) -> None:
    """Everywhere, and on the borders by themselves."""
    expected, actual = one(x), other(x)
    assert relative_difference(expected, actual) < EXACT
    if expected.dim() == 4:
        for side, axis in itertools.product((0, -1), (-1, -2)):
            # A border may be all zero: a padded 1x1 without bias.
            scale = expected.select(axis, side).abs().max().clamp(min=1e-3)
            assert (expected - actual).select(axis, side).abs().max() < EXACT * scale


@RANDOM
@given(network=runs())
def test_every_segmentation_of_a_run_is_the_same_function(network):
    (run,) = linear_runs(network)
    assert len(run) == len(convolutions(network))
    before = copy.deepcopy(network.state_dict())
    for segments in segmentations(run):
        merged = apply_merges(network, plan_of(segments))
        assert len(convolutions(merged)) == len(segments) and len(list(merged.children())) == len(network)
        assert_same(network, merged, images())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


@RANDOM
@given(network=runs())
def test_a_plan_by_multiply_adds_never_raises_them_and_none_is_better(network):
    (run,) = linear_runs(network)
    plan = plan_merges(network, conv_macs, SHAPE)
    merged = apply_merges(network, plan)
    _, macs = count(merged, SHAPE)
    assert macs <= count(network, SHAPE)[1]
    assert macs == min(count(apply_merges(network, plan_of(cut)), SHAPE)[1] for cut in segmentations(run))
    assert_same(network, merged, images())


@RANDOM
@given(network=runs(), seed=st.integers(0, 10**6))
def test_a_plan_is_the_best_of_all_segmentations_under_any_cost(network, seed):
    calls: list[tuple[object, ...]] = []

    def cost(conv: nn.Conv2d, shape: tuple[int, int, int]) -> float:
        assert conv.weight.device.type == "cpu" and conv.weight.dtype == torch.float64 and not conv.training
        assert torch.isfinite(conv(torch.ones(1, *shape, dtype=torch.float64))).all()
        key = (*conv.weight.shape, conv.stride, conv.padding, conv.dilation, conv.groups, conv.bias is None, shape)
        calls.append(key)
        return float(torch.rand((), generator=torch.Generator().manual_seed(hash((seed, key)) % 2**32)))

    def total(network: nn.Module) -> float:
        shapes: dict[nn.Module, tuple[int, int, int]] = {}
        for conv in convolutions(network):
            conv.register_forward_pre_hook(lambda conv, inputs: shapes.update({conv: tuple(inputs[0].shape[1:])}))
        network(images())
        return sum(cost(conv, shape) for conv, shape in shapes.items())

    (run,) = linear_runs(network)
    plan = plan_merges(network, cost, SHAPE)
    assert len(calls) == len(set(calls))
    best = min(total(apply_merges(network, plan_of(cut))) for cut in segmentations(run))
    assert total(apply_merges(network, plan)) == pytest.approx(best, rel=1e-12)


def test_of_equal_costs_the_fewest_convolutions_win():
    network = deployed(*[nn.Conv2d(4, 4, 1) for _ in range(4)])
    assert plan_merges(network, lambda conv, shape: 0.0, SHAPE).segments == (("0", "1", "2", "3"),)
    assert plan_merges(network, lambda conv, shape: 1.0, SHAPE).segments == (("0", "1", "2", "3"),)
    assert plan_merges(network, conv_macs, SHAPE).segments == (("0", "1", "2", "3"),)


def pair(first: int, stride1: int, second: int, stride2: int, middle: int) -> nn.Sequential:
    one = nn.Conv2d(20, middle, first, stride1, first // 2)
    return nn.Sequential(*padded_once(one, nn.Conv2d(middle, 20, second, stride2, second // 2)))


@pytest.mark.parametrize(
    ("kinds", "threshold"),
    [((3, 1, 1, 1), 0.9), ((3, 1, 3, 1), 1.39), ((3, 1, 3, 2), 0.56), ((3, 2, 3, 1), 2.72)],
)
def test_two_convolutions_are_merged_above_the_known_width_of_their_middle(kinds, threshold):
    # Of 20 channels; large images, since the threshold leaves the border's few pixels out.
    above, below = round(threshold * 20 * 1.08 + 0.5), round(threshold * 20 * 0.92 - 0.5)
    for middle, merges in ((above, True), (below, False)):
        plan = plan_merges(pair(*kinds, middle), conv_macs, (20, 512, 512))
        assert bool(plan.segments) is merges


def test_padding_within_a_run_keeps_it_apart():
    network = deployed(nn.Conv2d(4, 16, 3, padding=1), nn.Conv2d(16, 4, 3, padding=1), nn.Conv2d(4, 4, 1))
    assert plan_merges(network, lambda conv, shape: 1.0, SHAPE).segments == (("1", "2"),)
    with pytest.raises(ValueError, match="0, 1: padding"):
        apply_merges(network, MergePlan((("0", "1"),)))


# What is no run


def conv(**how: object) -> nn.Conv2d:
    return nn.Conv2d(4, 4, 1, **how)  # type: ignore[arg-type]


class Wired(nn.Module):
    """Three convolutions, wired by name."""

    def __init__(self, wiring: str) -> None:
        super().__init__()
        self.wiring = wiring
        self.a, self.b, self.c = conv(), conv(), conv()

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        if self.wiring == "branch":
            return self.b(a) + self.c(a)
        if self.wiring == "residual":
            return a + self.c(self.b(a))
        if self.wiring == "twice":
            return self.c(self.b(self.b(a)))
        if self.wiring == "shape":
            return self.c(self.b(a).view(a.shape))
        if self.wiring == "weight":
            return self.c(self.b(a)) * self.b.weight.mean()
        if self.wiring == "function":
            return self.c(self.b(torch.relu(a)))
        return self.c(self.b(a))


@pytest.mark.parametrize(
    ("wiring", "expected"),
    [
        ("chain", (("a", "b", "c"),)),
        ("branch", ()),
        ("residual", (("b", "c"),)),
        ("twice", ()),
        ("shape", ()),
        ("weight", ()),
        ("function", (("b", "c"),)),
    ],
)
def test_runs_end_where_something_else_reads_what_lies_between(wiring, expected):
    network = Wired(wiring).double().eval()
    assert linear_runs(network) == expected
    plan = plan_merges(network, lambda conv, shape: 1.0, SHAPE)
    assert plan.segments == expected
    assert_same(network, apply_merges(network, plan), images())


def hooked() -> nn.Conv2d:
    module = conv()
    module.register_forward_hook(lambda module, inputs, output: output.relu())
    return module


class Standardized(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).relu()


@pytest.mark.parametrize(
    "between",
    [
        nn.ReLU(),
        nn.BatchNorm2d(4),
        nn.MaxPool2d(1),
        hooked(),
        Standardized(4, 4, 1),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 4, 2, padding="same"),
        nn.utils.parametrizations.weight_norm(conv()),
    ],
    ids=lambda module: type(module).__name__,
)
def test_nothing_is_merged_across_what_is_no_plain_convolution(between):
    network = deployed(conv(), between, conv(), nn.Identity(), conv())
    assert linear_runs(network) == (("2", "4"),)
    merged = apply_merges(network, plan_merges(network, conv_macs, SHAPE))
    assert len(merged) == 5 and isinstance(merged[4], nn.Identity)  # type: ignore[arg-type, index]
    assert_same(network, merged, images())


def test_a_convolution_registered_twice_is_in_no_run():
    network = Wired("chain").double().eval()
    network.alias = network.b
    assert linear_runs(network) == ()


def test_a_network_that_cannot_be_traced_says_why():
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ValueError, match=r"cannot be traced.*control flow"):
        plan_merges(Branching(), conv_macs, SHAPE)


def test_the_input_shape_is_the_network_s_own_if_none_is_given():
    network = deployed(conv(), conv())
    with pytest.raises(ValueError, match="input_shape"):
        plan_merges(network, conv_macs)
    network.input_shape = SHAPE  # type: ignore[assignment]
    assert plan_merges(network, conv_macs) == plan_merges(network, conv_macs, SHAPE)
    with pytest.raises(ValueError, match="does not fit"):
        plan_merges(network, conv_macs, (3, 8, 8))


def test_a_cost_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        plan_merges(deployed(conv(), conv()), lambda conv, shape: float("nan"), SHAPE)


@pytest.mark.parametrize(
    "segments",
    [(("0", "missing"),), (("0", "2"),), (("2", "0"),), (("2", "4"),), (("0", "1"),), (("0", "2", "3"),)],
)
def test_a_plan_for_another_network_is_refused(segments):
    network = deployed(conv(), nn.ReLU(), conv(), conv(), nn.ReLU())
    with pytest.raises(ValueError, match="not a linear run"):
        apply_merges(network, MergePlan(segments))
    assert apply_merges(network, MergePlan((("2", "3"),))) is not network


def test_an_empty_plan_is_a_copy():
    network = deployed(conv(), nn.ReLU())
    copied = apply_merges(network, MergePlan(()))
    assert copied is not network and copied[0].weight is not network[0].weight  # type: ignore[index]
    assert_same(network, copied, images())


def test_single_precision_is_composed_in_double():
    network = deployed(*padded_once(*[nn.Conv2d(4, 4, 3, padding=1) for _ in range(4)]))
    plan = MergePlan((("0", "1", "2", "3"),))
    single = copy.deepcopy(network).float()
    exact = apply_merges(copy.deepcopy(single).double(), plan)
    rounded = apply_merges(single, plan)
    assert all(torch.equal(a, b.float()) for a, b in zip(rounded.parameters(), exact.parameters(), strict=True))


def test_multiply_adds_are_those_of_the_counter():
    module = nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 2), groups=2)
    assert conv_macs(module, SHAPE) == count(module, SHAPE)[1]


# The plan as text


def test_a_plan_goes_to_json_and_back():
    for plan in (MergePlan(()), MergePlan((("a.0", "a.1"), ("b", "c", "d")))):
        assert merge_plan_from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "null",
        "[]",
        "{}",
        '{"segments": 3}',
        '{"segments": [3]}',
        '{"segments": ["ab"]}',
        '{"segments": [["a"]]}',
        '{"segments": [[]]}',
        '{"segments": [["a", 1]]}',
        '{"segments": [["a", "a"]]}',
        '{"segments": [["a", "b"], ["b", "c"]]}',
        '{"segments": [], "other": 1}',
        "[" * 100_000,
    ],
)
def test_other_text_is_no_plan(text):
    with pytest.raises(ValueError, match=r"merge|convolutions"):
        merge_plan_from_json(text)


@RANDOM
@given(
    text=st.recursive(st.none() | st.integers() | st.text(), lambda of: st.lists(of) | st.dictionaries(st.text(), of))
)
def test_any_json_is_a_plan_or_a_value_error(text):
    for value in (text, {"segments": text}):
        try:
            plan = merge_plan_from_json(json.dumps(value))
        except ValueError:
            continue
        assert merge_plan_from_json(plan.to_json()) == plan


def test_blocks_of_mobilenet_merge_where_a_projection_feeds_an_expansion():
    network = randomise(torchvision.models.mobilenet_v2(num_classes=10, width_mult=0.25).double())
    fused, shape = fuse(network), (3, 64, 64)
    runs = linear_runs(fused)
    # A block's projection has no activation; that of the last of a stage, without a residual, feeds the next alone.
    assert runs and all(len(run) == 2 and run[0].endswith(("conv.1", "conv.2")) for run in runs)
    fewest = apply_merges(fused, plan_merges(fused, lambda conv, entering: 1.0, shape))
    assert len(convolutions(fewest)) == len(convolutions(fused)) - len(runs)
    assert_same(fused, fewest, images(shape))
    cheapest = apply_merges(fused, plan_merges(fused, conv_macs, shape))
    assert count(cheapest, shape)[1] <= count(fused, shape)[1]
    assert_same(fused, cheapest, images(shape))

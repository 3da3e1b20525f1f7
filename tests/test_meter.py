"""What is measured for a job; mergers by latency, on latencies that are made up."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import nas
from nas.config import LatencyConfig
from nas.latency.meter import Meter, reading_of
from nas.networks.merging import MERGE_COSTS, MergePlan, apply_merges, linear_runs, merge_plan
from tests.helpers import reading, relative_difference
from tests.measuring import Scripted, measurement

pytestmark = pytest.mark.usefixtures("one_thread")
SHAPE = (3, 11, 9)
SEARCHED = settings(max_examples=20, deadline=None)


def chain(*widths_and_sizes, activation=False):
    """A run of convolutions without padding, a classifier behind it."""
    torch.manual_seed(0)
    layers, channels = [], SHAPE[0]
    for width, size in widths_and_sizes:
        layers += [nn.Conv2d(channels, width, size), *[nn.ReLU()] * activation]
        channels = width
    network = nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5)).eval()
    network.input_shape = SHAPE
    return network


NETWORK = chain((4, 3), (12, 1), (4, 3), (6, 1))


def structures(network):
    convs = (module for module in network.modules() if isinstance(module, nn.Conv2d))
    return tuple(tuple(conv.weight.shape) for conv in convs)


def meter_of(latency_ms, **more):
    asked = Scripted(latency_ms)
    return Meter(LatencyConfig(), SHAPE, "cpu", node=asked, **more), asked


def plans_of(network):
    """Every way to merge the network's one run."""
    (run,) = linear_runs(network)
    for cuts in itertools.product([False, True], repeat=len(run) - 1):
        segments = [[run[0]]]
        for name, cut in zip(run[1:], cuts, strict=True):
            segments = [*segments, [name]] if cut else [*segments[:-1], [*segments[-1], name]]
        yield MergePlan(tuple(tuple(segment) for segment in segments if len(segment) > 1))


def additive(prices, overhead):
    """Latencies that are sums: of each convolution by its structure, and of what every network takes."""

    def latency_ms(network):
        return overhead + sum(prices[structure] for structure in structures(network))

    return latency_ms


BY_PLAN = {plan: structures(apply_merges(NETWORK, plan)) for plan in plans_of(NETWORK)}
ALL_STRUCTURES = sorted({each for convs in BY_PLAN.values() for each in convs})
PLANS = {name: merge_plan(NETWORK, name) for name in MERGE_COSTS}
PRICES = st.lists(st.floats(0.01, 10), min_size=len(ALL_STRUCTURES), max_size=len(ALL_STRUCTURES))


@SEARCHED
@given(PRICES, st.floats(0.1, 5))
def test_where_latencies_add_up_no_plan_is_faster(values, overhead):
    prices = dict(zip(ALL_STRUCTURES, values, strict=True))
    meter, _ = meter_of(additive(prices, overhead))
    merged = meter.merged(NETWORK, "latency")
    best = min(sum(prices[each] for each in convs) for convs in BY_PLAN.values())
    assert merged.measurement.median_ms == pytest.approx(overhead + best)


@SEARCHED
@given(st.randoms(use_true_random=False))
def test_it_is_never_slower_than_any_other_way_whatever_the_numbers(random):
    known = {}

    def latency_ms(network):
        return known.setdefault(structures(network), random.uniform(0.1, 10))

    meter, _ = meter_of(latency_ms)
    merged = meter.merged(NETWORK, "latency")
    assert merged.measurement.median_ms == latency_ms(merged.network)
    for name in MERGE_COSTS:
        assert merged.measurement.median_ms <= known[BY_PLAN[PLANS[name]]]


@pytest.mark.parametrize("wanted", MERGE_COSTS)
def test_the_plan_with_the_least_latency_is_taken(wanted):
    plan = merge_plan(NETWORK, wanted)
    quick = structures(apply_merges(NETWORK, plan))
    meter, asked = meter_of(lambda network: 1.0 if structures(network) == quick else 2.0)
    merged = meter.merged(NETWORK, "latency")
    assert merged.plan == plan and structures(merged.network) == quick
    assert merged.measurement.median_ms == 1.0
    assert merged.network in asked.asked
    assert asked.calls[-1] >= len(set(PLANS.values())) > 1  # side by side


@torch.no_grad()
def test_what_is_merged_is_the_same_function():
    meter, _ = meter_of(lambda network: float(len(structures(network))))
    merged = meter.merged(NETWORK, "latency")
    assert len(structures(merged.network)) == 1 < len(structures(NETWORK)) == 4
    x = torch.randn(2, *SHAPE)
    assert relative_difference(NETWORK(x), merged.network(x)) < 1e-4


def test_a_structure_is_measured_once():
    meter, asked = meter_of(additive(dict.fromkeys(ALL_STRUCTURES, 1.0), 0.5))
    meter.merged(NETWORK, "latency")
    alone = [structures(each) for each, n in zip(asked.asked, asked.calls, strict=False) if n == 1]
    assert len(alone) == len(set(alone)) <= 1 + len(ALL_STRUCTURES)
    calls = len(asked.calls)
    meter.merged(NETWORK, "latency")
    assert asked.calls[calls:] == asked.calls[-1:]  # the whole networks alone, side by side
    assert asked.calls[-1] > 1


def test_what_has_no_run_is_measured_once_as_it_is():
    meter, asked = meter_of(lambda network: 1.0)
    network = chain((4, 3), (8, 3), activation=True)
    merged = meter.merged(network, "latency")
    assert merged.plan == MergePlan(()) and asked.calls == [1]
    assert merged.measurement.median_ms == 1.0


@pytest.mark.parametrize("merge", MERGE_COSTS)
def test_no_other_way_measures_anything(merge):
    meter, asked = meter_of(lambda network: 1.0)
    merged = meter.merged(NETWORK, merge)
    assert asked.calls == [] and merged.measurement is None
    assert merged.plan == merge_plan(NETWORK, merge)
    assert structures(merged.network) == structures(apply_merges(NETWORK, merged.plan))


def test_an_unknown_way_lists_the_known():
    with pytest.raises(ValueError, match=f"merge=magic is unknown; known: {', '.join(MERGE_COSTS)}"):
        meter_of(lambda network: 1.0)[0].merged(NETWORK, "magic")


def test_a_sampled_network_is_merged_by_latency_too():
    arch = nas.load_space("reducenet").sample(1)
    deployed = nas.build(arch, num_classes=5, input_shape=(1, 8, 8), form="deploy")
    asked = Scripted(lambda network: float(sum(p.numel() for p in network.parameters())))
    merged = Meter(LatencyConfig(), (1, 8, 8), "cpu", node=asked).merged(deployed, "latency")
    sizes = [
        sum(p.numel() for p in apply_merges(deployed, merge_plan(deployed, name)).parameters()) for name in MERGE_COSTS
    ]
    assert merged.measurement.median_ms <= min(sizes)


# --- one convolution


def test_a_convolutions_latency_is_what_it_adds_to_nothing():
    meter, asked = meter_of(lambda network: 0.75 if structures(network) else 0.5)
    conv = nn.Conv2d(3, 4, 3)
    assert meter.layer_ms(conv, SHAPE) == 0.25
    assert meter.layer_ms(nn.Conv2d(3, 4, 3), SHAPE) == 0.25
    assert asked.calls == [1, 1]
    assert len({id(each) for each in asked.asked}) == 2


@pytest.mark.parametrize(
    "other",
    [
        (nn.Conv2d(3, 4, 3, stride=2), SHAPE),
        (nn.Conv2d(3, 4, 3, padding=1), SHAPE),
        (nn.Conv2d(3, 4, 3, dilation=2), SHAPE),
        (nn.Conv2d(3, 3, 3, groups=3), SHAPE),
        (nn.Conv2d(3, 4, 3, bias=False), SHAPE),
        (nn.Conv2d(3, 4, (3, 1)), SHAPE),
        (nn.Conv2d(3, 4, 3), (3, 12, 9)),
    ],
    ids=str,
)
def test_other_structures_and_other_maps_are_measured_anew(other):
    meter, asked = meter_of(lambda network: 1.0)
    meter.layer_ms(nn.Conv2d(3, 4, 3), SHAPE)
    before = len(asked.calls)
    meter.layer_ms(*other)
    assert len(asked.calls) == before + 1


def test_noise_makes_no_latency_negative():
    meter, _ = meter_of(lambda network: 0.1 if structures(network) else 0.5)
    assert meter.layer_ms(nn.Conv2d(3, 4, 3), SHAPE) == 0.0


# --- whatever it measures


def test_a_meter_measures_as_it_is_configured():
    asked = Scripted(lambda network: 1.5)
    seen = []

    class Node(Scripted):
        def measure(self, variants, *, device):
            seen.append((variants, device))
            return asked.measure(variants, device=device)

    config = LatencyConfig(batch_size=4, threads=1, tolerance=0.5)
    meter = Meter(config, SHAPE, "cuda:1", node=Node(lambda network: 0.0))
    assert [each.median_ms for each in meter.measure(NETWORK, NETWORK)] == [1.5, 1.5]
    ((variants, device),) = seen
    assert [(each.network, each.config, each.input_shape) for each in variants] == [(NETWORK, config, SHAPE)] * 2
    assert device == "cuda:1"
    assert meter.instrument().device == "a machine with cuda:1"


def test_a_reading_keeps_what_a_run_needs_of_a_measurement():
    plan = MergePlan((("a", "b"),))
    read = reading_of(measurement(2.0, doubt="it drifts"), plan)
    assert read == reading(2.0, 0.0, doubt="it drifts", reference_ms=0.5, merges=(("a", "b"),))

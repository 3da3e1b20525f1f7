"""Runs of ReduceNet blocks: padded once, linear once faded, merged exactly in every segmentation."""

import dataclasses
import itertools
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import nas
from analysis.bench_train_forms import architecture, ridge, shrunk, trained
from nas.architecture import Architecture
from nas.blocks import Auxiliary, Basic, Classifier, Conv, Reduce, run_paddings
from nas.data import load_data
from nas.networks.builder import build
from nas.networks.fading import set_fading
from nas.networks.fusing import fuse
from nas.networks.merging import MergePlan, apply_merges, conv_macs, linear_runs, plan_merges
from nas.recipes import TrainConfig
from nas.space_file import load_space
from tests.helpers import randomise, relative_difference

pytestmark = pytest.mark.usefixtures("one_thread")
SHAPE = (3, 13, 18)


def chain(*blocks) -> Architecture:
    return Architecture(stem=(Conv(out_channels=6),), stages=(blocks,), head=(Classifier(),))


def faded(arch: Architecture, shape=SHAPE, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    network = build(arch, num_classes=5, input_shape=shape)
    randomise(network, seed)
    set_fading(network, 0)
    return network.double().eval()


def linear_blocks(*sizes_and_strides) -> list[Reduce]:
    """Blocks without survivors, but for the last."""
    blocks = [
        Reduce(out_channels=6 + i, kernel_size=k, stride=s, activation="none", bottleneck_width=2)
        for i, (k, s) in enumerate(sizes_and_strides)
    ]
    return [*blocks[:-1], dataclasses.replace(blocks[-1], activation="relu")]


def segmentations(names: tuple[str, ...]):
    """Every way to cut a run into consecutive segments, as merge plans."""
    for cuts in itertools.product([False, True], repeat=len(names) - 1):
        segments, current = [], [names[0]]
        for name, cut in zip(names[1:], cuts, strict=True):
            if cut:
                segments.append(current)
                current = []
            current = [*current, name]
        segments.append(current)
        yield MergePlan(tuple(tuple(segment) for segment in segments if len(segment) > 1))


RUNS = st.lists(st.tuples(st.sampled_from([1, 3, 5]), st.sampled_from([1, 1, 2])), min_size=2, max_size=4)


@settings(max_examples=12, deadline=None)
@given(RUNS, st.integers(0, 99))
@torch.no_grad()
def test_every_segmentation_of_a_run_is_the_train_form_borders_and_all(run, seed):
    arch = chain(*linear_blocks(*run))
    network = faded(arch, seed=seed)
    fused, x = fuse(network), torch.randn(2, *SHAPE, dtype=torch.float64)
    features = torch.nn.Sequential(*list(network.blocks)[:-1])
    (names,) = linear_runs(fused)
    assert len(names) == len(run)
    for plan in segmentations(names):
        merged = apply_merges(fused, plan)
        got = torch.nn.Sequential(*list(merged.blocks)[:-1])(x)
        assert relative_difference(features(x), got) < 1e-9
        assert sum(isinstance(m, torch.nn.Conv2d) for m in merged.modules()) == 1 + len(names) - sum(
            len(segment) - 1 for segment in plan.segments
        )


@pytest.mark.parametrize("seed", range(6))
def test_a_plan_by_macs_never_raises_macs(seed):
    arch = load_space("reducenet").sample(seed)
    for shape in ((1, 8, 8), (3, 32, 32)):
        deployed = build(arch, num_classes=5, input_shape=shape, form="deploy")
        plan = plan_merges(deployed, conv_macs)
        before, after = nas.count(deployed, shape)[1], nas.count(apply_merges(deployed, plan), shape)[1]
        assert after < before if plan.segments else after == before


def test_a_run_that_is_worth_it_is_merged_by_macs():
    # A narrow, strided end makes the wide middle's multiply-adds avoidable.
    wide = Reduce(out_channels=64, kernel_size=3, activation="none", bottleneck_width=1)
    narrow = Reduce(out_channels=4, kernel_size=1, stride=2, bottleneck_width=1)
    arch = chain(wide, narrow)
    deployed = build(arch, num_classes=5, input_shape=(3, 32, 32), form="deploy")
    plan = plan_merges(deployed, conv_macs)
    assert plan.segments == (("blocks.1.conv", "blocks.2.conv"),)
    assert nas.count(apply_merges(deployed, plan), (3, 32, 32))[1] < nas.count(deployed, (3, 32, 32))[1]


def test_only_a_run_is_padded_at_its_beginning():
    linear = Reduce(out_channels=8, activation="none")
    alive = Reduce(out_channels=8)
    blocks = [linear, dataclasses.replace(linear, stride=2), dataclasses.replace(alive, kernel_size=5), alive]
    assert run_paddings(blocks) == {0: 1 + 1 + 2 * 2, 1: 0, 2: 0, 3: 1}
    assert run_paddings([linear, Conv(out_channels=8), alive]) == {0: 1, 2: 1}
    assert run_paddings([linear, Basic(out_channels=8), linear]) == {0: 1, 2: 1}


@torch.no_grad()
def test_a_run_padded_block_by_block_would_differ_at_the_borders():
    """What padding once is for: the same weights, padded before each convolution, are another function there."""
    fused = fuse(faded(chain(*linear_blocks((3, 1), (3, 1)))))
    x = torch.randn(2, *SHAPE, dtype=torch.float64)
    first, second = fused.blocks[1].conv, fused.blocks[2].conv
    y = fused.blocks[0](x)
    once = second(first(y))
    first.padding, second.padding = (1, 1), (1, 1)
    each = second(first(y))
    inner = (..., slice(1, -1), slice(1, -1))
    assert relative_difference(once[inner], each[inner]) < 1e-12
    assert relative_difference(once, each) > 1e-3


@torch.no_grad()
def test_a_run_at_lam_0_is_affine_and_not_before():
    network = faded(chain(*linear_blocks((3, 1), (5, 2), (3, 1))))
    run = torch.nn.Sequential(network.blocks[1], network.blocks[2], network.blocks[3].conv)
    a, b = torch.randn(2, 4, 6, 9, 11, dtype=torch.float64)

    def defect() -> float:
        zero = torch.zeros_like(a)
        return (run(a) + run(b) - run(zero) - run(a + b)).abs().max().item() / run(a).abs().max().item()

    assert defect() < 1e-12
    set_fading(network, 0.3)
    assert defect() > 1e-3


def test_what_collapses_shares_its_deploy_id_with_the_convolution_that_it_becomes():
    reduce, conv = Reduce(out_channels=8, bottleneck_width=4), Conv(out_channels=8)
    assert chain(reduce).deploy_id == chain(conv).deploy_id != chain(conv, conv).deploy_id
    assert chain(reduce).deploy_id == chain(dataclasses.replace(conv, branches="dbb", branch_count=3)).deploy_id
    assert len({chain(each).arch_id for each in (reduce, conv, dataclasses.replace(conv, branches="dbb"))}) == 3
    linear = dataclasses.replace(reduce, activation="none")
    run, head = chain(linear, reduce), Auxiliary()
    assert chain(linear, head, reduce).deploy_id == run.deploy_id != chain(linear, head, reduce).arch_id
    # Padded once, a run is not the chain of the same convolutions.
    assert chain(linear, reduce).deploy_id != chain(dataclasses.replace(conv, activation="none"), conv).deploy_id


@pytest.mark.slow
def test_a_network_without_survivors_does_not_beat_the_linear_baseline_on_cifar_10():
    root = os.environ.get("NAS_DATA_ROOT")
    if not root or not (Path(root) / "images" / "cifar-10-batches-py").exists():
        pytest.skip("NAS_DATA_ROOT has no CIFAR-10")
    data = shrunk(load_data("cifar10", str(Path(root) / "images"), 0.1, 0), 4000, 4, 0)
    assert architecture("no_survivor_x4").blocks[-2].activation == "none"
    # One point of slack: both are estimates on 10,000 images.
    assert (
        trained("no_survivor_x4", data, TrainConfig(epochs=4), 0)[0].test_accuracy < ridge(data, 0).test_accuracy + 0.01
    )


@pytest.mark.parametrize("network", ["", "zoo/reducenet_20"])
def test_the_forms_of_the_benchmark_share_one_deployed_network(network):
    forms = ("plain", "linear_x4", "fading_x4", "repvgg", "kept_x4", "plain_distilled", "fading_x4_distilled")
    made = [architecture(form, network) for form in forms]
    assert len({arch.deploy_id for arch in made}) == 1
    assert len({arch.arch_id for arch in made}) == 4  # kept is fading that never ends, distilled the same network
    with pytest.raises(ValueError, match="no reduce blocks"):
        architecture("plain", "zoo/resnet20")
    with pytest.raises(ValueError, match=r"forms: 'plane' is unknown"):
        architecture("plane")

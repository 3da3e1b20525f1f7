"""The two forms side by side: published figures, and what became of what."""

import functools

import pytest
import torch

import nas
from nas.architecture import Architecture
from nas.blocks import Auxiliary, Classifier, Conv, InvertedResidual, Pool, Reduce, Separable
from nas.both_forms import both_forms, last_map, strides_dropped
from nas.forms_table import as_table
from nas.latency.table import NETWORK, layers_of
from nas.networks.fading import set_fading
from nas.networks.merging import MergePlan, apply_merges, merge_plan
from nas.networks.operations import operations
from nas.space_file import load_space, space_names
from tests.helpers import randomise

pytestmark = pytest.mark.usefixtures("one_thread")

# Receptive field at the last map, parameters and multiply-adds of the train form as published.
PUBLISHED = {
    "lenet5": (32, 61_706, 416_520),
    "alexnet": (195, 61_100_840, 714_188_480),
    "alexnet_2012": (195, 62_378_344, None),
    "vgg16": (212, 138_357_544, 15_470_264_320),
    "mobilenet_v1": (315, 4_231_976, None),
    "inception_v2": (699, None, None),
    "inception_v3": (1311, 27_161_264, 5_713_216_096),
    "resnet50": (427, 25_557_032, 4_089_184_256),
    "resnet101": (971, 44_549_160, 7_801_405_440),
    "resnet152": (1451, 60_192_808, 11_513_626_624),
}
SHAPE = (3, 32, 32)


def chain(*blocks, **head):
    return Architecture((), (blocks,), (Classifier(**head),))


def built(arch, form, shape=SHAPE, classes=10):
    with torch.device("meta"):
        return nas.build(arch, num_classes=classes, input_shape=shape, form=form)


@functools.cache
def of_zoo(name):
    space = load_space(f"zoo/{name}")
    shape = space.published["input_shape"]
    return both_forms(space.architecture({}), space.published["num_classes"], shape), shape


# ---------------------------------------------------------------- figures


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_see_and_cost_what_is_published(name):
    forms, _ = of_zoo(name)
    field, params, macs = PUBLISHED[name]
    assert last_map(forms.train).field.size == last_map(forms.deploy).field.size == (field, field)
    counted = sum(each.params for each in forms.train), sum(each.macs for each in forms.train)
    assert counted == (params or counted[0], macs or counted[1])


@pytest.mark.parametrize(
    ("name", "fields"),
    [("lenet5", [5, 6, 14, 16]), ("alexnet_2012", [11, 19, 51, 67, 99, 131, 163, 195])],
)
def test_every_layer_sees_what_is_published(name, fields):
    table = as_table(of_zoo(name)[0])
    for form in ("train", "deploy"):
        layers = table[table[f"{form}_type"].isin(["Conv2d", "MaxPool2d", "AvgPool2d"])]
        assert layers[f"{form}_receptive_field"].to_list()[: len(fields)] == fields


@pytest.mark.parametrize("name", ["lenet5", "mobilenet_v1"])
def test_a_layers_figures_follow_from_those_of_the_layer_before(name):
    table = as_table(of_zoo(name)[0])
    before = 1
    for row in table[table["deploy_layer"].notna()].to_dict("records"):
        kernel, stride = int(row["deploy_kernel"].split("x")[0]), int(row["deploy_stride"].split("x")[0])
        assert row["deploy_receptive_field"] == before + (kernel - 1) * row["deploy_jump"]
        assert row["deploy_effective_stride"] == row["deploy_jump"] * stride
        before = row["deploy_receptive_field"]


def test_a_fully_connected_layer_sees_the_whole_map_that_it_reads():
    forms, _ = of_zoo("vgg16")
    hidden = next(each for each in forms.deploy if each.kind == "Linear")
    assert hidden.window.kernel_size == (7, 7) and hidden.field.size == (404, 404)


def assert_counts(arch, shape=SHAPE):
    forms = both_forms(arch, 10, shape)
    for form, layers in (("train", forms.train), ("deploy", forms.deploy)):
        counted = sum(each.params for each in layers), sum(each.macs for each in layers)
        assert counted == nas.count(built(arch, form, shape), shape)
        ran = operations(built(arch, form, shape), shape)
        assert [each for each in layers if each.out_shape] == list(ran)
    return forms


def assert_aligned(forms):
    """Every layer is made of something, and those in one row read and write maps of one size."""
    assert {row.became for row in forms.rows if row.became} == {each.name for each in forms.deploy}
    for row in forms.rows:
        if row.train is not None and row.deploy is not None:
            assert row.became == row.deploy.name
            assert row.train.out_shape[1:] == row.deploy.out_shape[1:] and row.train.field == row.deploy.field


@pytest.mark.parametrize("name", space_names())
def test_samples_of_every_space_are_counted_and_aligned(name):
    assert_aligned(assert_counts(nas.load_space(name).sample(1)))


@pytest.mark.parametrize("name", ["googlenet", "mobileone_s0", "nin", "shufflenet_v2"])
def test_networks_of_the_zoo_are_counted_and_aligned(name):
    forms, shape = of_zoo(name)
    assert_aligned(forms)
    arch, classes = nas.load_architecture(name), load_space(f"zoo/{name}").published["num_classes"]
    for form, layers in (("train", forms.train), ("deploy", forms.deploy)):
        assert sum(each.params for each in layers) == nas.count(built(arch, form, shape, classes), shape)[0]


# ---------------------------------------------------------------- what became of what

FOLDED = [
    chain(Conv(out_channels=4), Reduce(out_channels=4, bottleneck_width=2), Reduce(out_channels=6, stride=2)),
    chain(Conv(out_channels=4, branches="dbb"), Conv(out_channels=4, branches="repvgg", branch_count=2)),
    chain(Separable(out_channels=4, branches="acnet"), InvertedResidual(out_channels=4, se_ratio=0.5)),
    chain(Conv(out_channels=4), Auxiliary(pool_size=1, channels=2, features=2), layer="conv", activation="none"),
]


@torch.no_grad()
def deployed_numbers(network):
    set_fading(network, 0)
    return nas.fuse(network).state_dict()


@pytest.mark.parametrize("arch", FOLDED, ids=["reduce", "branches", "separable", "classifier"])
@torch.no_grad()
def test_a_layers_numbers_are_in_the_layer_that_it_became_a_part_of(arch):
    torch.manual_seed(0)
    network = randomise(nas.build(arch, num_classes=3, input_shape=(3, 8, 8)))
    usual = deployed_numbers(network)
    for row in both_forms(arch, 3, (3, 8, 8)).rows:
        if row.train is None or not row.train.params:
            continue
        before = {name: value.clone() for name, value in network.state_dict().items()}
        for parameter in network.get_submodule(row.train.name).parameters():
            parameter.mul_(1.5)
        changed = {name for name, value in deployed_numbers(network).items() if not torch.equal(value, usual[name])}
        network.load_state_dict(before)
        assert {name.rpartition(".")[0] for name in changed} == ({row.became} if row.became else set())
        assert bool(row.became) == (row.block_name != "auxiliary")


@pytest.mark.parametrize("arch", FOLDED, ids=["reduce", "branches", "separable", "classifier"])
def test_the_deploy_form_is_the_fused_train_form(arch):
    network = nas.build(arch, num_classes=3, input_shape=(3, 8, 8))
    set_fading(network, 0)
    assert both_forms(arch, 3, (3, 8, 8)).deploy == list(operations(nas.fuse(network), (3, 8, 8)))


def test_what_is_there_only_while_training_is_gone():
    arch = chain(Conv(out_channels=4), Pool(dropout=0.5), InvertedResidual(out_channels=4, drop_path=0.2))
    gone = [row.train.kind for row in both_forms(arch, 10, SHAPE).rows if not row.became]
    assert gone == ["TrainOnlyDropout", "TrainOnlyStochasticDepth"]


@pytest.mark.parametrize("merge", ["all", "macs"])
def test_merged_convolutions_are_one_layer_which_sees_what_they_saw(merge):
    arch = chain(*[Reduce(out_channels=8, activation="none")] * 3, Conv(out_channels=8))
    plain, merged = both_forms(arch, 10, SHAPE), both_forms(arch, 10, SHAPE, merge)
    deployed = built(arch, "deploy")
    network = apply_merges(deployed, merge_plan(deployed, merge))
    assert (sum(each.params for each in merged.deploy), sum(each.macs for each in merged.deploy)) == nas.count(
        network, SHAPE
    )
    assert_aligned(merged)
    assert last_map(merged.deploy).field == last_map(plain.deploy).field
    if merge == "all":
        (whole,) = [each for each in merged.deploy if each.window.kernel_size == (7, 7)]
        parts = {row.became for row in merged.rows if row.block in (0, 1, 2) and row.train and row.train.params}
        assert parts == {whole.name}
        assert both_forms(arch, 10, SHAPE, merged.plan).rows == merged.rows


def test_a_merge_plan_of_another_network_is_refused():
    with pytest.raises(ValueError, match="not a linear run"):
        both_forms(chain(Conv(out_channels=8)), 10, SHAPE, MergePlan((("blocks.7.conv", "blocks.8.conv"),)))


# ---------------------------------------------------------------- latency, strides, memory


def test_shares_of_latency_are_those_of_the_table():
    arch = chain(*[Conv(out_channels=8)] * 3, Conv(out_channels=16, stride=2))
    layers = layers_of(built(arch, "deploy"), SHAPE)
    table = {NETWORK: 0.25} | {name: 0.5 * (i + 1) for i, name in enumerate(layers)}
    forms = both_forms(arch, 10, SHAPE, table=table)
    frame = as_table(forms)
    timed = frame[frame["latency_ms"].notna()]
    assert timed["deploy_type"].to_list() == ["Conv2d"] * 4 + ["Linear"]
    assert timed["latency_ms"].to_list() == [0.5, 1.0, 1.0, 1.5, 2.0] and forms.latency_ms == 6.25
    assert timed["latency_share"].sum() == pytest.approx(6 / 6.25)
    assert "latency_ms" not in as_table(both_forms(arch, 10, SHAPE))
    with pytest.raises(ValueError, match=r"latency\.table has no row 'linear 16-10'"):
        both_forms(arch, 10, SHAPE, table={name: 1.0 for name in table if not name.startswith("linear")})


def test_strides_that_small_images_drop_are_told():
    arch = nas.load_architecture("resnet50")
    assert strides_dropped(arch, (3, 224, 224)) == []
    dropped = strides_dropped(arch, (3, 32, 32))
    assert dropped and last_map(both_forms(arch, 10, (3, 32, 32)).deploy).field.jump == (8, 8)


def test_memory_is_that_of_the_merged_network():
    arch = chain(*[Reduce(out_channels=8, activation="none")] * 3)
    deployed = built(arch, "deploy")
    expected = nas.footprint(apply_merges(deployed, merge_plan(deployed, "all")), SHAPE)
    assert both_forms(arch, 10, SHAPE, "all").footprint == expected != both_forms(arch, 10, SHAPE).footprint


def test_the_table_is_there_from_python():
    arch = nas.load_architecture("lenet5")
    table = nas.layer_table(arch, num_classes=10, input_shape=(1, 32, 32))
    assert table["train_params"].sum() == 61_706 and table["deploy_macs"].sum() == 416_520
    with pytest.raises(ValueError, match="num_classes"):
        nas.layer_table(arch, num_classes=0, input_shape=(1, 32, 32))

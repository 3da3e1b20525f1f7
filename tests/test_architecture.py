import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.architecture import Architecture, architecture_from_dict, architecture_from_json
from nas.blocks import Basic, Block, Bottleneck, Classifier, Conv, InvertedResidual, Reduce
from nas.space_file import load_space, space_names

STEM = Conv(out_channels=8, stride=2)


def chain(*blocks: Block) -> Architecture:
    return Architecture(stem=(STEM,), stages=(blocks,), head=(Classifier(),))


def ids(arch: Architecture) -> tuple[str, str]:
    return arch.arch_id, arch.deploy_id


def strided(*strides: int) -> Architecture:
    return Architecture(stem=(), stages=(tuple(Conv(out_channels=4, stride=s) for s in strides),), head=(Classifier(),))


@pytest.mark.parametrize("name", space_names())
def test_json_round_trip_keeps_value_and_ids(name):
    space = load_space(name)
    for seed in range(10):
        arch = space.sample(seed)
        back = architecture_from_json(arch.to_json())
        assert back == arch and hash(back) == hash(arch)
        assert ids(back) == ids(arch)
        assert "\n" not in arch.to_json()


def test_json_states_its_schema_and_says_all_fields():
    words = json.loads(chain(Reduce(out_channels=8)).to_json())
    assert words["schema"] == 1
    assert words["stages"][0][0] == {
        "block": "reduce",
        "out_channels": 8,
        "kernel_size": 3,
        "stride": 1,
        "padding": "same",
        "bottleneck_width": 4.0,
        "fading_activation": "relu",
        "fade_share": 0.7,
        "residual": True,
        "activation": "relu",
        "norm_eps": 1e-5,
    }


def test_absent_fields_and_another_order_of_keys_mean_the_same():
    words = {
        "head": [{"block": "classifier"}],
        "stages": [],
        "stem": [{"out_channels": 8, "block": "conv"}],
        "schema": 1,
    }
    assert architecture_from_dict(words) == Architecture(stem=(Conv(out_channels=8),), stages=(), head=(Classifier(),))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Reduce(out_channels=8, bottleneck_width=2), Reduce(out_channels=8, bottleneck_width=4)),
        (Reduce(out_channels=8, fading_activation="relu"), Reduce(out_channels=8, fading_activation="gelu")),
        (Basic(out_channels=8, norm="batch"), Basic(out_channels=8, norm="none")),
    ],
)
def test_what_only_training_sees_changes_arch_id_and_not_deploy_id(one, other):
    assert chain(one).arch_id != chain(other).arch_id
    assert chain(one).deploy_id == chain(other).deploy_id


def test_dropout_changes_arch_id_and_not_deploy_id():
    plain = Architecture(stem=(STEM,), stages=(), head=(Classifier(),))
    dropping = Architecture(stem=(STEM,), stages=(), head=(Classifier(dropout=0.2),))
    assert plain.arch_id != dropping.arch_id
    assert plain.deploy_id == dropping.deploy_id


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Reduce(out_channels=8), Reduce(out_channels=16)),
        (Reduce(out_channels=8), Reduce(out_channels=8, activation="none")),
        (Reduce(out_channels=8), Reduce(out_channels=8, kernel_size=5)),
        (Reduce(out_channels=8), Conv(out_channels=8, groups=2)),
        (Basic(out_channels=8), Bottleneck(out_channels=8)),
        (Conv(out_channels=8), Conv(out_channels=8, stride=2)),
        (InvertedResidual(out_channels=8), InvertedResidual(out_channels=8, se_ratio=0.25)),
        (InvertedResidual(out_channels=8), InvertedResidual(out_channels=8, expansion=3)),
        (InvertedResidual(out_channels=8), InvertedResidual(out_channels=8, activation="relu")),
        (InvertedResidual(out_channels=8), InvertedResidual(out_channels=8, groups=2)),
    ],
)
def test_what_the_device_sees_changes_both_ids(one, other):
    assert chain(one).arch_id != chain(other).arch_id
    assert chain(one).deploy_id != chain(other).deploy_id


def test_the_order_and_the_number_of_blocks_change_the_ids():
    a, b = Conv(out_channels=8), Conv(out_channels=16)
    archs = [chain(a), chain(b), chain(a, b), chain(b, a), chain(a, a), chain(a, b, a)]
    assert len({arch.arch_id for arch in archs}) == len({arch.deploy_id for arch in archs}) == len(archs)


def test_stage_borders_do_not_count():
    a, b, c = Conv(out_channels=8), Basic(out_channels=16), Reduce(out_channels=16)
    versions = [
        Architecture(stem=(a,), stages=((b,), (c,)), head=(Classifier(),)),
        Architecture(stem=(a, b), stages=((c,),), head=(Classifier(),)),
        Architecture(stem=(), stages=((a, b, c), ()), head=(Classifier(),)),
        Architecture(stem=(), stages=(), head=(a, b, c, Classifier())),
    ]
    assert len(set(versions)) == 4
    assert len({ids(arch) for arch in versions}) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (InvertedResidual(out_channels=8, expansion=1.5), InvertedResidual(out_channels=8, expansion=1.52)),
        (
            InvertedResidual(out_channels=8, expansion=4, se_ratio=0.25),
            InvertedResidual(out_channels=8, expansion=4, se_ratio=0.26),
        ),
        (Basic(out_channels=16, expansion=0.5), Basic(out_channels=16, expansion=0.51)),
        (Bottleneck(out_channels=32, expansion=0.25), Bottleneck(out_channels=32, expansion=0.26)),
        (Reduce(out_channels=8, bottleneck_width=2), Reduce(out_channels=8, bottleneck_width=2.05)),
    ],
)
def test_ratios_that_give_equal_channel_counts_share_ids(one, other):
    assert one != other
    assert ids(chain(one)) == ids(chain(other))


def test_ratios_that_give_other_channel_counts_do_not():
    assert (
        chain(InvertedResidual(out_channels=8, expansion=1.5)).arch_id
        != chain(InvertedResidual(out_channels=8, expansion=1.6)).arch_id
    )


def test_close_ratios_of_a_first_block_stay_apart_since_data_decides_its_channels():
    def first(expansion: float) -> Architecture:
        block = InvertedResidual(out_channels=8, expansion=expansion)
        return Architecture(stem=(block,), stages=(), head=(Classifier(),))

    assert first(1.5).deploy_id != first(1.52).deploy_id


def test_four_and_four_point_zero_are_one_architecture():
    whole = chain(InvertedResidual(out_channels=8, expansion=4, stride=1))
    fraction = chain(InvertedResidual(out_channels=8.0, expansion=4.0, stride=1.0))
    assert whole == fraction
    assert whole.to_json() == fraction.to_json()
    assert ids(whole) == ids(fraction)
    read = architecture_from_json(whole.to_json().replace('"expansion": 4.0', '"expansion": 4'))
    assert ids(read) == ids(whole)


def test_an_architecture_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        chain().stem = ()


@pytest.mark.parametrize(
    "parts",
    [
        ((), (), ()),
        ((STEM,), ((STEM,),), (STEM,)),
        ((STEM,), (), (Classifier(), Classifier())),
        ((Classifier(),), (), (Classifier(),)),
        ((STEM,), ((Classifier(),),), (STEM,)),
    ],
)
def test_an_architecture_ends_with_its_one_classifier(parts):
    with pytest.raises(ValueError, match="classifier"):
        Architecture(*parts)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("{", ["not JSON"]),
        ("[" * 100_000, ["not JSON"]),
        ("[1]", ["mapping", "list"]),
        ("{}", ["schema", "None", "allowed: 1"]),
        ('{"schema": 2, "stem": [], "stages": [], "head": []}', ["schema: 2", "allowed: 1"]),
        ('{"schema": 1, "stem": [], "head": []}', ["stages", "stem", "head"]),
        ('{"schema": 1, "stem": {}, "stages": [], "head": []}', ["lists"]),
        ('{"schema": 1, "stem": [], "stages": [], "head": [], "tail": []}', ["tail"]),
        ('{"schema": 1, "stem": [], "stages": [{}], "head": []}', ["stages[0]", "{}"]),
        (
            '{"schema": 1, "stem": [], "stages": [[], [{"block": "conv", "out_channels": 8},'
            ' {"block": "basic", "out_channels": 8, "kernel_size": 4}]], "head": [{"block": "classifier"}]}',
            ["stages[1][1]", "basic.kernel_size", "4", "an odd integer in [1, 31]"],
        ),
        ('{"schema": 1, "stem": [7], "stages": [], "head": []}', ["stem[0]", "7"]),
        (
            '{"schema": 1, "stem": [], "stages": [], "head": [{"block": "softmax"}]}',
            ["head[0]", "softmax", "classifier"],
        ),
    ],
)
def test_bad_json_is_refused_with_the_place_in_it(text, parts):
    with pytest.raises(ValueError) as error:
        architecture_from_json(text)
    for part in parts:
        assert part in str(error.value)


def test_check_holds_groups_against_the_channels_that_arrive():
    arch = chain(Conv(out_channels=12), Basic(out_channels=16, groups=8))
    with pytest.raises(ValueError, match=r"basic\.groups: 8 .* 12 in and 16 out"):
        arch.check(3)
    chain(Conv(out_channels=24), Basic(out_channels=16, groups=8)).check(3)


@pytest.mark.parametrize(
    ("strides", "image", "kept"),
    [
        ((2, 2, 2, 2, 2), (224, 224), (2, 2, 2, 2, 2)),
        ((2, 2, 2, 2, 2), (32, 32), (1, 1, 2, 2, 2)),
        ((2, 1, 2, 1, 2, 2), (28, 28), (1, 1, 1, 1, 2, 2)),
        ((2, 2, 2, 2), (16, 16), (1, 1, 2, 2)),
        ((2, 2, 2, 2), (15, 15), (1, 1, 2, 2)),
        ((2, 2, 2, 2), (8, 8), (1, 1, 2, 2)),
        ((2, 2), (8, 200), (2, 2)),
        ((2, 2, 2), (200, 8), (1, 2, 2)),
        ((2, 2), (4, 4), (1, 2)),
        ((2, 2), (3, 3), (1, 1)),
        ((2, 1), (1, 1), (1, 1)),
        ((4, 2), (16, 16), (1, 2)),
        ((2, 4), (16, 16), (1, 4)),
    ],
)
def test_strides_are_dropped_earliest_first_until_the_last_map_is_large_enough(strides, image, kept):
    assert strided(*strides).strides((3, *image)) == (*kept, 1)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 4), max_size=7), st.integers(2, 300), st.integers(2, 300))
def test_strides_leave_the_smallest_map_that_is_large_enough(strides, height, width):
    kept = strided(*strides).strides((1, height, width))[:-1]
    smallest = 4 if min(height, width) >= 16 else 2

    def side_after(some: list[int]) -> float:
        side = float(min(height, width))
        for stride in some:
            side /= stride
        return side

    assert side_after(list(kept)) >= smallest or all(stride == 1 for stride in kept)
    dropped = [i for i, (wanted, got) in enumerate(zip(strides, kept, strict=True)) if wanted != got]
    assert all(kept[i] == 1 for i in dropped)
    striding = [i for i, stride in enumerate(strides) if stride > 1]
    assert dropped == striding[: len(dropped)]
    if dropped:
        one_more = list(kept)
        one_more[dropped[-1]] = strides[dropped[-1]]
        assert side_after(one_more) < smallest


def test_every_shipped_space_keeps_its_maps_above_the_stated_size():
    for name in space_names():
        for seed in range(5):
            arch = load_space(name).sample(seed)
            for side, smallest in ((8, 2), (28, 4), (32, 4), (224, 4)):
                for stride in arch.strides((3, side, side)):
                    side = -(-side // stride)
                assert side >= smallest

from pathlib import Path

import pytest

from nas.architecture import Architecture
from nas.blocks import Classifier, Conv, InvertedResidual
from nas.space_file import load_architecture, load_space, space_names, zoo_names
from tests.helpers import HEAD, space_of, write_space


def options(space, name: str) -> dict[str, tuple]:
    """Options of each setting of a stage, by its key."""
    stage = next(stage for stage in space.stages if stage.name == name)
    return {choice.key: choice.options for choice in stage.choices()}


def test_the_promised_spaces_come_with_the_package():
    assert {"mobile", "resnet", "reducenet", "tiny"} <= set(space_names())
    assert "mobilenet_v2" in zoo_names()


@pytest.mark.parametrize("name", [*space_names(), *(f"zoo/{name}" for name in zoo_names())])
def test_every_shipped_file_loads_and_tells_its_source(name):
    space = load_space(name)
    assert space.name == name.removeprefix("zoo/")
    assert space.description and space.source
    assert space.path.is_file()
    assert isinstance(space.sample(0), Architecture)


def test_what_the_shipped_spaces_vary():
    assert {"kernel_size", "expansion", "groups", "se_ratio", "depth", "out_channels"} <= varied("mobile")
    assert {"block", "depth", "out_channels", "bottleneck.groups", "basic.expansion"} <= varied("resnet")
    assert {"depth", "out_channels", "bottleneck_width", "activation"} <= varied("reducenet")


def varied(name: str) -> set[str]:
    return {choice.key for stage in load_space(name).stages for choice in stage.choices() if len(choice.options) > 1}


def test_a_file_by_its_path_absolute_relative_and_in_the_home_folder(tmp_path, monkeypatch):
    path = write_space(tmp_path, "stages: [{block: conv, out_channels: 8}]\n" + HEAD, "mine.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for way in (path, str(path), "mine.yaml", Path("mine.yaml"), "~/mine.yaml"):
        space = load_space(way)
        assert (space.name, space.path) == ("mine", path.resolve())


def test_ways_to_write_a_choice(tmp_path):
    space = space_of(
        tmp_path,
        """
choices:
  size: {from: 3, to: 7, step: 2}
stages:
  - block: conv
    depth: {from: 0, to: 2}
    out_channels: [8, 24]
    kernel_size: {shared: size}
    groups: {per_block: [1, 2]}
    activation: none
    norm: ~
"""
        + "stem: [{block: conv, out_channels: 8}]\n"
        + HEAD,
    )
    assert options(space, "stage1") == {
        "depth": (0, 1, 2),
        "block": ("conv",),
        "out_channels": (8, 24),
        "kernel_size": (3, 5, 7),
        "groups": (1, 2),
        "activation": ("none",),
        "norm": ("none",),
    }
    assert dict(space.shared) == {"size": (3, 5, 7)}
    assert {name for seed in range(30) for name in space.sample_choices(seed)} == {
        "size",
        "stage1.depth",
        "stage1.out_channels",
        "stage1.block1.groups",
        "stage1.block2.groups",
    }


def test_settings_under_a_block_name_go_before_those_of_the_stage(tmp_path):
    text = """
stages:
  - block: [basic, bottleneck]
    out_channels: 16
    activation: gelu
    bottleneck: {activation: silu, expansion: 0.5}
"""
    space = space_of(tmp_path, text + HEAD)
    blocks = {arch.blocks[0] for arch in map(space.architecture, space.enumerate())}
    assert {(block.name, block.activation, block.expansion) for block in blocks} == {
        ("basic", "gelu", 1.0),
        ("bottleneck", "silu", 0.5),
    }


def test_only_the_first_block_of_a_stage_has_its_stride(tmp_path):
    space = space_of(tmp_path, "stages: [{block: conv, depth: 3, out_channels: 8, stride: 2}]\n" + HEAD)
    assert [block.stride for block in space.sample(0).blocks[:-1]] == [2, 1, 1]


STAGE = "stages: [{block: conv, out_channels: 8, %s}]\n" + HEAD
BASIC = "stages: [{block: basic, out_channels: 8, %s}]\n" + HEAD
BAD = {
    "unknown top key": ("stagez: []\n" + HEAD, ["stagez: unknown key", "stages"]),
    "empty file": ("", ["mapping", "stages", "head"]),
    "a list": ("- stem\n", ["mapping", "stages", "head"]),
    "no head": ("stages: [{block: conv, out_channels: 8}]\n", ["head: []", "list of block templates"]),
    "stages no list": ("stages: {block: conv}\n" + HEAD, ["stages: {'block': 'conv'}", "list of block templates"]),
    "stem empty": ("stem:\n" + HEAD, ["stem: None", "list of block templates"]),
    "template no mapping": ("stages: [conv]\n" + HEAD, ["stages[0]: 'conv'", "'block'"]),
    "template without block": ("stages: [{depth: 2}]\n" + HEAD, ["stages[0]: {'depth': 2}", "'block'"]),
    "unknown block": (
        "stages: [{block: conv, out_channels: 8}, {block: convolution}]\n" + HEAD,
        ["stages[1].block: 'convolution'", "conv", "inverted_residual"],
    ),
    "unknown field": (STAGE % "kernal_size: 3", ["stages[0].kernal_size: unknown key", "kernel_size"]),
    "field of another block": (STAGE % "expansion: 3", ["stages[0].expansion: unknown key", "out_channels"]),
    "unknown field under a block's name": (
        "stages: [{block: [conv, basic], out_channels: 8, basic: {expansio: 1}}]\n" + HEAD,
        ["stages[0].basic.expansio: unknown key", "expansion"],
    ),
    "settings of a block that is none": (
        "stages: [{block: conv, out_channels: 8, conv: 3}]\n" + HEAD,
        ["stages[0].conv: 3", "mapping"],
    ),
    "settings of an absent block": (STAGE % "basic: {expansion: 1}", ["stages[0].basic: unknown key"]),
    "missing field": ("stem: [{block: conv}]\n" + HEAD, ["stem[0].out_channels: missing", "an integer in [1, 8192]"]),
    "even kernel": (BASIC % "kernel_size: 4", ["stages[0].kernel_size: 4", "an odd integer in [1, 31]"]),
    "one bad option": (BASIC % "kernel_size: [3, 4]", ["stages[0].kernel_size: 4", "an odd integer in [1, 31]"]),
    "word for a number": (STAGE % "stride: two", ["stages[0].stride: 'two'", "an integer in [1, 8]"]),
    "a boolean": (STAGE % "stride: yes", ["stages[0].stride: True", "an integer in [1, 8]"]),
    "not a number": (STAGE % "stride: .nan", ["stages[0].stride: nan", "an integer in [1, 8]"]),
    "infinite": (STAGE % "stride: .inf", ["stages[0].stride: inf", "an integer in [1, 8]"]),
    "a date": (STAGE % "stride: 2020-01-02", ["stages[0].stride: '2020-01-02'", "an integer in [1, 8]"]),
    "unknown word": (STAGE % "activation: rleu", ["stages[0].activation: 'rleu'", "relu", "gelu"]),
    "bad option under a block's name": (
        "stages: [{block: [conv, basic], out_channels: 8, basic: {expansion: [1, 99]}}]\n" + HEAD,
        ["stages[0].basic.expansion: 99", "a number in [0.125, 16]"],
    ),
    "empty list": (STAGE % "stride: []", ["stages[0].stride: []", "at least one"]),
    "nested list": (STAGE % "stride: [[1, 2]]", ["stages[0].stride: [[1, 2]]", "plain value"]),
    "option twice": (STAGE % "stride: [1, 2, 1.0]", ["stages[0].stride: [1, 2, 1]", "twice"]),
    "depth too large": (STAGE % "depth: 1000", ["stages[0].depth: 1000", "an integer in [0, 200]"]),
    "depth negative": (STAGE % "depth: [-1, 2]", ["stages[0].depth: -1", "an integer in [0, 200]"]),
    "depth per block": (STAGE % "depth: {per_block: [1, 2]}", ["stages[0].depth: per_block", "a list"]),
    "range backwards": (STAGE % "stride: {from: 3, to: 1}", ["stages[0].stride: {'from': 3, 'to': 1}", "{from: LOW"]),
    "range without end": (STAGE % "stride: {from: 3}", ["stages[0].stride: {'from': 3}", "{from: LOW"]),
    "range step of 0": (STAGE % "stride: {from: 1, to: 3, step: 0}", ["stages[0].stride: ", "{from: LOW"]),
    "range of fractions": (STAGE % "stride: {from: 1, to: 2.5}", ["stages[0].stride: ", "2.5", "{from: LOW"]),
    "range of a billion": (STAGE % "stride: {from: 1, to: 1000000000}", ["stages[0].stride: ", "{from: LOW"]),
    "range out of bounds": (STAGE % "stride: {from: 7, to: 9}", ["stages[0].stride: 9", "an integer in [1, 8]"]),
    "range with another key": (STAGE % "stride: {from: 1, to: 2, by: 1}", ["stages[0].stride: ", "'by'", "{from: LOW"]),
    "unknown kind of choice": (STAGE % "stride: {any: [1, 2]}", ["stages[0].stride: {'any': [1, 2]}", "{per_block:"]),
    "bad option per block": (
        BASIC % "kernel_size: {per_block: [3, 6]}",
        ["stages[0].kernel_size: 6", "an odd integer in [1, 31]"],
    ),
    "empty per block": (STAGE % "stride: {per_block: []}", ["stages[0].stride.per_block: []", "at least one"]),
    "unknown shared choice": (STAGE % "stride: {shared: step}", ["stages[0].stride: ", "'step' is unknown", "none"]),
    "choices no mapping": ("choices: [a]\n" + HEAD, ["choices: ['a']", "mapping"]),
    "empty shared choice": (
        "choices: {step: []}\n" + STAGE % "stride: {shared: step}",
        ["choices.step: []", "at least one"],
    ),
    "bad shared choice": (
        "choices: {step: [1, 9]}\n" + STAGE % "stride: {shared: step}",
        ["stages[0].stride: 9", "an integer in [1, 8]"],
    ),
    "unused shared choice": ("choices: {step: [1, 2]}\n" + HEAD, ["choices.step", "{shared: step}"]),
    "not YAML": ("stages: [\n", ["not YAML", "line"]),
    "deep YAML": ("[" * 5000, ["not YAML"]),
    "a tag": ("stages: !!python/object/apply:os.getcwd []\n" + HEAD, ["not YAML", "os.getcwd"]),
    "half a character": ('description: "\\ud800"\n' + HEAD, ["not YAML", "half a character"]),
    "no classifier": ("head: [{block: conv, out_channels: 8}]\n", ["head[0].block", "conv", "classifier"]),
    "classifier in the middle": (
        "stages: [{block: classifier}]\n" + HEAD,
        ["stages[0].block", "classifier"],
    ),
    "a classifier perhaps": ("head: [{block: classifier, depth: [0, 1]}]\n", ["head[0].depth", "[0, 1]"]),
    "groups that cannot divide the stem's channels": (
        "stem: [{block: conv, out_channels: 9}]\nstages: [{block: conv, out_channels: 8, groups: [1, 2]}]\n" + HEAD,
        ["stages[0]", "groups: 2", "divide", "9 in and 8 out"],
    ),
    "groups that divide only in the first block": (
        "stem: [{block: conv, out_channels: 8}]\n"
        "stages: [{block: inverted_residual, depth: 2, out_channels: 4, expansion: 1.5, groups: 4}]\n" + HEAD,
        ["stages[0]", "groups: 4", "divide", "4 in and 6 out"],
    ),
    "groups that do not divide what arrives when a stage is left out": (
        "stem: [{block: conv, out_channels: 6}]\n"
        "stages: [{block: conv, depth: [0, 1], out_channels: 8}, {block: conv, out_channels: 8, groups: 4}]\n" + HEAD,
        ["stages[1]", "groups: 4", "divide", "6 in and 8 out"],
    ),
    "groups that do not divide for one shared width": (
        "choices: {width: [8, 10]}\nstem: [{block: conv, out_channels: {shared: width}}]\n"
        "stages: [{block: conv, out_channels: {shared: width}, groups: [1, 4]}]\n" + HEAD,
        ["stages[0]", "groups: 4", "divide", "10 in and 10 out"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused_with_file_key_value_and_what_is_allowed(tmp_path, case):
    text, parts = BAD[case]
    path = write_space(tmp_path, text, "mine.yaml")
    with pytest.raises(ValueError) as error:
        load_space(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_shared_widths_and_groups_that_fit_together_are_accepted(tmp_path):
    text = """
choices: {width: [8, 12]}
stem: [{block: conv, out_channels: {shared: width}}]
stages: [{block: conv, depth: 2, out_channels: {shared: width}, groups: {shared: width}}]
"""
    space = space_of(tmp_path, text + HEAD)
    assert {space.sample(seed).blocks[2].groups for seed in range(20)} == {8, 12}


def test_an_empty_description_is_empty(tmp_path):
    assert space_of(tmp_path, "description:\n" + HEAD).description == ""


@pytest.mark.parametrize("name", ["mobil", "zoo/mobil", "", "nowhere/space.yaml"])
def test_an_unknown_space_is_refused_with_the_known_ones(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as error:
        load_space(name)
    assert str(error.value).startswith(f"space={name}: ")
    assert all(known in str(error.value) for known in ("mobile", "resnet", "reducenet", "tiny"))


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ValueError, match=r"mine\.yaml"):
        load_space(path)
    with pytest.raises(ValueError, match="space="):
        load_space(tmp_path)


ARCH = Architecture(stem=(Conv(out_channels=8),), stages=((InvertedResidual(out_channels=8),),), head=(Classifier(),))


def test_an_architecture_from_json_text_json_file_and_yaml_file(tmp_path):
    (tmp_path / "arch.json").write_text(ARCH.to_json())
    text = "stem: [{block: conv, out_channels: 8}]\nstages: [{block: inverted_residual, out_channels: 8}]\n" + HEAD
    for source in (
        ARCH.to_json(),
        "  " + ARCH.to_json(),
        tmp_path / "arch.json",
        str(tmp_path / "arch.json"),
        write_space(tmp_path, text),
    ):
        assert load_architecture(source) == ARCH


def test_an_architecture_from_the_zoo_under_both_names():
    arch = load_architecture("mobilenet_v2")
    assert load_architecture("zoo/mobilenet_v2") == arch
    assert len(arch.blocks) == 1 + 17 + 2


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("mobilenet", ["'mobilenet'", "mobilenet_v2"]),
        ("{not json", ["not JSON"]),
        ("nowhere.json", ["nowhere.json"]),
        ("nowhere.yaml", ["nowhere.yaml"]),
    ],
)
def test_an_architecture_that_cannot_be_found_is_refused(source, parts):
    with pytest.raises(ValueError) as error:
        load_architecture(source)
    for part in parts:
        assert part in str(error.value)


def test_a_json_file_that_holds_none_is_refused_with_its_path_and_the_place(tmp_path):
    path = tmp_path / "arch.json"
    path.write_text(ARCH.to_json().replace('"kernel_size": 3', '"kernel_size": 0', 1))
    with pytest.raises(ValueError, match=r"arch\.json: stem\[0\]: conv\.kernel_size: 0 is not allowed"):
        load_architecture(path)


def test_a_space_of_several_networks_is_no_architecture(tmp_path):
    path = write_space(tmp_path, "stages: [{block: conv, out_channels: [8, 16]}]\n" + HEAD)
    with pytest.raises(ValueError, match=r"space\.yaml: a space of 2 encodings"):
        load_architecture(path)


@pytest.mark.parametrize(
    "text",
    [
        "head: [{block: classifier, layer: conv, pool_size: 2}]\n",
        f"stages: [{{block: inception, branch2: 3, kernels2: [3x3, 1x3+3x1]}}]\n{HEAD}",
        f"stages: [{{block: inception, branch1: 8, stride: [1, 2], padding: 0}}]\n{HEAD}",
        f"stages: [{{block: inception, branch2: 8, kernels2: 5x5, stride: 2, padding: 0}}]\n{HEAD}",
        f"stages: [{{block: shuffle_v2, out_channels: [8, 9]}}]\n{HEAD}",
    ],
)
def test_a_space_with_a_network_that_cannot_be_is_refused(text, tmp_path):
    with pytest.raises(ValueError, match=r"is not allowed") as error:
        load_space(write_space(tmp_path, text))
    assert "space.yaml" in str(error.value) and "\n" not in str(error.value)

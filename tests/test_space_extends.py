"""`extends`: a space that is another file with changes; and the figures that a file states for its network."""

from pathlib import Path

import pytest
import yaml

from nas.architecture import Architecture
from nas.space import SearchSpace
from nas.space_file import load_architecture, load_space
from tests.helpers import HEAD, assert_refused, space_of, write_space

OPENED = """
extends: zoo/mobilenet_v2
description: MobileNetV2 with opened ranges.
choices: {width: [0.5, 1, 1.4]}
stem: {all: {out_channels: {shared: width, times: 32}}}
stages:
  all: {kernel_size: [3, 5], se_ratio: [0, 0.25]}
  2: {depth: [1, 2, 3]}
  3: {depth: {from: 1, to: 4}, kernel_size: null, expansion: [3, 6]}
head: {1: {out_channels: [640, 1280]}}
"""
BASE = """
description: The base.
source: somewhere
published: {params: 5}
choices: {act: [relu, gelu], mode: [0, 1, 2]}
stem: [{block: conv, out_channels: 8}]
stages:
  - {block: conv, depth: {given: mode, 0: 0, else: 1}, out_channels: 8, activation: {shared: act}}
  - {block: basic, out_channels: 16, kernel_size: {given: mode, 0: 3, 1: [3, 5], 2: 7}}
  - {block: [conv, basic], out_channels: 24, basic: {expansion: 0.5}}
"""


def extend(tmp_path: Path, text: str, base: str = BASE + HEAD) -> SearchSpace:
    write_space(tmp_path, base, "base.yaml")
    return space_of(tmp_path, "extends: base.yaml\n" + text)


def members(space: SearchSpace) -> set[Architecture]:
    return {space.architecture(choices) for choices in space.enumerate()}


def alone(tmp_path: Path, space: SearchSpace) -> SearchSpace:
    """The space that its text gives in a folder with nothing else in it."""
    folder = tmp_path / "run"
    folder.mkdir(exist_ok=True)
    return load_space(write_space(folder, space.text))


def test_opened_ranges_contain_the_network_itself(tmp_path):
    space = space_of(tmp_path, OPENED)
    network = load_architecture("mobilenet_v2")
    encoding = space.encode(network)
    assert encoding is not None and space.architecture(encoding) == network
    assert encoding["width"] == 1 and encoding["stage3.depth"] == 3
    one = 2 * 2  # kernels and squeeze-excitation
    assert space.size == 3 * one * (3 * one) * (4 * 2 * 2) * one**4 * 2
    assert space.description == "MobileNetV2 with opened ranges."
    assert "1801.04381" in space.source
    assert "stage1.expansion" not in space.sample_choices(0)


def test_the_text_loads_alone_and_is_the_same_space(tmp_path):
    space = space_of(tmp_path, OPENED)
    copied = alone(tmp_path, space)
    assert "extends" not in copied.text and copied.text == space.text
    assert (copied.shared, copied.stages, copied.size) == (space.shared, space.stages, space.size)
    assert (copied.description, copied.source) == (space.description, space.source)
    for seed in range(10):
        assert copied.architecture(space.sample_choices(seed)) == space.sample(seed)
    assert "&" not in space.text


@pytest.mark.parametrize(
    ("base", "choices", "blocks"),
    [("resnet", "block: [basic]", {"basic"}), ("nasbench_macro", "l0: [1, 2]", {"inverted_residual"})],
)
def test_a_narrowed_choice_rules_out_settings_of_blocks_that_can_no_longer_be(base, choices, blocks, tmp_path):
    space = space_of(tmp_path, f"extends: {base}\nchoices: {{{choices}}}\n")
    assert {block.name for block in space.sample(0).stages[0]} <= blocks
    assert set(next(stage for stage in space.stages if stage.part == "stages").settings) == blocks


def test_a_file_that_extends_nothing_keeps_its_text(tmp_path):
    text = "# a remark\n" + BASE + HEAD
    assert space_of(tmp_path, text).text == text


def test_nothing_changed_is_the_same_space(tmp_path):
    space = extend(tmp_path, "")
    base = load_space(tmp_path / "base.yaml")
    assert (space.shared, space.stages) == (base.shared, base.stages)
    assert (space.name, space.description, space.source) == ("space", "The base.", "somewhere")


def test_figures_belong_to_the_base_alone(tmp_path):
    assert extend(tmp_path, "").published == {}
    assert extend(tmp_path, "published: {macs: 7}").published == {"macs": 7}
    assert load_space(tmp_path / "base.yaml").published == {"params": 5}


def test_lists_replace_and_numbers_change(tmp_path):
    space = extend(
        tmp_path,
        """
source: here
choices: {act: null}
stem: [{block: conv, out_channels: [8, 16]}]
stages:
  1: {activation: silu}
  2: null
  all: {norm: none}
  3: {basic: {kernel_size: 5}}
""",
    )
    assert space.source == "here"
    words = yaml.safe_load(space.text)
    assert words["choices"] == {"mode": [0, 1, 2]}
    assert words["stem"] == [{"block": "conv", "out_channels": [8, 16]}]
    depth = {"given": "mode", 0: 0, "else": 1}
    assert words["stages"] == [
        {"block": "conv", "depth": depth, "out_channels": 8, "activation": "silu", "norm": "none"},
        {"block": ["conv", "basic"], "out_channels": 24, "basic": {"kernel_size": 5}, "norm": "none"},
    ]


def test_all_reaches_only_the_blocks_that_know_the_field(tmp_path):
    words = yaml.safe_load(extend(tmp_path, "stages: {all: {expansion: [1, 2], basic: {groups: 2}}}").text)
    assert ["expansion" in template for template in words["stages"]] == [False, True, False]
    assert [template.get("basic") for template in words["stages"]] == [None, {"groups": 2}, {"groups": 2}]


def test_all_reaches_the_blocks_that_the_numbers_put_there(tmp_path):
    text = """
choices: {kind: [reduce]}
stages:
  1: {block: reduce}
  2: {block: {shared: kind}}
  3: {block: {given: mode, 0: reduce, else: basic}}
  all: {bottleneck_width: 2, kernel_size: null}
"""
    words = yaml.safe_load(extend(tmp_path, text).text)
    assert ["bottleneck_width" in template for template in words["stages"]] == [True, True, False]
    assert "kernel_size" not in words["stages"][1]


def test_numbers_go_before_all(tmp_path):
    space = extend(tmp_path, "stages: {2: {out_channels: 40}, all: {out_channels: 32}}")
    assert {block.out_channels for arch in members(space) for block in arch.blocks[1:-1]} == {32, 40}


def test_a_choice_narrowed_drops_the_cases_that_are_gone(tmp_path):
    space = extend(tmp_path, "choices: {mode: [1, 2]}")
    assert "0:" not in space.text
    base = load_space(tmp_path / "base.yaml")
    assert members(space) == {base.architecture(c) for c in base.enumerate() if c["mode"] != 0}
    assert members(alone(tmp_path, space)) == members(space)


def test_a_choice_widened_needs_its_cases(tmp_path):
    with pytest.raises(ValueError, match=r"stages\[1\]\.kernel_size: there is no case for mode: 3"):
        extend(tmp_path, "choices: {mode: [0, 1, 2, 3]}")
    assert extend(tmp_path, "choices: {mode: [0, 1, 2, 3]}\nstages: {2: {kernel_size: 3}}").size == 2 * 4 * 2


def test_chains_of_extends_across_folders(tmp_path):
    folder = tmp_path / "deep"
    folder.mkdir()
    write_space(folder, BASE + HEAD, "base.yaml")
    write_space(folder, "extends: base.yaml\nstages: {1: null, 2: {kernel_size: 3}}\n" + NO_CHOICES, "middle.yaml")
    space = space_of(tmp_path, "extends: deep/middle.yaml\nstages: {1: {out_channels: 48}}\n")
    assert [[b.out_channels for b in arch.blocks[:-1]] for arch in members(space)] == [[8, 48, 24]] * 2
    assert members(alone(tmp_path, space)) == members(space)


NO_CHOICES = "choices: {act: null, mode: null}\n"


def test_circles_are_refused_with_the_chain(tmp_path):
    a = write_space(tmp_path, "extends: b.yaml\n", "a.yaml")
    b = write_space(tmp_path, "extends: c.yaml\n", "b.yaml")
    c = write_space(tmp_path, "extends: b.yaml\n", "c.yaml")
    with pytest.raises(ValueError) as error:
        load_space(a)
    assert str(error.value).startswith(f"{a}: extends: {b}: ")
    assert f"a circle is not allowed: {b} -> {c} -> {b}" in str(error.value)
    own = write_space(tmp_path, "extends: own.yaml\n", "own.yaml")
    with pytest.raises(ValueError, match="circle"):
        load_space(own)


BAD = {
    "unknown base": ("extends: bas.yaml\n", ["extends: 'bas.yaml'", "a file beside space.yaml", "mobile", "zoo/"]),
    "no name": ("extends: 3\n", ["extends: 3", "a file beside space.yaml"]),
    "nothing": ("extends:\n", ["extends: None"]),
    "unknown key": ("extends: base.yaml\nstagez: {}\n", ["stagez: unknown key", "extends", "stages"]),
    "unknown number": ("extends: base.yaml\nstages: {4: {depth: 2}}\n", ["stages.4: unknown", "1, 2, 3, all"]),
    "number 0": ("extends: base.yaml\nstages: {0: {depth: 2}}\n", ["stages.0: unknown", "1, 2, 3, all"]),
    "true for 1": ("extends: base.yaml\nstages: {true: {depth: 2}}\n", ["stages.True: unknown", "1, 2, 3, all"]),
    "unknown field": (
        "extends: base.yaml\nstages: {2: {expansio: 2}}\n",
        ["stages.2.expansio: unknown key", "expansion", "depth"],
    ),
    "a field that no block knows": (
        "extends: base.yaml\nstages: {all: {bottleneck_width: 2}}\n",
        ["stages.all.bottleneck_width: unknown key", "expansion", "out_channels"],
    ),
    "all removed": ("extends: base.yaml\nstages: {all: null}\n", ["stages.all: None", "a mapping of settings"]),
    "no mapping": ("extends: base.yaml\nstages: {1: 3}\n", ["stages.1: 3", "a mapping of settings", "null"]),
    "an unknown choice removed": ("extends: base.yaml\nchoices: {akt: null}\n", ["choices.akt: unknown", "act, mode"]),
    "a used choice removed": ("extends: base.yaml\nchoices: {act: null}\n", ["'act' is unknown", "mode"]),
    "a choice that is used no more": (
        "extends: base.yaml\nstages: {1: {activation: relu}}\n",
        ["choices.act: no stage refers to it"],
    ),
    "choices no mapping": ("extends: base.yaml\nchoices: [act]\n", ["choices: ['act']", "a mapping"]),
    "a bad value": ("extends: base.yaml\nstages: {2: {kernel_size: 4}}\n", ["stages[1].kernel_size: 4", "odd"]),
    "block removed": ("extends: base.yaml\nstages: {1: {block: null}}\n", ["stages[0]: ", "'block'"]),
    "stages without any": ("extends: base.yaml\nstages:\n", ["stages: None", "list of block templates"]),
    "a base that is not YAML": ("extends: broken.yaml\n", ["extends: ", "broken.yaml: not YAML"]),
    "a base with an unknown key": ("extends: odd.yaml\n", ["extends: ", "odd.yaml: stagez: unknown key"]),
    "a base without a list": ("extends: map.yaml\nstages: {1: {}}\n", ["stages: what is extended", "no list"]),
    "figures of another kind": (BASE.replace("params: 5", "parms: 5") + HEAD, ["published.parms: unknown", "macs"]),
    "figures no mapping": (BASE.replace("{params: 5}", "5") + HEAD, ["published: 5", "params"]),
    "a figure of 0": (BASE.replace("params: 5", "params: 0") + HEAD, ["published.params: 0", "above 0"]),
    "a bad shape": (
        BASE.replace("params: 5", "input_shape: [3, 32]") + HEAD,
        ["published.input_shape: [3, 32]", "[channels, height, width]"],
    ),
    "a note that is none": (BASE.replace("params: 5", "note: 5") + HEAD, ["published.note: 5", "words"]),
    "a space that holds itself": (
        "extends: base.yaml\nstages: &a [{block: *a}]\n",
        ["what holds itself"],
    ),
    "a change that holds itself": (
        "extends: base.yaml\nstages: &a {1: {block: *a}}\n",
        ["what holds itself"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused_in_one_line(tmp_path, case):
    text, parts = BAD[case]
    write_space(tmp_path, BASE + HEAD, "base.yaml")
    write_space(tmp_path, "stages: [\n", "broken.yaml")
    write_space(tmp_path, "stagez: []\n", "odd.yaml")
    write_space(tmp_path, "stages: {block: conv}\n" + HEAD, "map.yaml")
    path = write_space(tmp_path, text)
    assert_refused(path, parts)


def test_figures_of_a_network(tmp_path):
    figures = (
        "published: {params: 1, macs: 2, deploy_params: 3, deploy_macs: 4, input_shape: [3, 8, 8], "
        "num_classes: 10, note: as printed}\n"
    )
    assert space_of(tmp_path, figures + HEAD).published == {
        **{"params": 1, "macs": 2, "deploy_params": 3, "deploy_macs": 4},
        **{"input_shape": (3, 8, 8), "num_classes": 10, "note": "as printed"},
    }
    assert space_of(tmp_path, HEAD).published == {}

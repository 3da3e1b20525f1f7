"""Settings that a choice of the whole network decides: cases, multiples, and their checks when a file is read."""

import dataclasses
import time

import optuna
import pytest

from nas.architecture import Architecture
from nas.space import SearchSpace
from tests.helpers import HEAD, assert_refused, space_of, write_space

optuna.logging.set_verbosity(optuna.logging.ERROR)

LAYER = """
choices:
  l1: [0, 1, 2]
stem: [{block: conv, out_channels: 8}]
stages:
  - block: inverted_residual
    depth: {given: l1, 0: 0, else: 1}
    out_channels: 8
    kernel_size: {given: l1, 1: 3, 2: [5, 7]}
    expansion: {given: l1, 1: [3, 4], 2: 6}
"""
MIXED = """
choices:
  l0: [0, 1, 2]
  act: [relu, none]
stages:
  - block: {given: l0, 0: conv, else: inverted_residual}
    stride: 2
    out_channels: 64
    conv: {kernel_size: 1, activation: none}
    inverted_residual: {kernel_size: {given: l0, 1: 3, 2: 5}, activation: {shared: act}}
"""
RULES = """
choices:
  width: [0.5, 0.75, 1, 1.4]
  repeats: [1, 1.2, 2]
stem:
  - {block: conv, out_channels: {shared: width, times: 32}}
stages:
  - {block: basic, out_channels: {shared: width, times: 20, step: 4}, depth: {shared: repeats, times: 2, step: 1}}
  - {block: basic, out_channels: 24, kernel_size: {given: width, 1: [3, 5], else: 3}}
"""
SPACES = {"layer": LAYER, "mixed": MIXED, "rules": RULES}


@pytest.fixture(params=SPACES)
def space(request, tmp_path) -> SearchSpace:
    return space_of(tmp_path, SPACES[request.param] + HEAD)


def test_size_enumeration_and_encoding_agree(space):
    encodings = list(space.enumerate())
    assert space.size == len(encodings) == len({frozenset(choices.items()) for choices in encodings})
    for choices in encodings:
        arch = space.architecture(choices)
        again = space.encode(Architecture((), (), arch.blocks))
        assert again is not None and space.architecture(again).arch_id == arch.arch_id


def test_near_misses_are_outside(space):
    inside = {space.architecture(choices).blocks for choices in space.enumerate()}
    for blocks in inside:
        for i, block in enumerate(blocks[:-1]):
            for change in ({"kernel_size": 9}, {"out_channels": block.out_channels + 1}, {"activation": "gelu"}):
                near = (*blocks[:i], dataclasses.replace(block, **change), *blocks[i + 1 :])
                assert not space.contains(Architecture((), (), near))
            doubled = (*blocks[:i], block, *blocks[i:])
            assert space.contains(Architecture((), (), doubled)) == (doubled in inside)
            dropped = (*blocks[:i], *blocks[i + 1 :])
            assert space.contains(Architecture((), (), dropped)) == (dropped in inside)


def test_cases_of_one_choice_hold_together(tmp_path):
    space = space_of(tmp_path, LAYER + HEAD)
    arch = space.architecture({"l1": 1, "stage1.expansion.l1=1": 4})
    assert (arch.blocks[1].kernel_size, arch.blocks[1].expansion) == (3, 4)
    for change in ({"kernel_size": 5}, {"expansion": 6}):
        mixed = (arch.blocks[0], dataclasses.replace(arch.blocks[1], **change), arch.blocks[2])
        assert not space.contains(Architecture((), (), mixed))
    assert space.encode(Architecture((), (), (arch.blocks[0], arch.blocks[2]))) == {"l1": 0}


def test_a_choice_is_asked_for_only_in_its_case_and_under_its_own_name(tmp_path):
    space = space_of(tmp_path, LAYER + HEAD)
    made = {choices["l1"]: set(choices) for choices in space.enumerate()}
    assert made == {0: {"l1"}, 1: {"l1", "stage1.expansion.l1=1"}, 2: {"l1", "stage1.kernel_size.l1=2"}}
    with pytest.raises(ValueError, match=r"stage1\.kernel_size\.l1=2: 9 is not allowed.*\(5, 7\)"):
        space.architecture({"l1": 2, "stage1.kernel_size.l1=2": 9})


def test_a_name_for_every_kind_of_value_and_one_for_else(tmp_path):
    text = """
choices: {flag: [true, false], share: [0.5, 1], word: [a, b, c], only: [7]}
stages:
  - block: conv
    out_channels: {given: share, 0.5: [8, 16], else: 8}
    kernel_size: {given: flag, true: [3, 5], false: 3}
    groups: {given: word, a: 1, else: [1, 2]}
    activation: {given: only, 7: [relu, none]}
stem: [{block: conv, out_channels: 8}]
"""
    space = space_of(tmp_path, text + HEAD)
    names = {name for choices in space.enumerate() for name in choices}
    assert names == {
        *("flag", "share", "word"),
        "stage1.out_channels.share=0.5",
        "stage1.kernel_size.flag=true",
        "stage1.groups.word=else",
        "stage1.activation.only=7",
    }
    assert {space.sample_choices(seed)["flag"] for seed in range(20)} == {True, False}


def test_multiples_are_rounded_to_their_step(tmp_path):
    space = space_of(tmp_path, RULES + HEAD)
    found = {}
    for choices in space.enumerate():
        arch = space.architecture(choices)
        stem, first, depth = arch.blocks[0], arch.blocks[1], len(arch.stages[0])
        found[choices["width"]] = (stem.out_channels, first.out_channels)
        found[choices["width"], choices["repeats"]] = depth
    assert [found[width] for width in (0.5, 0.75, 1, 1.4)] == [(16, 12), (24, 16), (32, 20), (48, 28)]
    assert [found[1, repeats] for repeats in (1, 1.2, 2)] == [2, 3, 4]


def test_a_choice_may_be_a_value_here_and_decide_there(tmp_path):
    text = """
choices: {expansion: [1, 2]}
stages:
  - {block: basic, out_channels: 8, expansion: {shared: expansion}, kernel_size: {given: expansion, 1: 5, 2: 3}}
"""
    space = space_of(tmp_path, text + HEAD)
    assert space.shared == {"expansion": (1.0, 2.0)}
    trial = optuna.create_study().ask()
    space.suggest(trial)
    assert type(trial.params["expansion"]) is float
    assert {(b.expansion, b.kernel_size) for b in (space.sample(seed).blocks[0] for seed in range(20))} == {
        (1.0, 5),
        (2.0, 3),
    }


@pytest.mark.parametrize(
    "sampler",
    [
        optuna.samplers.RandomSampler(seed=1),
        optuna.samplers.TPESampler(seed=1, n_startup_trials=10, multivariate=True, group=True),
    ],
    ids=["random", "tpe"],
)
def test_a_study_searches_a_conditional_space(space, sampler):
    study = optuna.create_study(sampler=sampler)
    seen = set()
    for _ in range(50):
        trial = study.ask()
        arch = space.suggest(trial)
        assert space.contains(arch) and space.architecture(trial.params) == arch
        seen.add(arch)
        study.tell(trial, float(sum(getattr(block, "kernel_size", 0) for block in arch.blocks)))
    assert len(seen) > 2


# ---------------------------------------------------------------- quickness


def many_layers(count: int, common: str = "") -> str:
    names = [f"l{i}" for i in range(count)]
    layers = [
        f"  - {{block: inverted_residual, out_channels: 8, depth: {{given: {name}, 0: 0, else: 1}}, "
        f"kernel_size: {{given: {name}, 1: 3, 2: [5, 3]}}, expansion: 2{common}}}\n"
        for name in names
    ]
    return "".join([*(f"  {name}: [0, 1, 2]\n" for name in names), "stages:\n", *layers])


def test_a_space_of_many_independent_choices_is_quick(tmp_path):
    began = time.perf_counter()
    space = space_of(tmp_path, "choices:\n" + many_layers(20) + HEAD)
    assert space.size == 4**20
    arch = space.sample(3)
    assert space.contains(arch)
    block = next(block for block in arch.blocks if block.name == "inverted_residual")
    for near in ((block,) * 20, (dataclasses.replace(block, kernel_size=9),), (block,) * 21):
        assert space.contains(Architecture((), (near,), arch.head)) == (near == (block,) * 20)
    assert time.perf_counter() - began < 5


def test_one_choice_that_ties_many_others_together_is_quick(tmp_path):
    began = time.perf_counter()
    text = "choices:\n  act: [relu, none]\n" + many_layers(20, ", se_ratio: {given: act, relu: [0, 0.25], none: 0}")
    space = space_of(tmp_path, text + HEAD)
    assert space.size == (1 + 2 + 2 * 2) ** 20 + (1 + 1 + 2) ** 20
    assert space.contains(space.sample(1))
    assert time.perf_counter() - began < 5


def test_channels_that_many_choices_decide_are_checked_quickly_and_exactly(tmp_path):
    began = time.perf_counter()
    names = [f"c{i}" for i in range(16)]
    text = "choices:\n" + "".join(f"  {name}: [8, 12]\n" for name in names) + "stages:\n"
    text += "".join(
        f"  - {{block: conv, out_channels: {{shared: {each}}}, kernel_size: 1}}\n"
        f"  - {{block: conv, depth: 2, out_channels: {{shared: {each}}}, groups: {{shared: {each}}}}}\n"
        for each in names
    )
    assert space_of(tmp_path, text + HEAD).size == 2**16
    assert time.perf_counter() - began < 5


def test_blocks_that_add_channels_are_followed_through_200_of_them(tmp_path):
    text = """
stem: [{block: conv, out_channels: 16}]
stages:
  - {block: dense, depth: [%s], growth_rate: %s}
  - {block: conv, out_channels: 8, groups: 8}
"""
    began = time.perf_counter()
    space_of(tmp_path, text % ("2, 200", "[8, 12]") + HEAD)
    with pytest.raises(ValueError, match=r"stages\[1\].*groups: 8 .* 2404 in and 8 out"):
        space_of(tmp_path, text % ("2, 199, 200", "12") + HEAD)
    with pytest.raises(ValueError, match=r"stages\[1\].*groups: 8 "):
        space_of(tmp_path, text % ("2, 200", "{per_block: [8, 12, 16]}") + HEAD)
    assert time.perf_counter() - began < 10


def test_what_different_blocks_do_to_channels_is_not_mixed_up(tmp_path):
    text = """
stem: [{block: conv, out_channels: 8}]
stages:
  - {block: %s, depth: 2, conv: {out_channels: 10}, basic: {out_channels: 8, groups: 4}}
"""
    space_of(tmp_path, text % "[conv, basic]" + HEAD)
    with pytest.raises(ValueError, match=r"stages\[0\]: basic\.groups: 4 .* 10 in and 8 out"):
        space_of(tmp_path, text % "{per_block: [conv, basic]}" + HEAD)


def test_channels_are_checked_case_by_case(tmp_path):
    text = """
choices: {width: [8, 12, 9]}
stem: [{block: conv, out_channels: {shared: width}}]
stages: [{block: conv, out_channels: {shared: width}, groups: {given: width, 8: 8, 12: [6, 12], 9: %s}}]
"""
    space_of(tmp_path, text % "[3, 9]" + HEAD)
    with pytest.raises(ValueError, match=r"stages\[0\]: conv\.groups: 2 .* 9 in and 9 out"):
        space_of(tmp_path, text % "[3, 2]" + HEAD)


def test_a_block_for_training_only_leaves_channels_alone(tmp_path):
    text = """
choices: {extra: [true, false]}
stem: [{block: conv, out_channels: 8}]
stages:
  - {block: auxiliary, depth: {given: extra, true: 1, false: 0}}
  - {block: conv, out_channels: 8, groups: 8}
"""
    assert space_of(tmp_path, text + HEAD).size == 2


# ---------------------------------------------------------------- bad files

LAYERS = "choices: {l1: [0, 1, 2], act: [relu, none]}\nstages:\n  - {block: conv, out_channels: 8, %s}\n" + HEAD
USED = "activation: {shared: act}"
BAD = {
    "no case": (LAYERS % f"{USED}, kernel_size: {{given: l1, 0: 3, 1: 5}}", ["kernel_size", "no case for l1: 2"]),
    "no case for a depth": (LAYERS % f"{USED}, depth: {{given: l1, 1: 1, 2: 1}}", ["depth", "no case for l1: 0"]),
    "no case where another choice lets the block be": (
        LAYERS % "depth: {given: act, relu: 1, none: 0}, kernel_size: {given: l1, 0: 3, 1: 5}",
        ["stages[0].kernel_size", "no case for l1: 2", "else"],
    ),
    "no case for the block": (
        "choices: {l1: [0, 1]}\nstages: [{block: {given: l1, 1: conv}, out_channels: 8}]\n" + HEAD,
        ["stages[0].block", "no case for l1: 0"],
    ),
    "no case at all": (LAYERS % f"{USED}, kernel_size: {{given: l1}}", ["kernel_size", "has no case", "0, 1, 2, else"]),
    "no case under a block's name": (
        LAYERS % f"{USED}, conv: {{kernel_size: {{given: l1, 0: 3}}}}",
        ["stages[0].conv.kernel_size", "no case for l1: 1"],
    ),
    "unknown choice": (LAYERS % "kernel_size: {given: l2, 0: 3}", ["kernel_size", "'l2' is unknown", "l1, act"]),
    "a value that never is": (
        LAYERS % f"{USED}, kernel_size: {{given: l1, 3: 5, else: 3}}",
        ["stages[0].kernel_size", "l1 is never 3", "0, 1, 2, else"],
    ),
    "true for 1": (LAYERS % f"{USED}, kernel_size: {{given: l1, true: 5, else: 3}}", ["l1 is never True"]),
    "two cases": (
        LAYERS % f"{USED}, kernel_size: {{given: l1, 1: 5, 1.0: 5, else: 3}}",
        ["not YAML", "'1.0'", "twice"],
    ),
    "two cases of none": (
        LAYERS % "kernel_size: {given: l1, else: 3}, activation: {given: act, ~: relu, none: none, relu: relu}",
        ["stages[0].activation", "two cases for act: none"],
    ),
    "a bad case": (LAYERS % f"{USED}, stride: {{given: l1, 1: 9, else: 1}}", ["stages[0].stride.1: 9", "[1, 8]"]),
    "a bad else": (LAYERS % f"{USED}, stride: {{given: l1, 1: 1, else: 9}}", ["stages[0].stride.else: 9", "[1, 8]"]),
    "a case in a case": (
        LAYERS % f"{USED}, stride: {{given: l1, 1: {{given: l1, else: 1}}, else: 1}}",
        ["stages[0].stride.1: {'given'", "a value, a list or {from"],
    ),
    "per block in a case": (
        LAYERS % f"{USED}, stride: {{given: l1, 1: {{per_block: [1, 2]}}, else: 1}}",
        ["stages[0].stride.1: {'per_block'", "a value, a list or {from"],
    ),
    "a bad depth": (LAYERS % f"{USED}, depth: {{given: l1, 1: -1, else: 1}}", ["stages[0].depth.1: -1", "[0, 200]"]),
    "an unknown block": (
        "choices: {l1: [0, 1]}\nstages: [{block: {given: l1, 1: con, else: conv}, out_channels: 8}]\n" + HEAD,
        ["stages[0].block.1: 'con'", "conv"],
    ),
    "a setting of one block only": (
        "choices: {l1: [0, 1]}\nstages: [{block: {given: l1, 1: basic, else: conv}, out_channels: 8, expansion: 2}]\n"
        + HEAD,
        ["stages[0].expansion: unknown key", "settings of conv"],
    ),
    "a perhaps classifier": (
        "choices: {l1: [0, 1]}\nhead: [{block: {given: l1, 1: classifier, else: auxiliary}}]\n",
        ["head[0].block", "classifier"],
    ),
    "times a word": (LAYERS % "groups: {shared: act, times: 2}, kernel_size: {shared: l1}", ["act: 'relu'", "above 0"]),
    "times zero": (LAYERS % f"{USED}, groups: {{shared: l1, times: 2}}", ["groups: l1: 0 is not allowed", "above 0"]),
    "zero times": (
        "choices: {w: [1, 2]}\nstages: [{block: conv, out_channels: {shared: w, times: 0}}]\n" + HEAD,
        ["stages[0].out_channels: ", "'times': 0", "BASE a number above 0"],
    ),
    "a step of 0": (
        "choices: {w: [1, 2]}\nstages: [{block: conv, out_channels: {shared: w, times: 8, step: 0}}]\n" + HEAD,
        ["stages[0].out_channels: ", "'step': 0", "STEP a whole number"],
    ),
    "a step without times": (
        "choices: {w: [1, 2]}\nstages: [{block: conv, out_channels: {shared: w, step: 8}}]\n" + HEAD,
        ["stages[0].out_channels: ", "BASE a number above 0"],
    ),
    "a multiple out of range": (
        "choices: {w: [1, 900]}\nstages: [{block: conv, out_channels: {shared: w, times: 16}}]\n" + HEAD,
        ["stages[0].out_channels: 16 times 900: 14400", "[1, 8192]"],
    ),
    "another key beside shared": (
        "choices: {w: [1, 2]}\nstages: [{block: conv, out_channels: {shared: w, plus: 8}}]\n" + HEAD,
        ["stages[0].out_channels: ", "'plus'", "{shared: NAME, times: BASE, step: STEP}"],
    ),
    "an option twice": (
        "choices: {w: [1, 1.0]}\nstages: [{block: conv, out_channels: {given: w, 1: 8}}]\n" + HEAD,
        ["choices.w: [1, 1.0]", "twice"],
    ),
    "an option that is no number": (
        "choices: {w: [1, .nan]}\nstages: [{block: conv, out_channels: {given: w, else: 8}}]\n" + HEAD,
        ["choices.w: nan"],
    ),
    "an option with a slash": (
        "choices: {w: [a/b]}\nstages: [{block: conv, out_channels: {given: w, else: 8}}]\n" + HEAD,
        ["choices.w: 'a/b'", "without a slash"],
    ),
    "an unused choice": (LAYERS % USED, ["choices.l1", "no stage refers to it"]),
    "a choice given by another": (
        "choices: {a: [1, 2], b: {given: a, 1: 2}}\n" + HEAD,
        ["choices.b: {'given'", "a value, a list or {from"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused_in_one_line(tmp_path, case):
    text, parts = BAD[case]
    path = write_space(tmp_path, text)
    assert_refused(path, parts)

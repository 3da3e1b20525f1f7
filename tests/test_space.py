import dataclasses
import itertools
import random
from collections import Counter
from typing import Any

import numpy as np
import optuna
import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from nas.architecture import Architecture, architecture_from_json
from nas.blocks import BLOCK_SCHEMAS, Block, Classifier
from nas.space import SearchSpace
from nas.space_file import load_space, space_names
from tests.helpers import HEAD, space_of

optuna.logging.set_verbosity(optuna.logging.ERROR)

MIXED = """
choices:
  activation: [relu, gelu, none]
stem:
  - {block: conv, out_channels: [8, 16], activation: {shared: activation}}
stages:
  - block: [basic, bottleneck]
    depth: [0, 1, 2]
    stride: 2
    out_channels: [16, 32, 64]
    kernel_size: {per_block: [3, 5, 7]}
    activation: {shared: activation}
    bottleneck: {expansion: [0.25, 0.5], groups: {per_block: [1, 4]}}
  - block: {per_block: [conv, reduce]}
    depth: {from: 1, to: 2}
    out_channels: 16
    reduce: {bottleneck_width: {per_block: [1, 2]}}
head:
  - {block: classifier}
"""


# ---------------------------------------------------------------- small random spaces, and what they mean

CHANNELS = st.sampled_from(
    [
        *(8, 16, [8, 16], {"from": 8, "to": 24, "step": 8}, {"per_block": [8, 16]}),
        {"shared": "width", "times": 16},
        {"given": "mode", 0: 8, 2: [8, 24], "else": [16, 24]},
    ]
)
KERNELS = st.sampled_from(
    [3, [1, 3], {"per_block": [3, 5]}, {"shared": "kernel"}, {"given": "kernel", 3: 5, 5: [1, 3]}]
)
ACTIVATIONS = st.sampled_from(["relu", ["relu", "none"], {"per_block": ["relu", "gelu"]}, {"shared": "activation"}])
STRIDES = st.sampled_from([1, 2, [1, 2], {"per_block": [1, 2]}])
DEPTHS = st.sampled_from(
    [
        *(1, 2, 3, [0, 1], [0, 2], {"from": 0, "to": 2}, {"shared": "depth"}),
        {"given": "mode", 0: 0, 1: {"from": 0, "to": 2}, 2: 1},
        {"shared": "width", "times": 2, "step": 1},
    ]
)
BLOCKS = st.sampled_from(
    [
        "conv",
        "basic",
        ["basic", "conv"],
        ["inverted_residual", "basic", "reduce"],
        {"per_block": ["conv", "basic"]},
        {"per_block": ["reduce", "basic"]},
        {"shared": "block"},
        {"given": "mode", 1: "conv", "else": ["basic", "reduce"]},
    ]
)
OWN: dict[str, dict[str, list[Any]]] = {
    "conv": {"groups": [2, [1, 2], {"per_block": [1, 2]}], "stride": [[1, 2], {"per_block": [1, 2]}]},
    "basic": {"expansion": [0.5, [0.5, 1], {"per_block": [0.5, 1]}], "activation": ["relu", {"shared": "activation"}]},
    "inverted_residual": {"expansion": [1, [1, 2, 3], {"per_block": [1, 2]}], "se_ratio": [[0, 0.25]]},
    "reduce": {"bottleneck_width": [1, [1, 2], {"per_block": [1, 2]}], "activation": ["none", ["relu", "none"]]},
}
SHARED: dict[str, list[Any]] = {
    "kernel": [3, 5],
    "activation": ["none", "relu"],
    "depth": [0, 1, 2],
    "block": ["basic", "reduce"],
    "mode": [0, 1, 2],
    "width": [0.5, 1, 1.5],
}
# A layer that may be left out, as NAS-Bench-Macro has them: some cases only stand where a block does.
LAYERS: list[dict[str, Any]] = [
    {
        "block": "inverted_residual",
        "depth": {"given": "mode", 0: 0, "else": 1},
        "out_channels": 8,
        "kernel_size": {"given": "mode", 1: 3, 2: [3, 5]},
    },
    {
        "block": {"given": "mode", 1: "conv", 2: ["conv", "basic"]},
        "depth": {"given": "mode", 0: 0, 1: 1, 2: [1, 2]},
        "out_channels": {"shared": "width", "times": 16},
        "conv": {"kernel_size": {"given": "mode", 1: [1, 3], 2: 5}},
        "basic": {"kernel_size": {"given": "mode", 2: [3, 5]}, "expansion": {"per_block": [0.5, 1]}},
    },
]
LIMIT = 1500


def names_in(raw: Any) -> list[str]:
    if isinstance(raw, dict) and "given" in raw:
        return ["conv", "basic", "reduce"]
    if isinstance(raw, dict):
        return SHARED["block"] if "shared" in raw else raw["per_block"]
    return raw if isinstance(raw, list) else [raw]


@st.composite
def templates(draw: st.DrawFn) -> dict[str, Any]:
    if draw(st.integers(0, 4)) == 0:
        return draw(st.sampled_from(LAYERS))
    words: dict[str, Any] = {"block": draw(BLOCKS), "out_channels": draw(CHANNELS)}
    optional = {"depth": DEPTHS, "kernel_size": KERNELS, "activation": ACTIVATIONS, "stride": STRIDES}
    for key in draw(st.lists(st.sampled_from(sorted(optional)), unique=True)):
        words[key] = draw(optional[key])
    for name in names_in(words["block"]):
        own = {field: draw(st.sampled_from(values)) for field, values in OWN[name].items() if draw(st.booleans())}
        if own:
            words[name] = own
    return words


@st.composite
def space_words(draw: st.DrawFn) -> dict[str, Any]:
    stages = draw(st.lists(templates(), min_size=1, max_size=2))
    used = {word[key] for word in every_mapping(stages) for key in ("shared", "given") if key in word}
    return {
        "choices": {name: SHARED[name] for name in sorted(used)},
        "stem": [{"block": "conv", "out_channels": draw(st.sampled_from([8, [8, 16]]))}],
        "stages": stages,
        "head": [{"block": "classifier"}],
    }


def every_mapping(words: Any) -> list[dict[str, Any]]:
    if isinstance(words, list):
        return [mapping for word in words for mapping in every_mapping(word)]
    if isinstance(words, dict):
        return [words, *every_mapping(list(words.values()))]
    return []


def values_of(raw: Any, shared: dict[str, Any]) -> list[Any]:
    if isinstance(raw, dict):
        if "given" in raw:
            value = shared[raw["given"]]
            return values_of(raw[value] if value in raw else raw["else"], shared)
        if "shared" in raw:
            return [shared[raw["shared"]] * raw.get("times", 1)]
        if "per_block" in raw:
            return raw["per_block"]
        return list(range(raw["from"], raw["to"] + 1, raw.get("step", 1)))
    return raw if isinstance(raw, list) else [raw]


def is_per_block(raw: Any) -> bool:
    return isinstance(raw, dict) and "per_block" in raw


def chains_of(template: dict[str, Any], shared: dict[str, Any]) -> list[tuple[Block, ...]]:
    """What a template of a file means, each encoding once, read from the words of the file alone."""
    chains: list[tuple[Block, ...]] = []
    common = {key: raw for key, raw in template.items() if key not in ("block", "depth", *BLOCK_SCHEMAS)}
    for depth in map(int, values_of(template.get("depth", 1), shared)):
        if depth == 0:
            chains.append(())
            continue
        names = values_of(template["block"], shared)
        for chosen in (
            itertools.product(names, repeat=depth)
            if is_per_block(template["block"])
            else ((name,) * depth for name in names)
        ):
            slots: dict[tuple[Any, ...], list[Any]] = {}
            wanted: list[dict[str, tuple[Any, ...]]] = []
            for i, name in enumerate(chosen):
                given_ = {field: ("common", field, raw) for field, raw in common.items()}
                given_ |= {field: (name, field, raw) for field, raw in template.get(name, {}).items()}
                places = {}
                for field, (owner, _, raw) in given_.items():
                    if field == "stride" and i > 0:
                        continue
                    places[field] = (owner, field, i) if is_per_block(raw) else (owner, field)
                    slots[places[field]] = values_of(raw, shared)
                wanted.append(places)
            for values in itertools.product(*slots.values()):
                at = dict(zip(slots, values, strict=True))
                chains.append(
                    tuple(
                        BLOCK_SCHEMAS[name](**{field: at[place] for field, place in places.items()})
                        for name, places in zip(chosen, wanted, strict=True)
                    )
                )
    return chains


def meaning(words: dict[str, Any]) -> Counter[Architecture]:
    """Every architecture that a file describes, with the number of its encodings."""
    found: Counter[Architecture] = Counter()
    names = list(words.get("choices", {}))
    for values in itertools.product(*(words["choices"][name] for name in names)):
        shared = dict(zip(names, values, strict=True))
        stems = [chains_of(template, shared) for template in words.get("stem", [])]
        stages = [chains_of(template, shared) for template in words.get("stages", [])]
        ways = 1
        for chains in (*stems, *stages):
            ways *= len(chains)
        assume(ways <= LIMIT)
        for chosen in itertools.product(*stems, *stages):
            stem = tuple(itertools.chain(*chosen[: len(stems)]))
            found[Architecture(stem, chosen[len(stems) :], (Classifier(),))] += 1
    assume(found.total() <= LIMIT)
    return found


def space_in(tmp_path_factory: pytest.TempPathFactory, words: dict[str, Any]) -> SearchSpace:
    try:
        return space_of(tmp_path_factory.mktemp("space"), yaml.safe_dump(words))
    except ValueError as error:
        assume("no stage refers to it" not in str(error))  # settings under block names may hide the only reference
        raise


PROPERTY = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)


@PROPERTY
@given(words=space_words())
def test_a_space_is_what_its_file_describes(tmp_path_factory, words):
    expected = meaning(words)
    space = space_in(tmp_path_factory, words)
    encodings = list(space.enumerate())
    assert space.size == len(encodings) == expected.total()
    assert len({frozenset(choices.items()) for choices in encodings}) == len(encodings)
    assert Counter(map(space.architecture, encodings)) == expected
    assert space.count_distinct() == len({arch.arch_id for arch in expected})
    for seed in range(5):
        assert space.sample(seed) in expected


@PROPERTY
@given(words=space_words(), others=space_words())
def test_a_space_contains_its_members_and_nothing_else(tmp_path_factory, words, others):
    members = meaning(words)
    chains = {arch.blocks for arch in members}
    space = space_in(tmp_path_factory, words)
    for arch in random.Random(0).sample(sorted(members, key=repr), min(20, len(members))):
        encoding = space.encode(arch)
        assert encoding is not None
        assert space.architecture(encoding).blocks == arch.blocks
        assert space.contains(architecture_from_json(arch.to_json()))
        shuffled = Architecture(stem=(), stages=(), head=arch.blocks)
        assert space.contains(shuffled)
    strangers = space_in(tmp_path_factory, others)
    for seed in range(20):
        stranger = strangers.sample(seed)
        assert space.contains(stranger) == (stranger.blocks in chains)


# ---------------------------------------------------------------- sizes


def test_size_of_the_mixed_space_by_hand(tmp_path):
    space = space_of(tmp_path, MIXED)
    basic = 3 * (3 + 3**2)  # widths, then kernels of one or two blocks
    bottleneck = 3 * 2 * (3 * 2 + (3 * 2) ** 2)  # widths, expansions, then kernels and groups
    second = 3 + 3**2  # a conv, or a reduce of two widths
    assert space.size == 3 * 2 * (1 + basic + bottleneck) * second


def test_size_of_tiny_by_hand():
    tiny = load_space("tiny")
    assert tiny.size == 2 * 2 * (2 + 1 + 2)
    assert tiny.count_distinct() == 20
    assert tiny.count_distinct(limit=19) is None


def test_size_of_resnet_by_hand(tmp_path):
    space = space_of(
        tmp_path,
        """
stem: [{block: conv, out_channels: [16, 32]}]
stages:
  - block: [basic, bottleneck]
    depth: [1, 2, 3]
    out_channels: [16, 32]
    basic: {expansion: [0.5, 1]}
    bottleneck: {expansion: [0.25, 0.5, 1], groups: [1, 4]}
  - block: [basic, bottleneck]
    depth: [1, 2, 3]
    out_channels: [64, 96, 128]
    basic: {expansion: [0.5, 1], groups: [1, 4]}
    bottleneck: {expansion: [0.25, 0.5, 1], groups: [1, 4, 8]}
"""
        + HEAD,
    )
    assert space.size == 2 * (3 * 2 * (2 + 6)) * (3 * 3 * (4 + 9))


def test_a_file_without_choices_is_one_network():
    space = load_space("zoo/mobilenet_v2")
    assert space.size == 1
    assert list(space.enumerate()) == [{}]


def test_settings_of_a_skipped_stage_do_not_count(tmp_path):
    space = space_of(tmp_path, "stages: [{block: conv, depth: [0, 1], out_channels: [8, 16, 24]}]\n" + HEAD)
    assert space.size == 1 + 3


def test_distinct_architectures_are_fewer_than_encodings_where_ratios_coincide(tmp_path):
    space = space_of(tmp_path, "stages: [{block: basic, out_channels: 8, expansion: [0.5, 0.51, 1]}]\n" + HEAD)
    assert space.size == 3
    assert space.count_distinct() == 2


def test_size_counts_a_stage_choice_that_only_some_per_block_names_ask_for(tmp_path):
    space = space_of(
        tmp_path,
        """
stages:
  - block: {per_block: [basic, bottleneck]}
    depth: 2
    out_channels: 8
    activation: [relu, gelu]
    basic: {activation: relu}
"""
        + HEAD,
    )
    chains_with_a_bottleneck, chains_without = 3, 1
    assert space.size == len(list(space.enumerate())) == 2 * chains_with_a_bottleneck + chains_without


def test_a_shared_choice_named_like_a_stage_setting_stays_apart_from_it(tmp_path):
    text = """
choices: {stage1.depth: [8, 16]}
stages: [{block: conv, depth: [1, 2], out_channels: {shared: stage1.depth}}]
"""
    try:
        space = space_of(tmp_path, text + HEAD)
    except ValueError as error:
        assert "choices.stage1.depth" in str(error)
        return
    sampled = [space.sample(seed).blocks[:-1] for seed in range(40)]
    assert {len(blocks) for blocks in sampled} == {1, 2}
    assert {block.out_channels for blocks in sampled for block in blocks} == {8, 16}


# ---------------------------------------------------------------- sampling


@pytest.mark.parametrize("name", space_names())
def test_samples_are_seeded_for_every_kind_of_generator(name):
    space = load_space(name)
    assert [space.sample(seed) for seed in range(5)] == [space.sample(random.Random(seed)) for seed in range(5)]
    assert len({space.sample(seed) for seed in range(20)}) > 5
    for make in (random.Random, np.random.default_rng):
        rng, again, other = make(7), make(7), make(8)
        first = [space.sample(rng) for _ in range(10)]
        assert [space.sample(again) for _ in range(10)] == first
        assert [space.sample(other) for _ in range(10)] != first
        assert len(set(first)) > 3
    assert space.architecture(space.sample_choices(3)) == space.sample(3)


@pytest.mark.parametrize("name", space_names())
def test_sampling_leaves_the_global_generators_alone(name):
    random.seed(1)
    np.random.seed(1)
    states = random.getstate(), np.random.get_state()[1].tolist()
    load_space(name).sample(3)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states


@pytest.mark.parametrize("make", [random.Random, np.random.default_rng])
def test_samples_are_uniform_over_each_choice_that_they_meet(tmp_path, make):
    space = space_of(tmp_path, MIXED)
    rng = make(11)
    counts: dict[str, Counter[Any]] = {}
    draws = 4000
    for _ in range(draws):
        for name, value in space.sample_choices(rng).items():
            counts.setdefault(name, Counter())[value] += 1
    assert counts["activation"].total() == counts["stem1.out_channels"].total() == draws
    options = {
        "activation": {"relu", "gelu", "none"},
        "stem1.out_channels": {8, 16},
        "stage1.depth": {0, 1, 2},
        "stage1.block": {"basic", "bottleneck"},
        "stage1.out_channels": {16, 32, 64},
        "stage1.block1.kernel_size": {3, 5, 7},
        "stage1.block2.kernel_size": {3, 5, 7},
        "stage1.bottleneck.expansion": {0.25, 0.5},
        "stage1.block1.bottleneck.groups": {1, 4},
        "stage1.block2.bottleneck.groups": {1, 4},
        "stage2.depth": {1, 2},
        "stage2.block1.block": {"conv", "reduce"},
        "stage2.block2.block": {"conv", "reduce"},
        "stage2.block1.reduce.bottleneck_width": {1.0, 2.0},
        "stage2.block2.reduce.bottleneck_width": {1.0, 2.0},
    }
    assert {name: set(found) for name, found in counts.items()} == options
    for found in counts.values():
        share = found.total() / len(found)
        five_sigma = 5 * (share * (1 - 1 / len(found))) ** 0.5
        assert all(abs(number - share) < five_sigma for number in found.values())


# ---------------------------------------------------------------- contains and encode


@pytest.mark.parametrize("name", space_names())
def test_a_shipped_space_contains_its_samples_after_a_round_trip_and_whatever_the_borders(name):
    space = load_space(name)
    for seed in range(10):
        arch = space.sample(seed)
        assert space.contains(arch)
        assert space.contains(architecture_from_json(arch.to_json()))
        one_stage = Architecture(stem=(), stages=(arch.blocks[:-1],), head=arch.blocks[-1:])
        assert space.contains(one_stage)
        encoding = space.encode(arch)
        assert encoding is not None and space.architecture(encoding).blocks == arch.blocks


@pytest.mark.parametrize("name", space_names())
def test_a_shipped_space_contains_no_neighbour_from_outside(name):
    space = load_space(name)
    for seed in range(5):
        arch = space.sample(seed)
        blocks = arch.blocks
        last = blocks[-2]
        values = {"kernel_size": 9, "out_channels": 8191, "branch1": 8191, "activation": "silu", "stride": 3}
        changed = [
            dataclasses.replace(last, **{field: value}) for field, value in values.items() if hasattr(last, field)
        ]
        assert len(changed) > 1
        for other in (
            *((*blocks[:-2], each, blocks[-1]) for each in changed),
            (*blocks[:-1], dataclasses.replace(blocks[-1], dropout=0.7)),
            (*blocks[:-1], *[last] * 9, blocks[-1]),
            # VGG's first stage may begin with one convolution as well as with two equal ones.
            *([blocks[1:]] if blocks[0] != blocks[1] else []),
            blocks[-1:],
        ):
            assert not space.contains(Architecture(stem=(), stages=(), head=other))


def test_one_shipped_space_does_not_contain_another_ones_samples():
    spaces = [load_space(name) for name in space_names()]
    for space, other in itertools.permutations(spaces, 2):
        assert not any(space.contains(other.sample(seed)) for seed in range(5))


CONTAINS = """
choices: {act: [relu, gelu]}
stages:
  - {block: conv, depth: 2, out_channels: [8, 16], stride: 2, activation: {shared: act}}
  - {block: conv, depth: [0, 1], out_channels: 8, kernel_size: {per_block: [1, 3]}, activation: {shared: act}}
"""


@pytest.mark.parametrize(
    ("blocks", "inside"),
    [
        ([(8, 3, 2, "relu"), (8, 3, 1, "relu")], True),
        ([(16, 3, 2, "gelu"), (16, 3, 1, "gelu")], True),
        ([(16, 3, 2, "gelu"), (16, 3, 1, "gelu"), (8, 1, 1, "gelu")], True),
        ([(16, 3, 2, "relu"), (8, 3, 1, "relu")], False),
        ([(8, 3, 2, "relu"), (8, 3, 1, "gelu")], False),
        ([(8, 3, 2, "relu"), (8, 3, 1, "relu"), (8, 1, 1, "gelu")], False),
        ([(8, 3, 2, "relu"), (8, 3, 2, "relu")], False),
        ([(8, 3, 1, "relu"), (8, 3, 1, "relu")], False),
        ([(8, 3, 2, "relu")], False),
        ([(8, 3, 2, "relu"), (8, 3, 1, "relu"), (8, 5, 1, "relu")], False),
        ([(8, 3, 2, "relu"), (8, 3, 1, "relu"), (16, 3, 1, "relu")], False),
        ([(8, 3, 2, "none"), (8, 3, 1, "none")], False),
    ],
)
def test_choices_of_a_stage_and_of_the_network_hold_together(tmp_path, blocks, inside):
    conv = BLOCK_SCHEMAS["conv"]
    stage = tuple(conv(out_channels=c, kernel_size=k, stride=s, activation=a) for c, k, s, a in blocks)
    arch = Architecture(stem=(), stages=(stage,), head=(Classifier(),))
    assert space_of(tmp_path, CONTAINS + HEAD).contains(arch) is inside


def test_two_divisions_into_stages_are_both_tried(tmp_path):
    text = """
stages:
  - {block: conv, depth: [1, 2], out_channels: 8}
  - {block: conv, depth: [1, 2], out_channels: 8, kernel_size: {per_block: [3, 5]}}
"""
    conv = BLOCK_SCHEMAS["conv"]
    space = space_of(tmp_path, text + HEAD)
    inside = [(3, 3), (3, 3, 5), (3, 5, 5), (3, 3, 5, 3)]
    outside = [(5, 3), (3, 5, 5, 5), (3, 3, 3, 3, 3)]
    for kernels in inside + outside:
        stage = tuple(conv(out_channels=8, kernel_size=size) for size in kernels)
        assert space.contains(Architecture((), (stage,), (Classifier(),))) is (kernels in inside)


def test_recorded_choices_that_do_not_fit_are_refused(tmp_path):
    space = space_of(tmp_path, MIXED)
    choices = space.sample_choices(1)
    with pytest.raises(ValueError, match=r"activation: 'silu' is not allowed in space 'space'.*relu.*gelu"):
        space.architecture({**choices, "activation": "silu"})
    with pytest.raises(ValueError, match=r"stage2\.depth: None is not allowed.*1, 2"):
        space.architecture({name: value for name, value in choices.items() if name != "stage2.depth"})


# ---------------------------------------------------------------- Optuna


def expected_parameters(params: dict[str, Any]) -> set[str]:
    """Which choices of MIXED exist once depths and blocks are chosen, written down by hand."""
    names = {"activation", "stem1.out_channels", "stage1.depth", "stage2.depth"}
    if params["stage1.depth"] > 0:
        names |= {"stage1.block", "stage1.out_channels"}
        if params["stage1.block"] == "bottleneck":
            names.add("stage1.bottleneck.expansion")
    for i in range(1, params["stage1.depth"] + 1):
        names.add(f"stage1.block{i}.kernel_size")
        if params["stage1.block"] == "bottleneck":
            names.add(f"stage1.block{i}.bottleneck.groups")
    for i in range(1, params["stage2.depth"] + 1):
        names.add(f"stage2.block{i}.block")
        if params[f"stage2.block{i}.block"] == "reduce":
            names.add(f"stage2.block{i}.reduce.bottleneck_width")
    return names


@pytest.mark.parametrize(
    "sampler", [optuna.samplers.TPESampler(seed=0, n_startup_trials=5), optuna.samplers.RandomSampler(seed=0)]
)
def test_a_study_is_asked_only_for_choices_that_exist(tmp_path, sampler):
    space = space_of(tmp_path, MIXED)
    study = optuna.create_study(sampler=sampler)
    depths = set()
    for _ in range(25):
        trial = study.ask()
        arch = space.suggest(trial)
        assert set(trial.params) == expected_parameters(trial.params)
        assert space.contains(arch)
        assert space.architecture(trial.params) == arch
        depths.add((trial.params["stage1.depth"], trial.params["stage2.depth"]))
        study.tell(trial, float(len(arch.blocks)))
    assert len(depths) > 2
    assert all("/" not in name for trial in study.trials for name in trial.params)


@pytest.mark.parametrize("name", space_names())
def test_a_fixed_trial_gets_the_architecture_of_its_choices(name):
    space = load_space(name)
    for seed in range(5):
        choices = space.sample_choices(seed)
        trial = optuna.trial.FixedTrial({**choices, "stage99.depth": 3})
        assert space.suggest(trial) == space.architecture(choices)
        assert trial.params == choices
        for missing in choices:
            rest = {key: value for key, value in choices.items() if key != missing}
            with pytest.raises(ValueError, match=missing):
                space.suggest(optuna.trial.FixedTrial(rest))


def test_steps_are_offered_as_ordered_integers_and_the_rest_as_categories(tmp_path):
    text = """
stages:
  - {block: conv, out_channels: {from: 8, to: 32, step: 8}, kernel_size: [3, 5, 9], activation: [relu, none]}
  - {block: basic, out_channels: [32, 16], expansion: [1, 2]}
"""
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    space_of(tmp_path, text + HEAD).suggest(trial)
    categorical, integers = optuna.distributions.CategoricalDistribution, optuna.distributions.IntDistribution
    assert trial.distributions == {
        "stage1.out_channels": integers(8, 32, step=8),
        "stage1.kernel_size": categorical((3, 5, 9)),
        "stage1.activation": categorical(("relu", "none")),
        "stage2.out_channels": categorical((32, 16)),
        "stage2.expansion": categorical((1.0, 2.0)),
    }


def test_every_option_can_be_suggested(tmp_path):
    space = space_of(tmp_path, "stages: [{block: conv, depth: [1, 2], out_channels: [8, 16, 24]}]\n" + HEAD)
    study = optuna.create_study(sampler=optuna.samplers.BruteForceSampler(seed=0))
    found = set()
    study.optimize(lambda trial: len(found.add(space.suggest(trial)) or found), n_trials=50)
    assert len(study.trials) == 6
    assert found == {space.architecture(choices) for choices in space.enumerate()}

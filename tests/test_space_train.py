"""The `train` section of a search space: settings of the training, searched with the architecture or fixed for it."""

import json
from typing import Any

import hypothesis.strategies as st
import pytest
import yaml
from hypothesis import given, settings

from nas.architecture import Architecture, architecture_from_dict, architecture_from_json
from nas.block_fields import FieldRule
from nas.blocks import Classifier, Conv
from nas.config import SearchConfig
from nas.recipes import NEVER_A_CHOICE, NOT_OF_A_SPACE, TrainOverrides, make_recipe, train_rules
from nas.space_file import load_architecture, load_space
from nas.space_words import zoo_names
from nas.tune import feasibility
from nas.tune.plan import make_plan
from tests.helpers import HEAD, assert_refused, space_of, write_space
from tests.searching import small_search

STEM = "stem: [{block: conv, out_channels: [8, 16]}]\n"
BODY = STEM + HEAD
RULES = train_rules()


def values_of(name: str) -> st.SearchStrategy[Any]:
    """Values that a setting may have."""
    rule: FieldRule = RULES[name]
    if rule.kind is bool:
        return st.booleans()
    if rule.kind is str:
        return st.sampled_from(rule.options)
    if rule.kind is int:
        return st.integers(int(rule.low), min(int(rule.high), 1000))
    above = name in ("learning_rate", "temperature")
    return st.floats(rule.low, rule.high, exclude_min=above).map(lambda value: value + 0.0)  # no -0.0


@st.composite
def sections(draw: st.DrawFn, most: int = 3) -> dict[str, list[Any]]:
    """Some settings, each with one or more options."""
    names = draw(st.lists(st.sampled_from(sorted(RULES)), max_size=4, unique=True))
    sizes = {name: 1 if name in NEVER_A_CHOICE else most for name in names}
    return {name: draw(st.lists(values_of(name), min_size=1, max_size=sizes[name], unique=True)) for name in names}


@settings(max_examples=60, deadline=None)
@given(section=sections(), seed=st.integers(0, 2**32))
def test_a_sample_reads_back_and_is_in_its_space(tmp_path_factory, section, seed):
    folder = tmp_path_factory.mktemp("space")
    space = space_of(folder, BODY + yaml.safe_dump({"train": section}))
    arch = space.sample(seed)
    assert dict(arch.train).keys() == section.keys()
    assert all(value in section[name] for name, value in arch.train)
    assert architecture_from_json(arch.to_json()) == arch
    choices = space.encode(arch)
    assert choices is not None and space.contains(arch)
    assert {name for name in choices if name.startswith("train.")} == {
        f"train.{name}" for name, options in section.items() if len(options) > 1
    }
    assert space.architecture(choices) == arch == space.architecture(json.loads(json.dumps(choices)))


@settings(max_examples=60, deadline=None)
@given(first=sections(most=1), second=sections(most=1))
def test_settings_of_the_training_are_in_one_id_only(first, second):
    one, other = (
        Architecture((Conv(out_channels=8),), (), (Classifier(),), tuple((name, each[0]) for name, each in s.items()))
        for s in (first, second)
    )
    assert one.deploy_id == other.deploy_id
    assert (one.arch_id == other.arch_id) == (one.train == other.train)


def test_ids_without_settings_are_what_they_always_were():
    arch = load_architecture("resnet20")
    assert (arch.arch_id, arch.deploy_id) == ("6c2840c17cd3", "1cd9e2fcdc20")
    assert "train" not in arch.to_dict()
    lenet = load_architecture("lenet5")
    assert (lenet.arch_id != "0ef99ceb3c7e", lenet.deploy_id) == (True, "973dda1d5e80")


@settings(max_examples=30, deadline=None)
@given(section=sections())
def test_as_many_encodings_as_can_be_enumerated(tmp_path_factory, section):
    space = space_of(tmp_path_factory.mktemp("space"), BODY + yaml.safe_dump({"train": section}))
    every = list(space.enumerate())
    assert len(every) == space.size == space.count_distinct()
    assert len({json.dumps(choices, sort_keys=True) for choices in every}) == space.size


def test_a_range_is_offered_as_numbers_in_order_and_a_list_as_it_stands(tmp_path):
    import optuna

    text = BODY + "train: {randaugment: {from: 0, to: 9, step: 3}, learning_rate: [0.01, 0.003], weight_decay: 0.05}"
    space = space_of(tmp_path, text)
    assert space.train == {"randaugment": (0, 3, 6, 9), "learning_rate": (0.01, 0.003), "weight_decay": (0.05,)}
    trial = optuna.create_study().ask()
    arch = space.suggest(trial)
    assert dict(arch.train)["weight_decay"] == 0.05
    assert set(trial.params) == {"stem1.out_channels", "train.randaugment", "train.learning_rate"}
    assert trial.distributions["train.randaugment"] == optuna.distributions.IntDistribution(0, 9, step=3)
    assert [name for name, _ in arch.train] == ["learning_rate", "randaugment", "weight_decay"]


@pytest.mark.parametrize(
    ("section", "parts"),
    [
        ("{learning_rat: 1}", ["train.learning_rat: not a setting of a space; known: ", "learning_rate"]),
        *((f"{{{name}: x}}", [f"train.{name}: not a setting of a space"]) for name in NOT_OF_A_SPACE),
        ("{1: 1}", ["train.1: "]),
        ("{epochs: [5, 10]}", ["train.epochs: [5, 10] is not allowed; allowed: one value"]),
        ("{epochs: {from: 5, to: 10}}", ["train.epochs: [5, 6, "]),
        ("{epochs: 0}", ["train.epochs: 0 is not allowed; allowed: an integer in [1, "]),
        ("{epochs: 1.5}", ["train.epochs: 1.5"]),
        ("{learning_rate: 0}", ["train.learning_rate=0.0 is not allowed; allowed: above 0"]),
        ("{learning_rate: [0.1, 0]}", ["train.learning_rate=0.0 is not allowed; allowed: above 0"]),
        ("{temperature: 0}", ["train.temperature=0.0"]),
        ("{learning_rate: 101}", ["train.learning_rate: 101 is not allowed; allowed: a number in [0, 100]"]),
        ("{learning_rate: .nan}", ["train.learning_rate: nan"]),
        ("{learning_rate: fast}", ["train.learning_rate: 'fast'"]),
        ("{learning_rate: true}", ["train.learning_rate: True"]),
        ("{learning_rate: [0.1, 0.10]}", ["train.learning_rate", "twice"]),
        ("{learning_rate: []}", ["train.learning_rate: []"]),
        ("{learning_rate: [[0.1]]}", ["train.learning_rate: [[0.1]]"]),
        ("{learning_rate: {per_block: [0.1, 0.2]}}", ["train.learning_rate", "per_block", "allowed: a value, a list"]),
        ("{learning_rate: {shared: width}}", ["train.learning_rate", "shared"]),
        ("{learning_rate: {given: width, 1: 0.1}}", ["train.learning_rate", "given"]),
        ("{flip: null}", ["train.flip: None is not allowed; allowed: true or false"]),
        ("{shift: null}", ["train.shift: None is not allowed"]),
        ("{optimizer: adam}", ["train.optimizer: 'adam' is not allowed; allowed: one of adamw, sgd"]),
        ("{augment: 1}", ["train.augment: 1 is not allowed; allowed: true or false"]),
        ("[learning_rate]", ["train: ['learning_rate'] is not allowed; allowed: a mapping"]),
    ],
)
def test_bad_sections_are_refused(tmp_path, section, parts):
    assert_refused(write_space(tmp_path, BODY + f"train: {section}\n"), parts)


@pytest.mark.parametrize(
    ("train", "parts"),
    [
        ([["learning_rate", 0.1]], ["train: [[", "a mapping"]),
        ({"learning_rate": 0}, ["train.learning_rate=0.0", "above 0"]),
        ({"learning_rate": None}, ["train.learning_rate: None"]),
        ({"learning_rate": [0.1]}, ["train.learning_rate: [0.1]"]),
        ({"teacher": "x"}, ["train.teacher"]),
        ({"epochs": 0}, ["train.epochs: 0", "allowed"]),
    ],
)
def test_bad_settings_of_an_architecture_are_refused(train, parts):
    words = {**Architecture((), (), (Classifier(),)).to_dict(), "train": train}
    with pytest.raises(ValueError) as error:
        architecture_from_dict(words)
    assert all(part in str(error.value) for part in parts)


def test_an_architecture_has_each_setting_once_in_its_own_type():
    train = (("weight_decay", 0), ("learning_rate", 1))
    arch = Architecture((), (), (Classifier(),), train)
    assert arch.train == (("learning_rate", 1.0), ("weight_decay", 0.0))
    assert [type(value) for _, value in arch.train] == [float, float]
    with pytest.raises(ValueError, match="twice"):
        Architecture((), (), (Classifier(),), (("weight_decay", 0), ("weight_decay", 0)))


def test_an_empty_section_is_none(tmp_path):
    plain = load_space(write_space(tmp_path, BODY))
    empty = load_space(write_space(tmp_path, BODY + "train:\n", "empty.yaml"))
    assert empty.train == plain.train == {}
    assert empty.sample(1) == plain.sample(1)


def test_a_space_holds_its_settings_and_no_others(tmp_path):
    space = space_of(tmp_path, BODY + "train: {weight_decay: 0.05, epochs: 3}")
    arch = space.sample(0)
    without = load_space(write_space(tmp_path, BODY, "without.yaml"))
    assert space.contains(arch) and not without.contains(arch)
    for train in ((), (("weight_decay", 0.05),), (("epochs", 3), ("weight_decay", 0.04))):
        other = Architecture(arch.stem, arch.stages, arch.head, train)
        assert not space.contains(other)
        assert without.contains(other) == (train == ())


def test_recorded_choices_without_a_setting_are_refused(tmp_path):
    space = space_of(tmp_path, BODY + "train: {learning_rate: [0.1, 0.2]}")
    for made in ({}, {"train.learning_rate": 0.3}):
        with pytest.raises(ValueError, match=r"train\.learning_rate: .* is not allowed"):
            space.architecture({"stem1.out_channels": 8, **made})


def test_an_extending_file_changes_settings_by_name(tmp_path):
    write_space(tmp_path, BODY + "train: {learning_rate: [0.1, 0.2], weight_decay: 0.05, epochs: 3}\n", "base.yaml")
    text = "extends: base.yaml\ntrain: {learning_rate: 0.3, weight_decay: null, randaugment: [0, 9]}\n"
    space = space_of(tmp_path, text)
    assert space.train == {"learning_rate": (0.3,), "epochs": (3,), "randaugment": (0, 9)}
    assert space_of(tmp_path, space.text).train == space.train
    assert space_of(tmp_path, "extends: base.yaml\n").train == load_space(tmp_path / "base.yaml").train
    nothing = "extends: base.yaml\ntrain: {learning_rate: null, weight_decay: null, epochs: null}\n"
    assert space_of(tmp_path, nothing).train == {}


@pytest.mark.parametrize(
    ("section", "parts"),
    [("{momentum: null}", ["train.momentum: unknown key; known: epochs"]), ("[1]", ["train: [1]", "a mapping"])],
)
def test_bad_changes_of_settings_are_refused(tmp_path, section, parts):
    write_space(tmp_path, BODY + "train: {epochs: 3}\n", "base.yaml")
    assert_refused(write_space(tmp_path, f"extends: base.yaml\ntrain: {section}\n"), parts)


def test_networks_of_the_zoo_without_normalization_ask_for_a_low_learning_rate():
    low = {name for name in zoo_names() if dict(load_architecture(name).train).get("learning_rate") == 0.001}

    def bare(name: str) -> bool:
        blocks = load_architecture(name).blocks
        plain = {block.name for block in blocks} <= {"conv", "pool", "fire", "classifier"}
        return plain and all(getattr(block, "norm", "none") == "none" for block in blocks)

    assert low == {name for name in zoo_names() if bare(name)} >= {"nin", "squeezenet1_1", "vgg16", "lenet5"}


def test_what_is_given_beats_what_a_network_asks_for():
    asked = dict(load_architecture("nin").train)
    assert make_recipe("small", asked, TrainOverrides()).learning_rate == 0.001
    assert make_recipe("small", asked, TrainOverrides(learning_rate=0.5)).learning_rate == 0.5


def test_a_setting_that_is_searched_cannot_be_given(tmp_path):
    searched = write_space(tmp_path, BODY + "train: {learning_rate: [0.003, 0.01], weight_decay: 0.05}\n", "mine.yaml")
    common = {"space": str(searched), "runs_dir": str(tmp_path / "runs"), "trials.executor": "inline"}
    with pytest.raises(ValueError) as error:
        make_plan({**common, "train.learning_rate": 0.1})
    assert str(error.value) == (
        "train.learning_rate=0.1 is not allowed: space mine searches it (0.003, 0.01); allowed: leave it out"
    )
    plan = make_plan({**common, "train.weight_decay": 0.1})
    assert plan.config.train.weight_decay == 0.1 and plan.config.train != SearchConfig().train


def test_a_search_over_settings_has_a_column_for_each_and_goes_on(tmp_path):
    text = "extends: tiny\ntrain: {learning_rate: [0.003, 0.01], weight_decay: 0.05, augment: [true, false]}\n"
    space = str(write_space(tmp_path, text))
    run = small_search(tmp_path / "runs", space=space, run="first")
    assert set(run.trials["train.learning_rate"]) <= {0.003, 0.01}
    assert set(run.trials["train.augment"]) <= {True, False}
    assert "train.weight_decay" not in run.trials
    more = small_search(tmp_path / "runs", space=space, run="first", resume=True, budget=6)
    assert len(more.trials) == 6 and more.trials["arch_id"].is_unique
    for trial in more.front["trial"]:
        words = json.loads((more.path / "models" / str(trial) / "architecture.json").read_text())
        assert words["train"]["weight_decay"] == 0.05
        assert words["train"]["learning_rate"] == more.trials.set_index("trial").loc[trial, "train.learning_rate"]


def test_looking_for_a_feasible_network_skips_what_only_training_feels(tmp_path, monkeypatch):
    probed, probe = [], feasibility._probe

    def counting(arch, *rest):
        probed.append(arch.deploy_id)
        return probe(arch, *rest)

    monkeypatch.setattr(feasibility, "_probe", counting)
    for text in (BODY, BODY + "train: {learning_rate: [0.1, 0.2, 0.3], augment: [true, false]}\n"):
        space = str(write_space(tmp_path, text))
        with pytest.raises(ValueError, match=r"constraints\.params"):
            small_search(tmp_path / "runs", space=space, **{"constraints.params": 10})
    assert len(probed) == 4 and probed[:2] == probed[2:]

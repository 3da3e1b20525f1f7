"""Recipes: which of several words for one setting counts, and what may be said at all."""

import copy
import dataclasses
import pickle
import typing

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nas import search, train
from nas.architecture import Architecture
from nas.blocks import Classifier
from nas.config import SearchConfig, TrainCommandConfig
from nas.config_fields import allowed_values, leaves
from nas.recipes import (
    NOT_OF_A_SPACE,
    RECIPES,
    SMALL_SIDE,
    TINY_IMAGES,
    TrainConfig,
    TrainOverrides,
    kind_of_data,
    make_recipe,
    train_rules,
    train_value,
)
from tests.stripes import stripe_data, stripe_job

FIELDS = {each.name: each for each in dataclasses.fields(TrainConfig)}
VALUES = {
    name: (rule.options or ((True, False) if rule.kind is bool else (0.25, 0.5, 0.75)))
    for name, rule in train_rules().items()
} | {name: (3, 5, 7) for name, rule in train_rules().items() if rule.kind is int}


# --- what beats what


def some_of(place):
    """Some settings with a value that tells who said it."""
    return st.sets(st.sampled_from(sorted(VALUES)), max_size=8).map(
        lambda names: {name: VALUES[name][place % len(VALUES[name])] for name in names}
    )


@given(kind=st.sampled_from(sorted(RECIPES)), of_architecture=some_of(0), of_person=some_of(1))
def test_given_beats_architecture_beats_kind_beats_default(kind, of_architecture, of_person):
    recipe = make_recipe(kind, of_architecture, TrainOverrides(**of_person))
    for name in FIELDS:
        places = (of_person, of_architecture, RECIPES[kind], vars(TrainConfig()))
        wanted = next(place[name] for place in places if name in place)
        assert getattr(recipe, name) == wanted, name


@pytest.mark.parametrize("name", [name for name, each in FIELDS.items() if each.metadata.get("low") == 0])
def test_zero_counts_as_given(name):
    recipe = make_recipe("small", {name: VALUES[name][0]}, TrainOverrides(**{name: 0}))
    assert getattr(recipe, name) == 0


@pytest.mark.parametrize("name", ["augment", "flip", "class_weights"])
def test_false_counts_as_given(name):
    assert getattr(make_recipe("small", {name: True}, TrainOverrides(**{name: False})), name) is False


def test_a_jobs_recipe_is_that_of_its_data_its_architecture_and_its_command_line():
    arch = Architecture((), (), (Classifier(),), (("epochs", 3), ("learning_rate", 0.5)))
    job = stripe_job(stripe_data(), learning_rate=0.25)
    recipe = job.recipe(arch)
    assert (job.data.kind, recipe.epochs, recipe.learning_rate) == ("tiny", 3, 0.25)
    assert recipe.batch_size == TrainConfig().batch_size


# --- kinds of data


@given(images=st.integers(2, 10**8), side=st.integers(1, 5000))
def test_the_kind_of_data_is_a_matter_of_its_size(images, side):
    kind = kind_of_data(images, side)
    assert kind in RECIPES
    assert (kind == "pictures") == (side > SMALL_SIDE)
    assert kind == "pictures" or (kind == "tiny") == (images < TINY_IMAGES)


@pytest.mark.parametrize(
    ("images", "side", "kind"),
    [(1010, 8, "tiny"), (9999, 64, "tiny"), (10_000, 64, "small"), (37_500, 32, "small"), (100, 65, "pictures")],
)
def test_what_kind_some_data_are(images, side, kind):
    assert kind_of_data(images, side) == kind


@pytest.mark.parametrize("kind", RECIPES)
def test_every_kinds_recipe_is_allowed(kind):
    assert set(RECIPES[kind]) <= set(FIELDS)
    make_recipe(kind, {}, TrainOverrides())


# --- limits


def beyond(each):
    """Values just outside of a setting's limits."""
    limits = each.metadata
    if "options" in limits:
        return ["no such word"]
    found = [limits["high"] * 1.01 + 1] if "high" in limits else []
    found += [limits["low"] - 1] if "low" in limits else []
    return found + ([limits["above"]] if "above" in limits else [])


OUTSIDE = [(name, value) for name, each in FIELDS.items() for value in beyond(each)]


@pytest.mark.parametrize(("name", "value"), OUTSIDE, ids=lambda each: str(each))
@pytest.mark.parametrize("who", ["architecture", "person"])
def test_limits_hold_for_merged_values(name, value, who):
    said = {name: value}
    with pytest.raises(ValueError) as error:
        make_recipe("tiny", said if who == "architecture" else {}, TrainOverrides(**(said if who == "person" else {})))
    assert str(error.value) == f"train.{name}={value} is not allowed; allowed: {allowed_values(FIELDS[name])}"


def test_every_number_and_word_has_limits():
    free = {name for name, each in FIELDS.items() if allowed_values(each) is None and "bool" not in each.type}
    assert free == set(NOT_OF_A_SPACE)
    assert len(OUTSIDE) > 30


# --- what the command line says


@pytest.mark.parametrize(("command", "schema"), [(search, SearchConfig), (train, TrainCommandConfig)])
def test_every_setting_is_in_the_help(command, schema, capsys):
    assert command.main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = {line.split(" ")[0]: line for line in lines}
    assert all(each.metadata["meaning"] in shown[f"train.{name}"] for name, each in FIELDS.items())
    assert set(leaves(schema())) <= set(shown)


def test_overrides_have_the_same_settings_and_say_nothing_at_first():
    overrides = {each.name: each for each in dataclasses.fields(TrainOverrides)}
    assert list(overrides) == list(FIELDS)
    assert set(vars(TrainOverrides()).values()) == {None}
    hints, wanted = typing.get_type_hints(TrainOverrides), typing.get_type_hints(TrainConfig)
    assert all(hints[name] == wanted[name] | None for name in FIELDS)
    assert all(overrides[name].metadata == FIELDS[name].metadata for name in FIELDS)


@given(some_of(0))
def test_overrides_can_be_sent_to_other_processes(said):
    overrides = TrainOverrides(**said)
    assert pickle.loads(pickle.dumps(overrides)) == overrides == copy.deepcopy(overrides)  # noqa: S301
    with pytest.raises(dataclasses.FrozenInstanceError):
        overrides.epochs = 3


# --- a setting of a space


@given(st.data())
def test_train_value_takes_what_is_within_the_limits_in_its_own_type(data):
    name = data.draw(st.sampled_from(sorted(train_rules())))
    rule = train_rules()[name]
    if rule.kind in (int, float):
        raw = data.draw(st.integers(int(rule.low), min(int(rule.high), 10**6)))
        assume(not ("above" in FIELDS[name].metadata and raw <= rule.low))
        assume(rule.low <= raw <= rule.high)
    else:
        raw = data.draw(st.sampled_from(rule.options or (True, False)))
    value = train_value(name, raw)
    assert value == raw and type(value) is rule.kind
    assert getattr(make_recipe("tiny", {name: value}, TrainOverrides()), name) == value


@pytest.mark.parametrize(
    ("name", "raw", "parts"),
    [
        ("learning_rates", 1, ["train.learning_rates: not a setting of a space; known: epochs, batch_size"]),
        ("teacher", "zoo/nin", ["train.teacher: not a setting of a space"]),
        ("teacher_weights", "x.pth", ["train.teacher_weights: not a setting of a space"]),
        (3, 3, ["train.3: not a setting"]),
        ("learning_rate", 0, ["train.learning_rate=0.0 is not allowed; allowed: above 0"]),
        ("temperature", 0.0, ["train.temperature=0.0 is not allowed; allowed: above 0"]),
        ("learning_rate", float("nan"), ["train.learning_rate: nan"]),
        ("epochs", 2.5, ["train.epochs: 2.5"]),
        ("epochs", True, ["train.epochs: True"]),
        ("ema", 1, ["train.ema: 1 is not allowed", "0.999999"]),
        ("optimizer", "Adam", ["train.optimizer: 'Adam' is not allowed; allowed: one of adamw, sgd"]),
        ("augment", "yes", ["train.augment: 'yes' is not allowed; allowed: true or false"]),
        ("flip", None, ["train.flip: None is not allowed"]),
    ],
)
def test_train_value_refuses_in_one_line(name, raw, parts):
    with pytest.raises(ValueError) as error:
        train_value(name, raw)
    message = str(error.value)
    assert "\n" not in message and all(part in message for part in parts), message

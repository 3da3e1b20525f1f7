import dataclasses
import math
import random

import pytest
from torchvision.models._utils import _make_divisible

from nas.block_fields import FieldRule
from nas.blocks import (
    BLOCK_SCHEMAS,
    Basic,
    Bottleneck,
    Conv,
    InvertedResidual,
    Reduce,
    block_from_dict,
    block_schema,
    round_channels,
    rules,
)

FIELDS = [(name, field) for name, schema in BLOCK_SCHEMAS.items() for field in rules(schema)]
NUMBER_FIELDS = [(n, f) for n, f in FIELDS if rules(BLOCK_SCHEMAS[n])[f].kind in (int, float)]
WORD_FIELDS = [(n, f) for n, f in FIELDS if rules(BLOCK_SCHEMAS[n])[f].kind is str]
INTEGER_FIELDS = [(n, f) for n, f in FIELDS if rules(BLOCK_SCHEMAS[n])[f].kind is int]
FLAG_FIELDS = [(n, f) for n, f in FIELDS if rules(BLOCK_SCHEMAS[n])[f].kind is bool]
REQUIRED = {name: dict.fromkeys(schema.required_fields(), 16) for name, schema in BLOCK_SCHEMAS.items()}


def make(name: str, **fields):
    return BLOCK_SCHEMAS[name](**{**REQUIRED[name], **fields})


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (FieldRule(int, "m", low=1, high=31, odd=True), "an odd integer in [1, 31]"),
        (FieldRule(int, "m", low=1, high=8192), "an integer in [1, 8192]"),
        (FieldRule(float, "m", low=0.125, high=64), "a number in [0.125, 64]"),
        (FieldRule(str, "m", options=("relu", "none")), "one of relu, none"),
    ],
)
def test_a_rule_says_in_words_what_it_allows(rule, words):
    assert rule.allowed == words


@pytest.mark.parametrize(
    "value", [True, False, "3", "", None, [3], {"a": 1}, 3.5, math.nan, math.inf, -math.inf, 0, 32, 4]
)
def test_an_odd_integer_rule_refuses_what_is_none(value):
    rule = FieldRule(int, "m", low=1, high=31, odd=True)
    with pytest.raises(ValueError) as error:
        rule.parse(value)
    assert repr(value) in str(error.value)
    assert "an odd integer in [1, 31]" in str(error.value)


@pytest.mark.parametrize("value", [True, "1.5", None, [1.0], math.nan, math.inf, 0.1, 64.5])
def test_a_number_rule_refuses_what_is_none(value):
    with pytest.raises(ValueError, match=r"allowed: a number in \[0.125, 64\]"):
        FieldRule(float, "m", low=0.125, high=64).parse(value)


@pytest.mark.parametrize("value", ["swish", "ReLU", "", 3, True, ["relu"], {"relu": 1}])
def test_a_word_rule_refuses_other_words(value):
    with pytest.raises(ValueError, match="allowed: one of relu, none"):
        FieldRule(str, "m", options=("relu", "none")).parse(value)


def test_a_missing_value_means_the_word_none_only_where_that_is_an_option():
    assert FieldRule(str, "m", options=("relu", "none")).parse(None) == "none"
    with pytest.raises(ValueError, match="None is not allowed"):
        FieldRule(str, "m", options=("relu", "gelu")).parse(None)


def test_a_value_is_returned_in_the_type_of_its_field():
    whole = FieldRule(int, "m", low=1, high=9).parse(4.0)
    assert (whole, type(whole)) == (4, int)
    number = FieldRule(float, "m", low=1, high=9).parse(4)
    assert (number, type(number)) == (4.0, float)


@pytest.mark.parametrize(("name", "field"), NUMBER_FIELDS)
def test_each_number_field_takes_its_bounds_and_nothing_beyond(name, field):
    rule = rules(BLOCK_SCHEMAS[name])[field]
    for bound in (rule.low, rule.high):
        assert getattr(make(name, **{field: bound}), field) == bound
    for beyond in (rule.low - 1, rule.high + 1):
        with pytest.raises(ValueError) as error:
            make(name, **{field: beyond})
        message = str(error.value)
        assert message.startswith(f"{name}.{field}: ")
        assert repr(beyond) in message and f"[{rule.low:g}, {rule.high:g}]" in message


@pytest.mark.parametrize(("name", "field"), INTEGER_FIELDS)
def test_each_integer_field_refuses_fractions(name, field):
    with pytest.raises(ValueError, match=rf"^{name}\.{field}: 1\.5 is not allowed"):
        make(name, **{field: 1.5})


@pytest.mark.parametrize(("name", "field"), FLAG_FIELDS)
def test_each_flag_is_true_or_false_and_nothing_like_it(name, field):
    for value in (True, False):
        assert getattr(make(name, **{field: value}), field) is value
    for value in (0, 1, "true", None):
        with pytest.raises(ValueError, match=rf"^{name}\.{field}: .* is not allowed; allowed: true or false"):
            make(name, **{field: value})


@pytest.mark.parametrize(("name", "field"), WORD_FIELDS)
def test_each_word_field_takes_each_of_its_words_and_no_other(name, field):
    options = rules(BLOCK_SCHEMAS[name])[field].options
    assert [getattr(make(name, **{field: word}), field) for word in options] == list(options)
    with pytest.raises(ValueError) as error:
        make(name, **{field: "wobble"})
    message = str(error.value)
    assert message.startswith(f"{name}.{field}: 'wobble'")
    assert all(word in message for word in options)


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_each_field_says_what_it_means(name, field):
    assert len(rules(BLOCK_SCHEMAS[name])[field].meaning.split()) >= 1


def test_which_fields_exist_only_while_training():
    found = {(name, field) for name, field in FIELDS if rules(BLOCK_SCHEMAS[name])[field].train_only}
    assert {field for name, field in found if name == "reduce"} == {
        "bottleneck_width",
        "fading_activation",
        "fade_share",
        "residual",
        "norm_eps",
    }
    assert {field for name, field in found if name == "conv"} == {"branches", "branch_count", "norm_eps"}
    assert {field for name, field in found if name == "classifier"} == {"dropout"}
    on_the_device = {"kernel_size", "out_channels", "activation", "norm", "stride", "groups"}
    assert {field for name, field in found if not BLOCK_SCHEMAS[name].train_only and field in on_the_device} == set()
    assert {name for name, schema in BLOCK_SCHEMAS.items() if schema.train_only} == {"auxiliary"}


@pytest.mark.parametrize("name", BLOCK_SCHEMAS)
def test_a_block_is_a_frozen_hashable_value(name):
    block = make(name)
    assert block == make(name) and hash(block) == hash(make(name))
    with pytest.raises(dataclasses.FrozenInstanceError):
        block.kernel_size = 5
    with pytest.raises(TypeError):
        BLOCK_SCHEMAS[name](16)


@pytest.mark.parametrize("name", BLOCK_SCHEMAS)
def test_a_block_survives_its_dictionary(name):
    assert block_from_dict(make(name).to_dict()) == make(name)
    assert block_from_dict({"block": name, **REQUIRED[name]}) == make(name)
    assert block_schema(name) is BLOCK_SCHEMAS[name]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ([], ["'block'", "[]"]),
        ("conv", ["'block'", "'conv'"]),
        ({"out_channels": 8}, ["None is unknown", "conv", "classifier"]),
        ({"block": "convolution"}, ["'convolution' is unknown", "conv", "inverted_residual"]),
        ({"block": ["conv"]}, ["['conv'] is unknown"]),
        ({"block": "conv"}, ["conv.out_channels is missing", "an integer in [1, 8192]"]),
        ({"block": "conv", "out_channels": 8, "kernal_size": 3}, ["conv.kernal_size is unknown", "kernel_size"]),
        (
            {"block": "basic", "out_channels": 8, "kernel_size": 4},
            ["basic.kernel_size: 4", "an odd integer in [1, 31]"],
        ),
        ({"block": "conv", "out_channels": "8"}, ["conv.out_channels: '8'", "an integer in [1, 8192]"]),
        ({"block": "reduce", "out_channels": 8, "norm": "batch"}, ["reduce.norm is unknown", "bottleneck_width"]),
    ],
)
def test_a_bad_block_dictionary_is_refused_with_key_value_and_what_is_allowed(words, parts):
    with pytest.raises(ValueError) as error:
        block_from_dict(words)
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("block", "in_channels", "numbers"),
    [
        (Conv(out_channels=8, groups=3), 9, (3, 9, 8)),
        (Conv(out_channels=9, groups=3), 8, (3, 8, 9)),
        (InvertedResidual(out_channels=8, expansion=1.5, groups=8), 8, (8, 8, 12)),
        (InvertedResidual(out_channels=9, expansion=2, groups=2), 8, (2, 16, 9)),
        (Basic(out_channels=8, groups=4), 6, (4, 6, 8)),
        (Basic(out_channels=8, expansion=0.75, groups=4), 8, (4, 8, 6)),
        (Bottleneck(out_channels=24, groups=4), 8, (4, 6, 6)),
    ],
)
def test_groups_that_do_not_divide_the_channels_are_refused_with_the_numbers(block, in_channels, numbers):
    groups, before, after = numbers
    with pytest.raises(ValueError) as error:
        block.check(in_channels)
    message = str(error.value)
    assert f"{block.name}.groups: {groups} is not allowed" in message
    assert f"{before} in" in message and f"{after} out" in message


@pytest.mark.parametrize(
    ("block", "in_channels"),
    [
        (Conv(out_channels=12, groups=4), 8),
        (InvertedResidual(out_channels=8, expansion=1, groups=8), 8),
        (InvertedResidual(out_channels=6, expansion=1.5, groups=2), 4),
        (Basic(out_channels=8, expansion=0.5, groups=4), 12),
        (Bottleneck(out_channels=32, groups=8), 7),
        (Reduce(out_channels=7), 5),
    ],
)
def test_groups_that_divide_the_channels_pass(block, in_channels):
    block.check(in_channels)


def test_middle_channels_are_the_ratio_of_the_right_width():
    assert InvertedResidual(out_channels=99, expansion=2.5).mid_channels(10) == 25
    assert Basic(out_channels=20, expansion=0.25).mid_channels() == 5
    assert Bottleneck(out_channels=64).mid_channels() == 16
    assert Reduce(out_channels=6, bottleneck_width=4).mid_channels() == 24
    assert InvertedResidual(out_channels=8, expansion=0.125).mid_channels(1) == 1


def test_squeeze_channels_of_mobilenet_v3_small():
    published = [(16, 1, 8), (24, 4, 24), (40, 6, 64), (40, 3, 32), (48, 3, 40), (96, 6, 144)]
    for in_channels, expansion, squeeze in published:
        block = InvertedResidual(out_channels=8, expansion=expansion, se_ratio=0.25)
        assert block.se_channels(in_channels) == squeeze
    assert InvertedResidual(out_channels=8).se_channels(64) == 0


def test_channels_round_as_torchvision_rounds_them():
    rng = random.Random(0)
    for channels in [*range(1, 600), *(rng.uniform(0.1, 3000) for _ in range(500))]:
        assert round_channels(channels) == _make_divisible(channels, 8)
        assert round_channels(channels, 4) == _make_divisible(channels, 4)

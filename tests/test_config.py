import dataclasses
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.command_line import config_to_yaml, help_text, make_config, settings_from_words
from nas.config import SearchConfig, seconds
from nas.config_fields import leaves, validate
from nas.objectives import OBJECTIVES, get_objectives

FIXED_KEYS = (
    "space",
    "budget",
    "data",
    "data_root",
    "run",
    "runs_dir",
    "seed",
    "time_budget",
    "resume",
    "device",
    "objectives",
    "sampler",
    "scheduler",
    "train.epochs",
    "train.batch_size",
    "latency.backend",
    "latency.batch_size",
    "latency.threads",
    "constraints.latency_ms",
    "constraints.params",
    "constraints.macs",
    "trials.concurrent",
    "trials.cpus",
    "trials.gpus",
    "trials.timeout",
    "trials.executor",
    "ray.address",
    "ray.dashboard",
)


def from_words(*words):
    return make_config(settings_from_words(words))


def refusal_of(*words):
    with pytest.raises(ValueError) as refused:
        from_words(*words)
    message = str(refused.value)
    assert "\n" not in message
    return message


def help_rows():
    rows = [re.split(r" {2,}", line.strip(), maxsplit=3) for line in help_text().splitlines()]
    return {row[0]: row[1:] for row in rows if len(row) == 4}


def values_of(config):
    return {key: value for key, (_, value) in leaves(config).items()}


def test_help_has_every_setting_with_its_default_and_a_meaning():
    rows = help_rows()
    for key, value in values_of(SearchConfig()).items():
        kind, default, meaning = rows[key]
        wanted = "none" if value is None else "[" + ",".join(value) + "]" if isinstance(value, list) else str(value)
        assert default == wanted, key
        assert kind and len(meaning) > 10, key


def test_help_says_units_and_limits():
    rows = help_rows()
    assert rows["constraints.latency_ms"][2].endswith("[ms; above 0]")
    assert "auto, cpu, cuda" in rows["device"][2]
    assert "1 to 100,000" in rows["train.epochs"][2]


@pytest.mark.parametrize("key", FIXED_KEYS)
def test_settings_that_users_rely_on_exist(key):
    assert key in leaves(SearchConfig())


def test_defaults():
    config = make_config({})
    assert config == SearchConfig()
    assert (config.space, config.budget, config.data, config.objectives) == (
        "mobile",
        100,
        "digits",
        ["error", "latency_ms"],
    )


def test_a_default_list_is_not_shared_between_configurations():
    SearchConfig().objectives.append("macs")
    assert SearchConfig().objectives == ["error", "latency_ms"]


@pytest.mark.parametrize(
    ("word", "suggested"),
    [
        ("budgt=3", "budget"),
        ("train.epoch=3", "train.epochs"),
        ("latency.thread=1", "latency.threads"),
        ("conifg=x.yaml", "config"),
        ("trials.concurent=1", "trials.concurrent"),
    ],
)
def test_an_unknown_key_gets_a_suggestion(word, suggested):
    message = refusal_of(word)
    assert repr(word.partition("=")[0]) in message
    assert f"did you mean {suggested}?" in message


@pytest.mark.parametrize("word", ["zzzzzzzz=1", "=3", "train=5", "train.epochs.x=3"])
def test_an_unknown_key_is_refused(word):
    assert "unknown key" in refusal_of(word)


@pytest.mark.parametrize(
    ("word", "shown", "allowed"),
    [
        ("budget=abc", "budget=abc", "int, 1 to 10,000,000"),
        ("budget=1.5", "budget=1.5", "int"),
        ("budget=[1]", "budget=[1]", "int"),
        ("budget=true", "budget=True", "int"),
        ("budget=null", "budget=None", "int, 1 to 10,000,000"),
        ("budget=", "budget=None", "int"),
        ("resume=maybe", "resume=maybe", "bool"),
        ("latency.cuda_graphs=null", "latency.cuda_graphs=None", "bool"),
        ("train.learning_rate=fast", "train.learning_rate=fast", "float, above 0, at most 100"),
        ("objectives=error", "objectives=error", "list"),
        ("objectives=null", "objectives=None", "list"),
        ("objectives=[error,null]", "objectives=['error', None]", "list"),
        ("constraints.params=few", "constraints.params=few", "above 0"),
    ],
)
def test_a_wrong_type_is_refused_with_key_value_and_what_is_allowed(word, shown, allowed):
    message = refusal_of(word)
    assert message.startswith(f"{shown} is not allowed")
    assert allowed in message.partition("allowed; allowed: ")[2]


@pytest.mark.parametrize("word", ["budget={}", "objectives={}"])
def test_an_empty_mapping_is_a_wrong_type_for_a_single_value(word):
    assert refusal_of(word).startswith(word.partition("=")[0])


@pytest.mark.parametrize(
    ("word", "shown", "allowed"),
    [
        ("budget=0", "budget=0", "1 to 10,000,000"),
        ("budget=-1", "budget=-1", "1 to 10,000,000"),
        ("seed=-1", "seed=-1", "0 to 2,147,483,647"),
        ("val_share=1.0", "val_share=1.0", "0.01 to 0.9"),
        ("train.learning_rate=0", "train.learning_rate=0.0", "above 0, at most 100"),
        ("train.learning_rate=101", "train.learning_rate=101.0", "above 0, at most 100"),
        ("train.label_smoothing=.nan", "train.label_smoothing=nan", "0 to 0.9"),
        ("constraints.latency_ms=0", "constraints.latency_ms=0.0", "above 0"),
        ("constraints.latency_ms=.nan", "constraints.latency_ms=nan", "above 0"),
        ("latency.threads=0", "latency.threads=0", "1 to 1,024"),
        ("device=gpu", "device=gpu", "auto, cpu, cuda"),
        ("trials.executor=threads", "trials.executor=threads", "ray, inline"),
        ("train.optimizer=Adam", "train.optimizer=Adam", "adamw, sgd"),
        ("budget=10000000000000000000000", "budget=10000000000000000000000", "1 to 10,000,000"),
    ],
)
def test_a_value_out_of_range_is_refused_with_key_value_and_what_is_allowed(word, shown, allowed):
    message = refusal_of(word)
    assert message.startswith(f"{shown} is not allowed")
    assert allowed in message.partition("allowed; allowed: ")[2]


def test_limits_include_their_ends():
    low, high = from_words("budget=1", "val_share=0.9"), from_words("budget=10000000", "val_share=0.01")
    assert (low.budget, low.val_share, high.budget, high.val_share) == (1, 0.9, 10_000_000, 0.01)


def test_validate_holds_hand_made_configurations_against_their_limits():
    config = dataclasses.replace(SearchConfig(), budget=0)
    with pytest.raises(ValueError, match=r"budget=0 .*1 to 10,000,000"):
        validate(config)


@pytest.mark.parametrize("word", ["budget", "--budget", "--resume"])
def test_a_word_without_an_equals_sign_is_refused(word):
    message = refusal_of(word)
    assert repr(word) in message
    assert "key=value" in message


@pytest.mark.parametrize(
    "word", ["objectives=[", "train.epochs={", "data=${", "data=${nope}", "budget=!!python/object:x", "data=???"]
)
def test_a_value_that_is_not_yaml_is_refused_with_key_and_value(word):
    assert refusal_of(word).startswith(f"{word} is not allowed")


def test_the_part_after_the_first_equals_sign_is_the_value():
    assert from_words("data=a=b.npz").data == "a=b.npz"


def test_later_words_win():
    assert from_words("budget=5", "budget=6").budget == 6


@pytest.mark.parametrize(
    ("word", "key", "value"),
    [
        ("budget=7", "budget", 7),
        ("train.learning_rate=1e-3", "train.learning_rate", 0.001),
        ("train.warmup_epochs=2", "train.warmup_epochs", 2.0),
        ("objectives=[error,macs,params]", "objectives", ["error", "macs", "params"]),
        ("resume=true", "resume", True),
        ("constraints.latency_ms=null", "constraints.latency_ms", None),
        ("ray.dashboard=false", "ray.dashboard", False),
        ("run=2024-01-01", "run", "2024-01-01"),
        ("data=my photos", "data", "my photos"),
        ("run=007", "run", "007"),
        ("run=1e3", "run", "1e3"),
        ("space=true", "space", "true"),
        ("constraints.latency_ms=none", "constraints.latency_ms", None),
        ("time_budget=90", "time_budget", "90"),
    ],
)
def test_words_become_values_of_the_settings_type(word, key, value):
    found = values_of(from_words(word))[key]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(("word", "name"), [("run=007", "007"), ("run=1e3", "1e3"), ("run=1_000", "1_000")])
def test_names_are_taken_as_they_are_typed(word, name):
    assert from_words(word).run == name


def test_a_time_with_a_colon_is_not_taken_for_something_else():
    assert from_words("time_budget=1:30").time_budget == "1:30"


def test_nested_dotted_and_typed_settings_give_the_same():
    nested = make_config({"budget": 8, "train": {"epochs": 3, "optimizer": "sgd"}, "trials": {"executor": "inline"}})
    dotted = make_config({"budget": 8, "train.epochs": 3, "train.optimizer": "sgd", "trials.executor": "inline"})
    words = from_words("budget=8", "train.epochs=3", "train={optimizer: sgd}", "trials.executor=inline")
    assert nested == dotted == words
    assert (nested.train.epochs, nested.train.optimizer, nested.trials.executor) == (3, "sgd", "inline")


def test_a_part_given_as_its_dataclass_counts():
    part = dataclasses.replace(SearchConfig().train, epochs=5)
    assert make_config({"train": part}).train.epochs == 5


def test_a_path_is_taken_as_text(tmp_path):
    assert make_config({"data": tmp_path / "x.npz"}).data == str(tmp_path / "x.npz")


def test_a_tuple_of_objectives_is_taken_as_a_list():
    assert make_config({"objectives": ("error", "macs")}).objectives == ["error", "macs"]


def settings_of_every_kind():
    text = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=12)
    text = text.filter(lambda word: "${" not in word and word != "???")
    numbers = st.floats(0.001, 0.9)
    return st.fixed_dictionaries(
        {
            "space": text,
            "data": text,
            "runs_dir": text,
            "budget": st.integers(1, 10_000),
            "seed": st.integers(0, 2**31 - 1),
            "val_share": st.floats(0.01, 0.9),
            "time_budget": st.none() | st.sampled_from(["90", "2h", "1e3", "0x10"]),
            "device": st.sampled_from(["auto", "cpu", "cuda"]),
            "objectives": st.permutations(list(OBJECTIVES)).map(lambda names: names[:3]),
            "train.learning_rate": numbers,
            "train.augment": st.booleans(),
            "constraints.latency_ms": st.none() | st.floats(1e-9, 1e9),
            "trials.concurrent": st.none() | st.integers(1, 64),
            "ray.dashboard": st.none() | st.booleans(),
            "ray.address": st.none() | text,
        }
    )


@settings(max_examples=30, deadline=None)
@given(settings_of_every_kind())
def test_yaml_reads_back_to_the_same_configuration(tmp_path_factory, given_settings):
    config = make_config(given_settings)
    file = tmp_path_factory.mktemp("yaml") / "config.yaml"
    file.write_text(config_to_yaml(config), encoding="utf-8")
    assert make_config({"config": file}) == config


def test_yaml_of_a_run_gives_its_settings_but_not_its_name_nor_that_it_was_resumed(tmp_path):
    config = from_words("run=first", "resume=true", "budget=7", "train.epochs=2", "objectives=[error,params]")
    file = tmp_path / "config.yaml"
    file.write_text(config_to_yaml(config), encoding="utf-8")
    again = from_words(f"config={file}")
    assert (again.run, again.resume) == (None, False)
    assert again == dataclasses.replace(config, run=None, resume=False)


def test_words_win_over_the_file_wherever_it_is_named(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("budget: 7\ntrain: {epochs: 2}\n", encoding="utf-8")
    for words in (["budget=9", f"config={file}"], [f"config={file}", "budget=9"]):
        config = from_words(*words)
        assert (config.budget, config.train.epochs) == (9, 2)


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        ("budgt: 3", "did you mean budget?"),
        ("budget: many", "budget=many"),
        ("budget: 0", "budget=0"),
        ("- budget", "mapping"),
        ("budget: [", "cannot be read"),
        ("budget: ${nope}", "budget"),
        ("budget: ???", "budget"),
        ("train: 5", "unknown key 'train'"),
    ],
)
def test_a_bad_settings_file_is_refused(tmp_path, content, fragment):
    file = tmp_path / "settings.yaml"
    file.write_text(content, encoding="utf-8")
    assert fragment in refusal_of(f"config={file}")


def test_a_settings_file_that_does_not_exist_is_named(tmp_path):
    file = tmp_path / "nowhere.yaml"
    assert f"config={file} cannot be read" in refusal_of(f"config={file}")


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(leaves(SearchConfig()))), st.text(max_size=15))
def test_any_word_gives_a_configuration_or_a_value_error(key, text):
    try:
        config = from_words(f"{key}={text}")
    except ValueError as error:
        assert str(error)
    else:
        assert isinstance(config, SearchConfig)


@pytest.mark.parametrize(
    ("text", "value"),
    [("90s", 90), ("10m", 600), ("2h", 7200), ("1d", 86400), ("45", 45), ("1.5h", 5400), ("0.5", 0.5), (None, None)],
)
def test_durations(text, value):
    assert seconds("time_budget", text) == value


@pytest.mark.parametrize("text", ["", "0", "0s", "-5m", "h", "soon", "2 weeks", "5x", "nan", "inf", "infh", "1h30m"])
def test_bad_durations_are_refused_with_key_value_and_what_is_allowed(text):
    with pytest.raises(ValueError) as refused:
        seconds("trials.timeout", text)
    assert str(refused.value).startswith(f"trials.timeout={text} is not allowed")
    assert "90s, 10m, 2h or 1d" in str(refused.value)


def test_objectives_by_name_keep_their_order():
    assert [each.name for each in get_objectives(["latency_ms", "error", "macs"])] == ["latency_ms", "error", "macs"]


@pytest.mark.parametrize("name", ["speed", "Error", ["macs"], {"macs": 1}, None])
def test_an_unknown_objective_is_named_with_the_known(name):
    with pytest.raises(ValueError) as refused:
        get_objectives(["error", name])
    assert repr(name) in str(refused.value)
    assert "known: error, latency_ms, macs, params" in str(refused.value)


@pytest.mark.parametrize("names", [[], ["error"], ["error", "error"], ["error", "macs", "macs"]])
def test_objectives_must_be_two_or_more_different_ones(names):
    with pytest.raises(ValueError, match="two or more"):
        get_objectives(names)

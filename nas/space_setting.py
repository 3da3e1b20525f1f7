"""Reading one setting of a space file: a value, a list, a range, or what a choice of the whole network decides."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

from nas.block_fields import FieldRule, Value
from nas.blocks import round_channels
from nas.bounded import shown
from nas.choice import Choice, Shared

WIDEST_RANGE = 10_000  # from its first number to its last
PARTS = ("stem", "stages", "head")
PLAIN = "a value, a list or {from: LOW, to: HIGH, step: STEP}"
WAYS = (
    "a value, a list, {from: LOW, to: HIGH, step: STEP}, {per_block: [...]}, {shared: NAME}, "
    "{shared: NAME, times: BASE, step: STEP} or {given: NAME, VALUE: ..., else: ...}"
)


def raw_section(words: Mapping[str, Any], section: str) -> dict[Any, Any]:
    """The section `choices` or `train` of a file's words, by name.

    Raises:
        ValueError: it is no mapping.
    """
    raw = words.get(section)
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise ValueError(f"{section}: {shown(raw)} is not allowed; allowed: a mapping of names to lists")
    return raw


def parse_shared(raw: Any, where: str) -> tuple[Value, ...]:
    """The options of one of the file's `choices`: plain scalars of any kind.

    Raises:
        ValueError: something else, or an option twice.
    """
    options = ["none" if option is None else option for option in raw_options(raw, where, PLAIN)]
    for option in options:
        number = isinstance(option, int | float) and -math.inf < option < math.inf
        # A word can be part of a parameter's name, and there Ray's flattening owns the slash.
        if not number and not (isinstance(option, str) and "/" not in option):
            raise ValueError(
                f"{where}: {shown(option)} is not allowed; allowed: numbers, words without a slash, true and false"
            )
    return distinct(options, where)


def parse_setting(raw: Any, rule: FieldRule, key: str, where: str, shared: Shared) -> Choice:
    """The choice that a setting's words stand for.

    Args:
        raw: the words.
        rule: what the setting's values may be.
        key: the setting's name within its stage.
        where: the stage's place in the file.
        shared: the file's `choices`.

    Raises:
        ValueError: bad words; the message names the place in the file and what is allowed.
    """
    at = f"{where}.{key}"
    if isinstance(raw, dict) and "given" in raw:
        return _given(raw, rule, key, at, shared)
    if isinstance(raw, dict) and "shared" in raw and set(raw) <= {"shared", "times", "step"}:
        name = _shared_name(raw["shared"], "shared", at, shared)
        if len(raw) > 1:
            return _times(raw, rule, key, at, name, shared[name])
        return Choice(key, _parsed(shared[name], rule, at), given=name)
    if isinstance(raw, dict) and set(raw) == {"per_block"}:
        return Choice(key, _parsed(raw_options(raw["per_block"], f"{at}.per_block"), rule, at), per_block=True)
    return Choice(key, _parsed(raw_options(raw, at), rule, at))


def raw_options(raw: Any, where: str, allowed: str = WAYS) -> list[Any]:
    """The options that a value, a list or a range of a file stands for, not yet held against a rule.

    Raises:
        ValueError: none of these.
    """
    if isinstance(raw, dict):
        low, high, step = raw.get("from", ""), raw.get("to", ""), raw.get("step", 1)
        whole = all(type(bound) is int for bound in (low, high, step))
        if not set(raw) <= {"from", "to", "step"} or not whole or step < 1 or high < low or high - low > WIDEST_RANGE:
            raise ValueError(f"{where}: {shown(raw)} is not allowed; allowed: {allowed}")
        return list(range(low, high + 1, step))
    if isinstance(raw, list):
        if not raw or any(isinstance(option, list | dict) for option in raw):
            raise ValueError(f"{where}: {shown(raw)} is not allowed; allowed: a list of at least one plain value")
        return raw
    return [raw]


def distinct(options: list[Any], where: str) -> tuple[Value, ...]:
    """The options as a tuple.

    Raises:
        ValueError: one is there twice.
    """
    if len(set(options)) < len(options):
        raise ValueError(f"{where}: {options} names an option twice")
    return tuple(options)


def option_key(word: Any) -> tuple[Any, bool]:
    """What words of a file have in common that mean one option: 1 and 1.0 do, 1 and true do not; null means none."""
    return ("none" if word is None else word, isinstance(word, bool))


def _given(raw: dict[Any, Any], rule: FieldRule, key: str, at: str, shared: Shared) -> Choice:
    """A setting with a case for each value of a shared choice."""
    name = _shared_name(raw["given"], "given", at, shared)
    listed = ", ".join(map(_label, shared[name]))
    known = {option_key(option): option for option in shared[name]}
    cases: dict[Value, Choice] = {}
    for word in raw:
        if word in ("given", "else"):
            continue
        option = known.get(option_key(word))
        if option is None:
            raise ValueError(f"{at}: {name} is never {shown(word)}; allowed: {listed}, else")
        if option in cases:
            raise ValueError(f"{at}: there are two cases for {name}: {_label(option)}")
        cases[option] = _case(raw[word], rule, f"{key}.{name}={_label(option)}", f"{at}.{_label(option)}")
    if "else" in raw:
        other = _case(raw["else"], rule, f"{key}.{name}=else", f"{at}.else")
        cases = dict.fromkeys(shared[name], other) | cases
    if not cases:
        raise ValueError(f"{at}: {shown(raw)} has no case; allowed: {listed}, else")
    options = dict.fromkeys(option for case in cases.values() for option in case.options)
    return Choice(key, tuple(options), given=name, cases=cases)


def _case(raw: Any, rule: FieldRule, key: str, at: str) -> Choice:
    """What stands in one case; its own key, since the options of one parameter may not change from trial to trial."""
    return Choice(key, _parsed(raw_options(raw, at, PLAIN), rule, at))


def _times(raw: dict[str, Any], rule: FieldRule, key: str, at: str, name: str, factors: tuple[Value, ...]) -> Choice:
    """A setting that is a base times the value of a shared choice, rounded to a multiple of `step`."""
    base, step = raw.get("times"), raw.get("step", 8)
    if not _positive(base) or type(step) is not int or step < 1:
        raise ValueError(
            f"{at}: {shown(raw)} is not allowed; allowed: {{shared: NAME, times: BASE, step: STEP}}, "
            "BASE a number above 0, STEP a whole number above 0"
        )
    cases: dict[Value, Choice] = {}
    for factor in factors:
        if not _positive(factor):
            raise ValueError(f"{at}: {name}: {shown(factor)} is not allowed with times; allowed: numbers above 0")
        value = round_channels(base * factor, step)
        cases[factor] = Choice(key, _parsed([value], rule, f"{at}: {base} times {factor}"))
    options = dict.fromkeys(case.options[0] for case in cases.values())
    return Choice(key, tuple(options), given=name, cases=cases)


def _positive(number: Any) -> TypeGuard[float]:
    return isinstance(number, int | float) and not isinstance(number, bool) and 0 < number < 1e9


def _shared_name(raw: Any, word: str, at: str, shared: Shared) -> str:
    name = str(raw)
    if name not in shared:
        raise ValueError(f"{at}: {word} choice {shown(name)} is unknown; known: {', '.join(shared) or 'none'}")
    return name


def _parsed(options: list[Any] | tuple[Value, ...], rule: FieldRule, at: str) -> tuple[Value, ...]:
    """The options in the setting's own type."""
    parsed = []
    for option in options:
        try:
            parsed.append(rule.parse(option))
        except ValueError as error:
            raise ValueError(f"{at}: {error}") from None
    return distinct(parsed, at)


def _label(option: Value) -> str:
    """An option as it is written in a file."""
    return str(option).lower() if isinstance(option, bool) else str(option)

"""How much a space file stands for, counted before any of it is written out: a short file can mean very much."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nas.space_setting import PARTS, WIDEST_RANGE, raw_section

MOST_TEMPLATES = 100  # of a part; a published network has 17
MOST_SHARED = 1_000  # options of one of the file's `choices`
MOST_OPTIONS = 100_000  # options of all settings together, shared ones counted where they are referred to
MOST_STEPS = 100_000  # combinations of options that are looked at, some seconds


class Steps:
    """Counts what is done for a space, so that no file makes a program work for hours."""

    def __init__(self, doing: str) -> None:
        self._doing, self._left = doing, MOST_STEPS

    def take(self, steps: int, where: str) -> None:
        """Counts so many steps more.

        Raises:
            ValueError: they are too many.
        """
        self._left -= steps
        if self._left < 0:
            raise ValueError(
                f"{where}: too many combinations of options to {self._doing}; allowed: {MOST_STEPS:,} in a space, so "
                "fewer options of what decides about block, depth, channels and groups"
            )


def check_weight(words: Mapping[str, Any]) -> None:
    """Holds what a space's words stand for against what is read.

    Raises:
        ValueError: too many templates or options.
    """
    shared = {str(name): _width(raw) for name, raw in raw_section(words, "choices").items()}
    for name, options in shared.items():
        if options > MOST_SHARED:
            raise ValueError(f"choices.{name}: {options:,} options are not allowed; allowed: at most {MOST_SHARED:,}")
    options = sum(shared.values())
    for part in PARTS:
        templates = words.get(part)
        if isinstance(templates, list) and len(templates) > MOST_TEMPLATES:
            raise ValueError(f"{part}: {len(templates):,} templates are not allowed; allowed: at most {MOST_TEMPLATES}")
        options += _weight(templates, shared)
    if options > MOST_OPTIONS:
        raise ValueError(
            f"the settings have {options:,} options in all, which is not allowed; allowed: at most {MOST_OPTIONS:,}"
        )


def _width(raw: Any) -> int:
    """How many options a list or a range has."""
    if isinstance(raw, dict) and set(raw) <= {"from", "to", "step"}:
        low, high, step = raw.get("from"), raw.get("to"), raw.get("step", 1)
        if type(low) is int and type(high) is int and type(step) is int and step > 0 and high - low <= WIDEST_RANGE:
            return (high - low) // step + 1
        return 1  # which its place in the file refuses
    return len(raw) if isinstance(raw, list | dict) else 1


def _weight(words: Any, shared: Mapping[str, int]) -> int:
    """The options that a template or a setting of one stands for, those of each case counted."""
    if isinstance(words, list):
        return sum(_weight(each, shared) for each in words)
    if not isinstance(words, dict):
        return 1
    if set(words) <= {"from", "to", "step"}:
        return _width(words)
    if "shared" in words:
        return shared.get(str(words["shared"]), 1)
    if "given" in words:
        cases = shared.get(str(words["given"]), 1)
        return cases + sum(_weight(each, shared) * (cases if key == "else" else 1) for key, each in words.items())
    return sum(_weight(each, shared) for each in words.values())

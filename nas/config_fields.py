"""The fields that configurations are made of: each with its meaning, unit and limits."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import field
from typing import Any

from nas.bounded import said


def key(default: Any, meaning: str, unit: str = "", **limits: Any) -> Any:
    """A field with its help and its limits: `low`, `high` (numbers), `above` (exclusive) or `options` (words)."""
    metadata = {"meaning": meaning, "unit": unit, **limits}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def leaves(config: Any, prefix: str = "") -> dict[str, tuple[dataclasses.Field[Any], Any]]:
    """Every setting by its dotted key: its field and its value.

    A part whose field has a `key` in its metadata goes by that instead of the field's name (`path_of`).
    """
    found: dict[str, tuple[dataclasses.Field[Any], Any]] = {}
    for each in dataclasses.fields(config):
        value = getattr(config, each.name)
        if dataclasses.is_dataclass(value):
            found |= leaves(value, f"{prefix}{each.metadata.get('key', each.name)}.")
        else:
            found[prefix + each.name] = (each, value)
    return found


def path_of(config: Any, dotted: str) -> list[str]:
    """The names of the fields that lead to the setting of a dotted key."""
    for each in dataclasses.fields(config):
        value = getattr(config, each.name)
        if dataclasses.is_dataclass(value) and dotted.startswith(_prefix(each)):
            return [each.name, *path_of(value, dotted.removeprefix(_prefix(each)))]
    return [dotted]


def validate(config: Any, prefix: str = "") -> None:
    """Holds every setting against its limits; `prefix` is that of its keys in a message.

    Raises:
        ValueError: a value out of range; the message names key, value and what is allowed.
    """
    for key, (each, value) in leaves(config, prefix).items():
        allowed = allowed_values(each)
        if value is None or allowed is None:
            continue
        limits = each.metadata
        if "options" in limits:
            fine = value in limits["options"]
        else:
            low, high, above = (
                limits.get("low", float("-inf")),
                limits.get("high", sys.float_info.max),
                limits.get("above"),
            )
            fine = low <= value <= high and (above is None or value > above)
        if not fine:
            raise ValueError(f"{key}={said(value)} is not allowed; allowed: {allowed}")


def allowed_values(each: dataclasses.Field[Any]) -> str | None:
    """The limits of a setting in words, or None where it has none."""
    limits = each.metadata
    if "options" in limits:
        return "one of " + ", ".join(limits["options"])
    if "above" in limits:
        return f"above {limits['above']}" + (f", at most {limits['high']:,}" if "high" in limits else "")
    if "low" in limits:
        return f"{limits['low']:,} to {limits['high']:,}"
    return None


def _prefix(each: dataclasses.Field[Any]) -> str:
    """What the dotted keys of a field that holds settings begin with."""
    return f"{each.metadata.get('key', each.name)}."

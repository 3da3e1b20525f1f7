"""Settings of the benchmarks, from a command line's `key=value` words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nas.config import first_line

SettingsT = TypeVar("SettingsT")


def from_words(words: Sequence[str], schema: type[SettingsT]) -> SettingsT:
    """The settings that words give, of a dataclass.

    Raises:
        ValueError: an unknown key, a wrong type, a missing value, or a word that is not `key=value`.
    """
    try:
        given = OmegaConf.from_dotlist(list(words))
    except Exception as error:  # OmegaConf hands through whatever its YAML parser raises
        raise ValueError(f"{' '.join(words)}: {first_line(error)}") from None
    try:
        settings = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), given))
    except OmegaConfBaseException as error:
        kind: Any = schema
        known = ", ".join(field.name for field in fields(kind))
        raise ValueError(f"{error.full_key}: {first_line(error)}; keys: {known}") from None
    assert isinstance(settings, schema)
    return settings

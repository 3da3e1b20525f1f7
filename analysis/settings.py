"""Settings of the benchmarks, from a command line's `key=value` words."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nas.config import first_line, user_path

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


def new_file(out: str | Path, *suffixes: str) -> Path:
    """The path of a table that is yet to be written.

    Args:
        out: what was given.
        suffixes: that it may end in; none: any.

    Raises:
        ValueError: it exists, it cannot be made, or it ends otherwise.
    """
    path = user_path("out", out)
    if path.exists() or (suffixes and path.suffix not in suffixes) or not os.access(path.parent, os.W_OK | os.X_OK):
        ending = f" that ends in {' or '.join(suffixes)}" if suffixes else ""
        raise ValueError(f"out={out} is not allowed; allowed: a new file{ending}, in a folder that can be written to")
    return path

"""Settings of the benchmarks, from a command line's `key=value` words."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nas.config import first_line, user_path

SettingsT = TypeVar("SettingsT")


def from_words(words: Sequence[str], schema: type[SettingsT]) -> SettingsT:
    """The settings that words give, of a dataclass; asked for help, says it and ends the program.

    Raises:
        ValueError: an unknown key, a wrong type, a missing value, or a word that is not `key=value`.
    """
    if {"-h", "--help", "help"} & set(words):
        print(f"{(sys.modules['__main__'].__doc__ or '').strip()}\n\n{_keys(schema)}")
        raise SystemExit(0)
    try:
        given = OmegaConf.from_dotlist(list(words))
    except Exception as error:  # OmegaConf hands through whatever its YAML parser raises
        raise ValueError(f"{' '.join(words)}: {first_line(error)}") from None
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), given)
        if missing := sorted(OmegaConf.missing_keys(merged)):
            raise ValueError(f"missing: {', '.join(f'{key}=...' for key in missing)}; see --help")
        settings = OmegaConf.to_object(merged)
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


def _keys(schema: Any) -> str:
    """The keys of a dataclass as its docstring explains them, and their defaults."""
    meanings = (inspect.getdoc(schema) or "").partition("Attributes:\n")[2].rstrip()
    defaults = {each.name: each.default for each in fields(schema) if each.default != MISSING}
    shown = " ".join(f"{name}={_word(value)}" for name, value in defaults.items() if value is not None)
    return f"key: meaning\n{meanings}\n\ndefaults: {shown}"


def _word(value: Any) -> str:
    """A default as it would be written on a command line."""
    return f"[{','.join(map(str, value))}]" if isinstance(value, tuple) else str(value)

"""The words of a space file: found by name or path, read as YAML, with what they extend written out."""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from nas.bounded import MOST_YAML_BYTES, is_file, parse_yaml, read_text, said, shown
from nas.config import user_path
from nas.space_extends import extended
from nas.space_setting import PARTS
from nas.space_weight import check_weight

MOST_EXTENDED = 10  # files one after another
KEYS = ("extends", "description", "source", "published", "choices", "train", *PARTS)


def space_names() -> list[str]:
    """Names of the search spaces that come with the package."""
    return sorted(path.stem for path in _shipped().glob("*.yaml"))


def zoo_names() -> list[str]:
    """Names of the published networks that come with the package."""
    return sorted(path.stem for path in (_shipped() / "zoo").glob("*.yaml"))


def find_space(name_or_path: str | Path) -> Path:
    """The file of a shipped space or zoo network, or the one at a path.

    Raises:
        ValueError: no such space or file; the message lists the known ones.
    """
    text = str(name_or_path)
    if path := _shipped_file(text):
        return path
    if text and is_file(path := user_path("space", text)):
        return path.resolve()
    raise ValueError(f"space={text}: no such space or file; known: {', '.join(space_names())}, or a path to a YAML")


def read_words(path: Path, above: tuple[Path, ...] = ()) -> tuple[dict[str, Any], str]:
    """The words of a space file without `extends`, and YAML that says the same.

    Args:
        path: the file.
        above: the files that extend it, the first one first.

    Raises:
        ValueError: unreadable, not YAML, an unknown key, or bad words for what is extended.
    """
    text = read_text(path, MOST_YAML_BYTES)
    words = parse_yaml(text)
    if not isinstance(words, dict):
        raise ValueError(f"a space is a mapping with the keys {', '.join(KEYS)}")
    reject_unknown(words, KEYS, "")
    check_weight(words)
    if "extends" not in words:
        return words, text
    chain = (*above, path.resolve())
    if len(chain) > MOST_EXTENDED:
        raise ValueError(f"extends: a chain of more than {MOST_EXTENDED} files is not allowed")
    base_path = _base(words["extends"], path)
    if base_path.resolve() in chain:
        circle = (*chain[chain.index(base_path.resolve()) :], base_path)
        raise ValueError(f"extends: a circle is not allowed: {' -> '.join(map(str, circle))}")
    try:
        base, _ = read_words(base_path, chain)
    except ValueError as error:
        raise ValueError(f"extends: {base_path}: {error}") from None
    words = extended(base, words)
    check_weight(words)
    return words, yaml.safe_dump(words, sort_keys=False, allow_unicode=True, width=120)


def reject_unknown(words: Mapping[Any, Any], known: Any, where: str, hint: str = "") -> None:
    """Holds the keys of a mapping against the known ones.

    Raises:
        ValueError: an unknown key; the message lists the known ones.
    """
    for key in words:
        if key not in known:
            raise ValueError(
                f"{where}{said(key)}: unknown key; known: {', '.join(known)}{f' ({hint})' if hint else ''}"
            )


def _shipped() -> Path:
    return Path(str(importlib.resources.files("search_spaces")))


def _shipped_file(name: str) -> Path | None:
    if name in space_names() or (name.startswith("zoo/") and name.removeprefix("zoo/") in zoo_names()):
        return _shipped() / f"{name}.yaml"
    return None


def _base(raw: Any, path: Path) -> Path:
    """The file that the file at `path` extends."""
    text = str(raw)
    if base := _shipped_file(text):
        return base
    if isinstance(raw, str) and raw and (base := path.parent / user_path("extends", raw)) and is_file(base):
        if base.resolve().is_relative_to(path.parent.resolve()):
            return base.resolve()
        raise ValueError(
            f"extends: {shown(raw)} is not allowed; allowed: a file beside {path.name}, or in a folder there"
        )
    known = ", ".join([*space_names(), *(f"zoo/{name}" for name in zoo_names())])
    raise ValueError(f"extends: {shown(raw)} is not allowed; allowed: a file beside {path.name}, or one of {known}")

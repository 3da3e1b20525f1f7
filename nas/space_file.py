"""Reading search spaces and architectures from files, with errors that name the place in the file.

A space is YAML: `stem`, `stages` and `head` are lists of templates. In a template a plain value is fixed,
a list is a choice made once for the stage, `{per_block: [...]}` is made anew for each block,
`{from: 16, to: 64, step: 8}` stands for a list, and `{shared: name}` refers to the file's `choices`,
made once for the whole network. A file without any choice is one network: that is what the zoo holds.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from nas.architecture import Architecture, architecture_from_json
from nas.block_fields import FieldRule
from nas.blocks import BLOCK_SCHEMAS, block_schema, rules
from nas.config import user_path
from nas.space import SearchSpace
from nas.space_check import check_channels, check_head
from nas.stage import Choice, Stage

DEPTH = FieldRule(int, "number of blocks", low=0, high=200)
BLOCK = FieldRule(str, "block", options=tuple(BLOCK_SCHEMAS))
KEYS = ("description", "source", "choices", "stem", "stages", "head")


def load_space(name_or_path: str | Path) -> SearchSpace:
    """A search space by the name of a shipped one (`mobile`, `zoo/mobilenet_v2`) or the path of a YAML file.

    Raises:
        ValueError: unknown name, unreadable file, or a bad entry; the message names file, key, value
            and what is allowed.
    """
    path = _find(name_or_path)
    try:
        text = path.read_text(encoding="utf-8")
        words = yaml.load(text, Loader=_UniqueKeysLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"space={name_or_path}: cannot be read: {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    try:
        return _parse_space(words, path, text)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def load_architecture(source: str | Path) -> Architecture:
    """An architecture from a JSON text, a JSON or YAML file, or the name of a zoo network.

    Raises:
        ValueError: none of these, or a bad one.
    """
    text = str(source)
    if text.lstrip().startswith("{"):
        return architecture_from_json(text)
    path = Path(text)
    if path.suffix == ".json":
        try:
            return architecture_from_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from None
    known = zoo_names()
    if path.suffix in (".yaml", ".yml"):
        space = load_space(path)
    elif text.removeprefix("zoo/") in known:
        space = load_space(f"zoo/{text.removeprefix('zoo/')}")
    else:
        raise ValueError(f"architecture {text!r} is neither JSON, a file, nor in the zoo; zoo: {', '.join(known)}")
    if space.size != 1:
        raise ValueError(f"{space.path}: a space of {space.size} encodings, not one architecture")
    return space.architecture({})


def space_names() -> list[str]:
    """Names of the search spaces that come with the package."""
    return sorted(path.stem for path in _shipped().glob("*.yaml"))


def zoo_names() -> list[str]:
    """Names of the published networks that come with the package."""
    return sorted(path.stem for path in (_shipped() / "zoo").glob("*.yaml"))


class _UniqueKeysLoader(yaml.SafeLoader):
    """The safe loader, which also refuses a key that is written twice instead of taking the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping of a node."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is there twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _shipped() -> Path:
    return Path(str(importlib.resources.files("search_spaces")))


def _find(name_or_path: str | Path) -> Path:
    text = str(name_or_path)
    if text in space_names() or (text.removeprefix("zoo/") in zoo_names() and text.startswith("zoo/")):
        return _shipped() / f"{text}.yaml"
    if text and (path := user_path("space", text)).is_file():
        return path.resolve()
    raise ValueError(f"space={text}: no such space or file; known: {', '.join(space_names())}, or a path to a YAML")


def _parse_space(words: Any, path: Path, text: str) -> SearchSpace:
    if not isinstance(words, dict):
        raise ValueError(f"a space is a mapping with the keys {', '.join(KEYS)}")
    _reject_unknown(words, KEYS, "")
    shared = words.get("choices") or {}
    if not isinstance(shared, dict):
        raise ValueError(f"choices: {shared!r} is not allowed; allowed: a mapping of names to lists")
    for name in shared:
        if not str(name).isidentifier():  # other parameters have dots in their names
            raise ValueError(f"choices.{name}: this name is not allowed; allowed: letters, digits and _")
    raw_options = {str(name): _raw_options(raw, f"choices.{name}") for name, raw in shared.items()}
    stages = []
    for part in ("stem", "stages", "head"):
        templates = words.get(part, [])
        if not isinstance(templates, list) or (part == "head" and not templates):
            raise ValueError(f"{part}: {templates!r} is not allowed; allowed: a list of block templates")
        for i, template in enumerate(templates):
            prefix = f"{part.removesuffix('s')}{i + 1}"
            stages.append(_parse_stage(template, f"{part}[{i}]", prefix, part, raw_options))
    used = {c.shared: c.options for stage in stages for c in stage.choices() if c.shared}
    for name in raw_options:
        if name not in used:
            raise ValueError(f"choices.{name}: no stage refers to it; write {{shared: {name}}} where it decides")
    space = SearchSpace(
        name=path.stem,
        description=str(words.get("description") or "").strip(),
        source=str(words.get("source") or "").strip(),
        shared={name: used[name] for name in raw_options},
        stages=tuple(stages),
        path=path,
        text=text,
    )
    check_head(space)
    check_channels(space)
    return space


def _parse_stage(words: Any, where: str, prefix: str, part: str, shared: Mapping[str, list[Any]]) -> Stage:
    if not isinstance(words, dict) or "block" not in words:
        raise ValueError(f"{where}: {words!r} is not allowed; allowed: a mapping with the key 'block'")
    block = _parse_choice(words["block"], BLOCK, "block", where, shared)
    depth = _parse_choice(words.get("depth", 1), DEPTH, "depth", where, shared)
    if depth.per_block:
        raise ValueError(f"{where}.depth: per_block is not allowed; allowed: a value, a list, a range or shared")
    names = [str(name) for name in block.options]
    common = {key: raw for key, raw in words.items() if key not in ("block", "depth", *names)}
    settings: dict[str, dict[str, Choice]] = {}
    for name in names:
        own = words.get(name, {})
        if not isinstance(own, dict):
            raise ValueError(f"{where}.{name}: {own!r} is not allowed; allowed: a mapping of {name}'s settings")
        known = rules(block_schema(name))
        _reject_unknown(common, known, f"{where}.", f"settings of {name}, or in a mapping under a block's name")
        _reject_unknown(own, known, f"{where}.{name}.")
        settings[name] = {f: _parse_choice(raw, known[f], f, where, shared) for f, raw in common.items()}
        for field, raw in own.items():
            choice = _parse_choice(raw, known[field], f"{name}.{field}", where, shared)
            settings[name][field] = choice
        for field in block_schema(name).required_fields():
            if field not in settings[name]:
                raise ValueError(f"{where}.{field}: missing; allowed: {known[field].allowed}")
    return Stage(name=prefix, part=part, where=where, depth=depth, block=block, settings=settings)


def _parse_choice(raw: Any, rule: FieldRule, key: str, where: str, shared: Mapping[str, list[Any]]) -> Choice:
    at = f"{where}.{key}"
    name, per_block = None, False
    if isinstance(raw, dict) and set(raw) == {"shared"}:
        name = str(raw["shared"])
        if name not in shared:
            raise ValueError(f"{at}: shared choice {name!r} is unknown; known: {', '.join(shared) or 'none'}")
        options = shared[name]
    elif isinstance(raw, dict) and set(raw) == {"per_block"}:
        per_block, options = True, _raw_options(raw["per_block"], f"{at}.per_block")
    else:
        options = _raw_options(raw, at)
    parsed = []
    for option in options:
        try:
            parsed.append(rule.parse(option))
        except ValueError as error:
            raise ValueError(f"{at}: {error}") from None
    if len(set(parsed)) < len(parsed):
        raise ValueError(f"{at}: {parsed} names an option twice")
    return Choice(key=key, options=tuple(parsed), per_block=per_block, shared=name)


def _raw_options(raw: Any, where: str) -> list[Any]:
    """The options that a value, a list or a range of a file stands for, not yet held against a rule."""
    if isinstance(raw, dict):
        low, high, step = raw.get("from", ""), raw.get("to", ""), raw.get("step", 1)
        whole = all(type(bound) is int for bound in (low, high, step))
        if not set(raw) <= {"from", "to", "step"} or not whole or step < 1 or high < low or high - low > 10_000:
            raise ValueError(
                f"{where}: {raw!r} is not allowed; allowed: a value, a list, {{from: LOW, to: HIGH, step: STEP}}, "
                "{per_block: [...]} or {shared: NAME}"
            )
        return list(range(low, high + 1, step))
    if isinstance(raw, list):
        if not raw or any(isinstance(option, list | dict) for option in raw):
            raise ValueError(f"{where}: {raw!r} is not allowed; allowed: a list of at least one plain value")
        return raw
    return [raw]


def _reject_unknown(words: Mapping[Any, Any], known: Any, where: str, hint: str = "") -> None:
    for key in words:
        if key not in known:
            raise ValueError(f"{where}{key}: unknown key; known: {', '.join(known)}{f' ({hint})' if hint else ''}")

"""Reading search spaces and architectures from files, with errors that name the place in the file.

A space is YAML: `stem`, `stages` and `head` are lists of templates. In a template a plain value is fixed,
a list is a choice made once for the stage, `{per_block: [...]}` is made anew for each block, and
`{from: 16, to: 64, step: 8}` stands for a list. The file's `choices` are made once for the whole network:
`{shared: name}` is the chosen value, `{shared: name, times: 32, step: 8}` a multiple of it, and
`{given: name, VALUE: ..., else: ...}` has a case for each. `train` holds settings of the training (`nas.space_train`).
`extends` names another file and changes it.
A file without any choice is one network: that is what the zoo holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas.architecture import Architecture, architecture_from_json
from nas.block_fields import FieldRule, Value
from nas.blocks import BLOCK_SCHEMAS, block_schema, rules
from nas.bounded import one_line, read_text, said, shown
from nas.choice import Choice
from nas.space import SearchSpace
from nas.space_check import check_cases, check_channels, check_head
from nas.space_setting import PARTS, parse_setting, parse_shared, raw_section
from nas.space_train import parse_train
from nas.space_words import find_space, read_words, reject_unknown, space_names, zoo_names
from nas.stage import Stage

__all__ = ["load_architecture", "load_space", "space_names", "zoo_names"]

DEPTH = FieldRule(int, "number of blocks", low=0, high=200)
PUBLISHED = {
    "params": "parameters of the train form",
    "macs": "multiply-adds of the train form",
    "deploy_params": "parameters of the deploy form",
    "deploy_macs": "multiply-adds of the deploy form",
    "num_classes": "classes that the figures are for",
    "input_shape": "channels, height and width that the figures are for",
    "note": "a line for people",
}


def load_space(name_or_path: str | Path) -> SearchSpace:
    """A search space by the name of a shipped one (`mobile`, `zoo/mobilenet_v2`) or the path of a YAML file.

    Raises:
        ValueError: unknown name, unreadable file, or a bad entry; the message names file, key, value
            and what is allowed.
    """
    path = find_space(name_or_path)
    try:
        words, text = read_words(path)
        return _parse_space(words, path, text)
    except ValueError as error:
        raise ValueError(one_line(f"{path}: {error}")) from None


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
            return architecture_from_json(read_text(path))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    known = zoo_names()
    if path.suffix in (".yaml", ".yml"):
        space = load_space(path)
    elif text.removeprefix("zoo/") in known:
        space = load_space(f"zoo/{text.removeprefix('zoo/')}")
    else:
        raise ValueError(f"architecture {shown(text)} is neither JSON, a file, nor in the zoo; zoo: {', '.join(known)}")
    if space.size != 1:
        raise ValueError(f"{space.path}: a space of {space.size} encodings, not one architecture")
    return space.architecture({})


def _parse_space(words: Mapping[str, Any], path: Path, text: str) -> SearchSpace:
    choices = raw_section(words, "choices")
    for name in choices:
        if not str(name).isidentifier():  # other parameters have dots in their names
            raise ValueError(f"choices.{said(name)}: this name is not allowed; allowed: letters, digits and _")
    shared = {str(name): parse_shared(raw, f"choices.{name}") for name, raw in choices.items()}
    stages = []
    for part in PARTS:
        templates = words.get(part, [])
        if not isinstance(templates, list) or (part == "head" and not templates):
            raise ValueError(f"{part}: {shown(templates)} is not allowed; allowed: a list of block templates")
        for i, template in enumerate(templates):
            prefix = f"{part.removesuffix('s')}{i + 1}"
            stages.append(_parse_stage(template, f"{part}[{i}]", prefix, part, shared))
    space = SearchSpace(
        name=path.stem,
        description=str(words.get("description") or "").strip(),
        source=str(words.get("source") or "").strip(),
        shared=_typed(shared, stages),
        stages=tuple(stages),
        train=parse_train(words),
        path=path,
        text=text,
        published=_parse_published(words.get("published") or {}),
    )
    check_head(space)
    check_cases(space)
    check_channels(space)
    assert space.size > 0  # which refuses what cannot be counted
    return space


def _typed(shared: Mapping[str, tuple[Value, ...]], stages: list[Stage]) -> dict[str, tuple[Value, ...]]:
    """The file's choices, each in the type of a field whose value it is; all of them have to be referred to."""
    decisive = [choice for stage in stages for choice in stage.choices() if choice.given]
    for name in shared:
        if not any(choice.given == name for choice in decisive):
            raise ValueError(f"choices.{name}: no stage refers to it; write {{shared: {name}}} where it decides")
    as_values = {choice.given: choice.options for choice in decisive if not choice.cases}
    return {name: as_values.get(name, options) for name, options in shared.items()}


def _parse_published(words: Any) -> dict[str, Any]:
    """The figures that a source states for its network."""
    if not isinstance(words, dict):
        raise ValueError(
            f"published: {shown(words)} is not allowed; allowed: a mapping with the keys {', '.join(PUBLISHED)}"
        )
    reject_unknown(words, PUBLISHED, "published.")
    figures = {}
    for key, raw in words.items():
        if key == "note":
            good, allowed = isinstance(raw, str), "words"
        elif key == "input_shape":
            good = isinstance(raw, list) and len(raw) == 3 and all(_is_count(side) and side < 100_000 for side in raw)
            allowed = "[channels, height, width], whole numbers above 0"
        else:
            good = _is_count(raw) and (key != "num_classes" or raw <= 1_000_000)
            allowed = "a whole number above 0"
        if not good:
            raise ValueError(f"published.{key}: {shown(raw)} is not allowed; allowed: {allowed}")
        figures[key] = tuple(raw) if isinstance(raw, list) else raw
    return figures


def _is_count(raw: Any) -> bool:
    return type(raw) is int and 0 < raw < 10**18


def _parse_stage(words: Any, where: str, prefix: str, part: str, shared: Mapping[str, tuple[Value, ...]]) -> Stage:
    if not isinstance(words, dict) or "block" not in words:
        raise ValueError(f"{where}: {shown(words)} is not allowed; allowed: a mapping with the key 'block'")
    schemas = FieldRule(str, "block", options=tuple(BLOCK_SCHEMAS))  # now: plugins may have added to them
    block = parse_setting(words["block"], schemas, "block", where, shared)
    depth = parse_setting(words.get("depth", 1), DEPTH, "depth", where, shared)
    if depth.per_block:
        raise ValueError(f"{where}.depth: per_block is not allowed; allowed: a value, a list, a range, shared or given")
    names = [str(name) for name in block.options]
    common = {key: raw for key, raw in words.items() if key not in ("block", "depth", *names)}
    settings: dict[str, dict[str, Choice]] = {}
    for name in names:
        own = words.get(name, {})
        if not isinstance(own, dict):
            raise ValueError(f"{where}.{name}: {shown(own)} is not allowed; allowed: a mapping of {name}'s settings")
        known = rules(block_schema(name))
        reject_unknown(common, known, f"{where}.", f"settings of {name}, or in a mapping under a block's name")
        reject_unknown(own, known, f"{where}.{name}.")
        settings[name] = {f: parse_setting(raw, known[f], f, where, shared) for f, raw in common.items()}
        for field, raw in own.items():
            choice = parse_setting(raw, known[field], f"{name}.{field}", where, shared)
            settings[name][field] = choice
        for field in block_schema(name).required_fields():
            if field not in settings[name]:
                raise ValueError(f"{where}.{field}: missing; allowed: {known[field].allowed}")
    return Stage(name=prefix, part=part, where=where, depth=depth, block=block, settings=settings)

"""`extends`: the words of one space file changed by those of another."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from nas.blocks import BLOCK_SCHEMAS, rules
from nas.bounded import MOST_NODES, nodes_of, said, shown
from nas.space_setting import PARTS, option_key, raw_options, raw_section

Words = dict[str, Any]


def extended(base: Words, words: Words) -> Words:
    """The words of `base` with the changes that `words` make.

    Description and source are taken over where `words` have none, published figures never. Choices and settings of
    `train` are merged by name. A list replaces a part; a mapping changes the part's templates by their number from 1.

    Args:
        base: a space's words, without `extends`.
        words: a file's words.

    Raises:
        ValueError: a change of what is not there; the message names the place and what is allowed.
    """
    base_choices, choices = raw_section(base, "choices"), _merged_section(base, words, "choices")
    merged = {**{key: base[key] for key in base if key != "published"}, **words}
    gone = _gone(base_choices, choices)
    for part in PARTS:
        templates = _without_cases(base.get(part) or [], gone)
        if gone and isinstance(templates, list):
            templates = [_without_dead_blocks(template, choices) for template in templates]
        if isinstance(words.get(part), dict):
            merged[part] = _changed_part(part, templates, words[part], choices)
        elif part not in words and part in base:
            merged[part] = templates
    for section, settings in (("choices", choices), ("train", _merged_section(base, words, "train"))):
        if settings or section in merged:
            merged[section] = settings
    order = ("description", "source", "published", "choices", "train", *PARTS)
    return {key: merged[key] for key in order if key in merged}


def _merged_section(base: Words, words: Words, section: str) -> Words:
    """The section of `base` with the changes that `words` make to it, by name."""
    before, changes = raw_section(base, section), raw_section(words, section)
    known = [*before, *(name for name, options in changes.items() if options is not None)]
    return _changed(before, changes, f"{section}.", known)


def _changed_part(part: str, base: Any, changes: dict[Any, Any], choices: Words) -> list[Any]:
    """The templates of a part with their changes; those of a number go before those of `all`."""
    if not isinstance(base, list) or not all(isinstance(template, dict) for template in base):
        raise ValueError(f"{part}: what is extended there is no list of block templates")
    for number, change in changes.items():
        if number != "all" and not (type(number) is int and 1 <= number <= len(base)):
            numbers = [*map(str, range(1, len(base) + 1)), "all"]
            raise ValueError(f"{part}.{said(number)}: unknown template; known: {', '.join(numbers)}")
        if not isinstance(change, dict) and (number == "all" or change is not None):
            raise ValueError(
                f"{part}.{said(number)}: {shown(change)} is not allowed; allowed: a mapping of settings"
                f"{'' if number == 'all' else ', or null, which removes the template'}"
            )
    everywhere = changes.get("all", {})
    if (written := len(base) * nodes_of(everywhere)) > MOST_NODES:
        raise ValueError(f"{part}.all: {written:,} values in all templates are not allowed; allowed: {MOST_NODES:,}")
    left, known_somewhere = [], {}
    for number, template in enumerate(base, start=1):
        change = changes.get(number, {})
        if change is None:
            continue
        block = {**template, **everywhere, **change}.get("block")
        settings = _known_settings(block, choices)
        removable = dict.fromkeys([*settings, *template])
        known_somewhere |= removable
        common = {k: v for k, v in everywhere.items() if k in (removable if v is None else settings)}
        # A copy each, so that the YAML that is written of it has no references from template to template.
        changed = _changed(template, copy.deepcopy(common), f"{part}.all.", removable)
        left.append(_changed(changed, change, f"{part}.{number}.", removable))
    for key in everywhere:
        if key not in known_somewhere:
            raise ValueError(f"{part}.all.{said(key)}: unknown key; known: {', '.join(map(said, known_somewhere))}")
    return left


def _changed(words: Words, changes: Words, where: str, known: Any) -> Words:
    """A mapping with some keys replaced, and those that are null removed."""
    for key in changes:
        if key not in known:
            raise ValueError(f"{where}{said(key)}: unknown key; known: {', '.join(map(said, known)) or 'none'}")
    merged = {**words, **changes}
    return {key: value for key, value in merged.items() if key not in changes or value is not None}


def _known_settings(block: Any, choices: Words) -> list[str]:
    """What a template of these blocks may say: its own keys, its blocks' names, the fields that all of them have."""
    names = _block_names(block, choices)
    fields = [list(rules(BLOCK_SCHEMAS[name])) for name in names]
    return ["block", "depth", *names, *(f for f in (fields[0] if fields else []) if all(f in each for each in fields))]


def _block_names(block: Any, choices: Words) -> list[str]:
    """The blocks that a template's `block` may come to."""
    if isinstance(block, dict) and "shared" in block:
        block = choices.get(str(block["shared"]))
    elif isinstance(block, dict):
        cases = [case for key, case in block.items() if key != "given"]
        block = [name for case in cases for name in (case if isinstance(case, list) else [case])]
    listed = block if isinstance(block, list) else [block]
    return [name for name in listed if isinstance(name, str) and name in BLOCK_SCHEMAS]


def _gone(base: Words, choices: Words) -> dict[str, set[Any]]:
    """By name, the keys of options that a choice no longer has."""
    gone = {}
    for name in base.keys() & choices.keys():
        before, now = (raw_options(words[name], f"choices.{name}") for words in (base, choices))
        kept = set(map(option_key, now))
        gone[name] = {key for key in map(option_key, before) if key not in kept}
    return gone


def _without_cases(words: Any, gone: Mapping[str, set[Any]]) -> Any:
    """Words without the cases of options that are gone."""
    if isinstance(words, list):
        return [_without_cases(each, gone) for each in words]
    if not isinstance(words, dict):
        return words
    never = gone.get(str(words.get("given")), ())
    return {
        key: _without_cases(value, gone)
        for key, value in words.items()
        if key in ("given", "else") or option_key(key) not in never
    }


def _without_dead_blocks(template: Any, choices: Words) -> Any:
    """A template without the settings of blocks that a narrowed choice has ruled out."""
    if not isinstance(template, dict):
        return template
    alive = _block_names(template.get("block"), choices)
    return {key: value for key, value in template.items() if key not in BLOCK_SCHEMAS or key in alive}

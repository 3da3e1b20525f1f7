"""From an architecture back to the choices that make it."""

from __future__ import annotations

from collections.abc import Mapping

from nas.block_fields import Value
from nas.blocks import Block
from nas.stage import Choice, Stage


def encoding_of(
    blocks: tuple[Block, ...], stages: tuple[Stage, ...], shared: Mapping[str, tuple[Value, ...]]
) -> dict[str, Value] | None:
    """The choices under which `stages` make `blocks`, or None. `blocks` are divided by trying every depth."""
    dead: set[tuple[int, int, frozenset[tuple[str, Value]]]] = set()

    def search(i: int, start: int, bound: dict[str, Value]) -> dict[str, Value] | None:
        if i == len(stages):
            return bound if start == len(blocks) else None
        # What a stage bound matters to later ones only where it is shared.
        state = (i, start, frozenset((name, value) for name, value in bound.items() if name in shared))
        if state in dead:
            return None
        for depth in map(int, stages[i].depth.options):
            extended = dict(bound)
            if start + depth <= len(blocks) and _fits(stages[i], blocks[start : start + depth], extended):
                found = search(i + 1, start + depth, extended)
                if found is not None:
                    return found
        dead.add(state)
        return None

    found = search(0, 0, {})
    # A shared choice that no block of this network asks for is free: its first option will do.
    unused = {name: options[0] for name, options in shared.items() if len(options) > 1}
    return None if found is None else unused | found


def _fits(stage: Stage, run: tuple[Block, ...], bound: dict[str, Value]) -> bool:
    """Whether a stage can make these blocks under the choices already bound; binds those that it takes."""
    if not _bind(stage.depth, len(run), stage.depth.name(stage.name, 0), bound):
        return False
    for i, block in enumerate(run):
        if not _bind(stage.block, block.name, stage.block.name(stage.name, i), bound):
            return False
        given = stage.settings[block.name]
        template = {field: given[field] for field in given if field != "stride" or i == 0}
        values = {field: getattr(block, field) for field in template}
        if not all(_bind(c, values[field], c.name(stage.name, i), bound) for field, c in template.items()):
            return False
        # Fields that the file does not mention, and later strides, must have their defaults.
        if type(block)(**values) != block:
            return False
    return True


def _bind(choice: Choice, value: Value, name: str, bound: dict[str, Value]) -> bool:
    if value not in choice.options or bound.get(name, value) != value:
        return False
    if len(choice.options) > 1:
        bound[name] = value
    return True

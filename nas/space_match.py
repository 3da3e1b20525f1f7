"""From an architecture back to the choices that make it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nas.block_fields import Value
from nas.blocks import Block
from nas.stage import Choice, Stage


def encodings_of(
    blocks: tuple[Block, ...], stages: tuple[Stage, ...], shared: Mapping[str, tuple[Value, ...]]
) -> Iterator[dict[str, Value]]:
    """All ways to divide `blocks` among `stages`, each as the choices that it takes."""

    def search(i: int, start: int, bound: dict[str, Value]) -> Iterator[dict[str, Value]]:
        if i == len(stages):
            if start == len(blocks):
                # A shared choice that no block of this network asks for is free: its first option will do.
                unused = {name: options[0] for name, options in shared.items() if len(options) > 1}
                yield unused | bound
            return
        for depth in map(int, stages[i].depth.options):
            extended = dict(bound)
            if start + depth <= len(blocks) and _fits(stages[i], blocks[start : start + depth], extended):
                yield from search(i + 1, start + depth, extended)

    return search(0, 0, {})


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

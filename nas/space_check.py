"""Checks that no combination of a space's choices is an impossible network."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

from nas.block_fields import Value
from nas.blocks import block_schema, rules
from nas.space import SearchSpace
from nas.stage import Stage


def check_head(space: SearchSpace) -> None:
    """Every network ends with its one classifier."""
    for i, stage in enumerate(space.stages):
        last = i == len(space.stages) - 1
        if ("classifier" in stage.block.options) != last or (
            last and (stage.block.options != ("classifier",) or stage.depth.options != (1,))
        ):
            raise ValueError(f"{stage.name}.block: the last block of the head is 'classifier', and no other is")


def check_channels(space: SearchSpace) -> None:
    """Holds groups against channels for every combination that the space can make."""
    shaping = {
        choice.shared
        for stage in space.stages
        for name, fields in stage.settings.items()
        for field, choice in fields.items()
        if choice.shared and rules(block_schema(name))[field].shapes
    }
    for values in itertools.product(*(space.shared[name] for name in sorted(shaping))):
        shared = dict(zip(sorted(shaping), values, strict=True))
        arriving = {1, 3}
        for stage in space.stages:
            leaving: set[int] = set()
            for in_channels in sorted(arriving):
                leaving |= _leaving(stage, in_channels, shared)
            if max(map(int, stage.depth.options)) > 1:
                for in_channels in sorted(leaving):
                    leaving |= _leaving(stage, in_channels, shared)
            arriving = leaving | (arriving if 0 in stage.depth.options else set())


def _leaving(stage: Stage, in_channels: int, shared: Mapping[str, Value]) -> set[int]:
    """The channel counts that may leave a block of the stage, each combination of settings checked."""
    leaving = set()
    for name, fields in _shape_combinations(stage, shared):
        block = block_schema(name)(**fields)
        try:
            block.check(in_channels)
        except ValueError as error:
            raise ValueError(f"{stage.name}: {error}") from None
        leaving.add(block.output_channels(in_channels))
    return leaving


def _shape_combinations(stage: Stage, shared: Mapping[str, Value]) -> Iterator[tuple[str, dict[str, Value]]]:
    for name, fields in stage.settings.items():
        known = rules(block_schema(name))
        options = {
            field: (shared[choice.shared],) if choice.shared and choice.shared in shared else choice.options
            for field, choice in fields.items()
            if known[field].shapes
        }
        for values in itertools.product(*options.values()):
            yield name, dict(zip(options, values, strict=True))

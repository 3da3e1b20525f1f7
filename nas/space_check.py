"""Checks that no combination of a space's choices is an impossible network."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

from nas.block_fields import Value
from nas.blocks import block_schema, rules
from nas.space import SearchSpace
from nas.stage import Stage


def check_head(space: SearchSpace) -> None:
    """Holds that every network ends with its one classifier.

    Raises:
        ValueError: it does not; the message names the place in the file.
    """
    *before, last = space.stages
    for stage in before:
        if "classifier" in stage.block.options:
            raise ValueError(f"{stage.where}.block: 'classifier' is allowed as the last block of the head only")
    if last.block.options != ("classifier",):
        names = ", ".join(map(str, last.block.options))
        raise ValueError(f"{last.where}.block: {names} is not allowed; the last block of the head is 'classifier'")
    if last.depth.options != (1,):
        raise ValueError(f"{last.where}.depth: {list(last.depth.options)} is not allowed; there is 1 classifier")


def check_channels(space: SearchSpace) -> None:
    """Holds groups against channels for every combination that the space can make.

    Raises:
        ValueError: groups that do not divide; the message names the place in the file.
    """
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
            raise ValueError(f"{stage.where}: {error}") from None
        leaving.add(block.output_channels(in_channels))
    return leaving


def _shape_combinations(stage: Stage, shared: Mapping[str, Value]) -> Iterator[tuple[str, dict[str, Value]]]:
    for name, fields in stage.settings.items():
        known = rules(block_schema(name))
        grouped = "groups" in fields and fields["groups"].options != (1,)
        options = {
            field: (shared[choice.shared],) if choice.shared and choice.shared in shared else choice.options
            for field, choice in fields.items()
            if known[field].shapes and (grouped or field == "out_channels")
        }
        for values in itertools.product(*options.values()):
            yield name, dict(zip(options, values, strict=True))

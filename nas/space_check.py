"""Checks that no combination of a space's choices is an impossible network."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping

from nas.block_fields import Value
from nas.blocks import Block, block_schema, rules
from nas.choice import Choice
from nas.space import SearchSpace
from nas.space_weight import Steps
from nas.stage import Stage

KNOWN_PER_STEP = 16  # channel counts that are known to fit cost so much less than one that has to be tried
Bound = tuple[tuple[str, Value], ...]  # shared choices that are made, by name


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


def check_cases(space: SearchSpace) -> None:
    """Holds that a case stands wherever a network can ask for a setting that is given by a shared choice.

    Raises:
        ValueError: a case is missing; the message names the place in the file, the choice and its value.
    """
    steps = Steps("tell whether a case is missing")
    for stage in space.stages:
        settings = [(choice, name) for name, fields in stage.settings.items() for choice in fields.values()]
        for choice, name in [(stage.depth, None), (stage.block, None), *settings]:
            for value in space.shared[choice.given] if choice.given else ():
                steps.take(_ways(space, {c.given for c in (stage.depth, stage.block) if c.given}), stage.where)
                made = {str(choice.given): value}
                if choice.under(made) is None and (choice is stage.depth or _can_be(name, stage, made, space)):
                    raise ValueError(
                        f"{stage.where}.{choice.key}: there is no case for {choice.given}: {value}; "
                        "allowed: a case for each value at which the setting is asked for, or else"
                    )


def _ways(space: SearchSpace, names: Iterable[str]) -> int:
    """Ways to make shared choices."""
    return math.prod(len(space.shared[name]) for name in names)


def _can_be(name: str | None, stage: Stage, made: Mapping[str, Value], space: SearchSpace) -> bool:
    """Whether a block of this name (None: any) can be in the stage where some shared choices are made."""
    left = sorted({c.given for c in (stage.depth, stage.block) if c.given} - set(made))
    for values in itertools.product(*(space.shared[each] for each in left)):
        shared = {**made, **dict(zip(left, values, strict=True))}
        depth, block = stage.depth.under(shared), stage.block.under(shared)
        if depth and max(map(int, depth.options)) > 0 and (name is None or (block and name in block.options)):
            return True
    return False


def check_channels(space: SearchSpace) -> None:
    """Holds every block against the channels that can enter it, in every combination that the space can make.

    What is carried from stage to stage is the set of channel counts for each way to make those shared choices
    that later stages refer to as well.

    Raises:
        ValueError: a block that does not fit, such as groups that do not divide; the message names the place in
            the file.
    """
    shaping = [{c.given for c in (stage.depth, stage.block, *_shapes(stage)) if c.given} for stage in space.stages]
    arriving: dict[Bound, set[int]] = {(): {1, 3}}
    steps = Steps("tell whether channels fit")
    for i, stage in enumerate(space.stages):
        later = set().union(*shaping[i + 1 :])
        leaving: dict[Bound, set[int]] = {}
        for bound, channels in arriving.items():
            names = sorted(shaping[i] - dict(bound).keys())
            steps.take(_ways(space, names), stage.where)
            for values in itertools.product(*(space.shared[name] for name in names)):
                made = {**dict(bound), **dict(zip(names, values, strict=True))}
                kept = tuple(sorted((name, value) for name, value in made.items() if name in later))
                leaving.setdefault(kept, set()).update(_leaving(stage.resolve(made), channels, steps))
        arriving = leaving


def _shapes(stage: Stage) -> Iterator[Choice]:
    """The settings that decide about channels."""
    for name in stage.settings:
        yield from _shape_fields(stage, name).values()


def _shape_fields(stage: Stage, name: str) -> dict[str, Choice]:
    """Those of a block's settings that decide about channels, and those that it cannot be made without."""
    schema = block_schema(name)
    known, required = rules(schema), schema.required_fields()
    return {f: choice for f, choice in stage.settings[name].items() if known[f].shapes or f in required}


def _leaving(stage: Stage, arriving: set[int], steps: Steps) -> set[int]:
    """The channel counts that may leave a resolved stage."""
    depths = set(map(int, stage.depth.options))
    leaving = set(arriving) if 0 in depths else set()
    for blocks in _block_sets(stage, steps) if max(depths) > 0 else ():
        known: list[tuple[Block, dict[int, int]]] = [(block, {}) for block in blocks]
        channels = arriving
        for depth in range(1, max(depths) + 1):
            before, channels = channels, set()
            for block, passed in known:
                new = before - passed.keys()
                steps.take(1 + len(new) + len(before) // KNOWN_PER_STEP, stage.where)
                passed.update({count: _through(stage, block, count) for count in new})
                channels.update(passed[count] for count in before)
            if depth in depths or channels == before:
                leaving |= channels
            if channels == before:  # more blocks of the stage change nothing
                break
    return leaving


def _through(stage: Stage, block: Block, in_channels: int) -> int:
    try:
        block.check(in_channels)
    except ValueError as error:
        raise ValueError(f"{stage.where}: {error}") from None
    return block.output_channels(in_channels)


def _block_sets(stage: Stage, steps: Steps) -> Iterator[list[Block]]:
    """For each way to make a resolved stage's own choices, the blocks that may stand anywhere in it."""
    for names in [list(stage.settings)] if stage.block.per_block else [[name] for name in stage.settings]:
        shapes = {name: _shape_fields(stage, name) for name in names}
        once = {c.key: c.options for fields in shapes.values() for c in fields.values() if not c.per_block}
        for values in itertools.product(*once.values()):
            made = {key: (value,) for key, value in zip(once, values, strict=True)}
            blocks = []
            for name, fields in shapes.items():
                options = [made.get(choice.key, choice.options) for choice in fields.values()]
                steps.take(math.prod(map(len, options)), stage.where)
                blocks += [
                    block_schema(name)(**dict(zip(fields, combination, strict=True)))
                    for combination in itertools.product(*options)
                ]
            yield blocks

"""Templates of a search space: a stage of blocks, and the choices that its settings leave open."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from nas.block_fields import Value
from nas.blocks import Block, block_schema


@dataclass(frozen=True)
class Choice:
    """The values that one setting may take; with a single option it is fixed and never asked for.

    Attributes:
        key: the setting's name within its stage, e.g. `kernel_size` or `bottleneck.expansion`.
        options: the values, at least one.
        per_block: asked for anew in each block of the stage.
        shared: name of the space-wide choice that decides instead, if any.
    """

    key: str
    options: tuple[Value, ...]
    per_block: bool = False
    shared: str | None = None

    def name(self, stage: str, block: int) -> str:
        """The parameter's name in a trial; dots, since Ray's flattening owns the slash."""
        if self.shared:
            return self.shared
        return f"{stage}.block{block + 1}.{self.key}" if self.per_block else f"{stage}.{self.key}"


@dataclass(frozen=True)
class Stage:
    """A template of consecutive blocks; stem and head are made of such templates as well.

    Attributes:
        name: prefix of its parameters: stem1, stage2, head1, ...
        part: `stem`, `stages` or `head`.
        depth: number of blocks; 0 leaves the stage out.
        block: names of block schemas.
        settings: for each block name, a choice for each field that the file mentions.
    """

    name: str
    part: str
    depth: Choice
    block: Choice
    settings: Mapping[str, Mapping[str, Choice]]

    def choices(self) -> Iterator[Choice]:
        """Every choice of the stage, each once."""
        yield self.depth
        yield self.block
        yield from {choice.key: choice for fields in self.settings.values() for choice in fields.values()}.values()

    def assemble(self, pick: Callable[[Choice, int], Value]) -> tuple[Block, ...]:
        """The stage's blocks; only the first one has the stage's stride."""
        blocks = []
        for i in range(int(pick(self.depth, 0))):
            name = str(pick(self.block, i))
            fields = {
                field: pick(choice, i) for field, choice in self.settings[name].items() if field != "stride" or i == 0
            }
            blocks.append(block_schema(name)(**fields))
        return tuple(blocks)

    def encodings(self, shared: Mapping[str, Value]) -> int:
        """Number of ways to make this stage's own choices, given the shared ones."""
        depths = (shared[self.depth.shared],) if self.depth.shared else self.depth.options
        names = (shared[self.block.shared],) if self.block.shared else self.block.options

        def ways(name: Value, per_block: bool, first: bool = True) -> int:
            fields = self.settings[str(name)].items()
            own = (c for f, c in fields if not c.shared and c.per_block == per_block and (first or f != "stride"))
            return math.prod(len(choice.options) for choice in own)

        def chain(names: tuple[Value, ...], depth: int) -> int:
            each = sum(ways(name, True, first=False) for name in names)
            return sum(ways(name, True) for name in names) * each ** (depth - 1)

        total = 0
        for depth in map(int, depths):
            if depth == 0:
                total += 1
            elif self.block.per_block:  # the loader lets only per-block settings depend on a per-block name
                total += ways(names[0], False) * chain(names, depth)
            else:
                total += sum(ways(name, False) * chain((name,), depth) for name in names)
        return total

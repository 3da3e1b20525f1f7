"""Templates of a search space: a stage of blocks, and the choices that its settings leave open."""

from __future__ import annotations

import itertools
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
        where: its place in the file, e.g. `stages[0]`.
        depth: number of blocks; 0 leaves the stage out.
        block: names of block schemas.
        settings: for each block name, a choice for each field that the file mentions.
    """

    name: str
    part: str
    where: str
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
        most = len(names) if self.block.per_block else 1
        used_sets = [used for size in range(1, most + 1) for used in itertools.combinations(map(str, names), size)]
        total = 0
        for depth in map(int, depths):
            if depth == 0:
                total += 1
                continue
            for used in used_sets:
                once = {c.key: c.options for name in used for c in self._own(name, per_block=False)}
                total += math.prod(map(len, once.values())) * self._chains_of_exactly(used, depth)
        return total

    def _own(self, name: str, per_block: bool) -> list[Choice]:
        """The choices of a block name that are neither shared nor the stride."""
        fields = self.settings[name].items()
        return [c for f, c in fields if f != "stride" and not c.shared and c.per_block == per_block]

    def _chains_of_exactly(self, used: tuple[str, ...], depth: int) -> int:
        """Ways to make the per-block choices of `depth` blocks in which just the names `used` occur, all of them.

        By inclusion and exclusion over the subsets of `used`. The first block also has the stride.
        """

        def later(name: str) -> int:
            return math.prod(len(choice.options) for choice in self._own(name, per_block=True))

        def first(name: str) -> int:
            stride = self.settings[name].get("stride")
            return later(name) * (len(stride.options) if stride and not stride.shared else 1)

        total = 0
        for size in range(1, len(used) + 1):
            for subset in itertools.combinations(used, size):
                within = sum(map(first, subset)) * sum(map(later, subset)) ** (depth - 1)
                total += (-1) ** (len(used) - size) * within
        return total

"""Templates of a search space: a stage of blocks, and the choices that its settings leave open."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from nas.block_fields import Value
from nas.blocks import Block, block_schema
from nas.choice import Choice


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

    def resolve(self, shared: Mapping[str, Value]) -> Stage:
        """The stage under values of shared choices: nothing in it is given any more.

        A setting that has no case there is left out: no block that asks for it can be there. So is one whose
        shared choice is not among `shared`; depth and block need theirs.
        """
        depth, block = self.depth.under(shared), self.block.under(shared)
        assert depth is not None
        if block is None:  # the stage has no block there
            block = Choice(self.block.key, ())
        settings = {}
        for name in map(str, block.options):
            cases = {field: choice.under(shared) for field, choice in self.settings[name].items()}
            settings[name] = {field: case for field, case in cases.items() if case is not None}
        return replace(self, depth=depth, block=block, settings=settings)

    def assemble(self, pick: Callable[[Choice, int], Value]) -> tuple[Block, ...]:
        """The blocks of a resolved stage; only the first one has the stage's stride."""
        blocks = []
        for i in range(int(pick(self.depth, 0))):
            name = str(pick(self.block, i))
            fields = {
                field: pick(choice, i) for field, choice in self.settings[name].items() if field != "stride" or i == 0
            }
            blocks.append(_block(name, tuple(fields.items())))
        return tuple(blocks)

    def encodings(self) -> int:
        """Number of ways to make the choices of a resolved stage."""
        names = self.block.options
        most = len(names) if self.block.per_block else 1
        used_sets = [used for size in range(1, most + 1) for used in itertools.combinations(map(str, names), size)]
        total = 0
        for depth in map(int, self.depth.options):
            if depth == 0:
                total += 1
                continue
            for used in used_sets:
                once = {c.key: c.options for name in used for c in self._own(name, per_block=False)}
                total += math.prod(map(len, once.values())) * self._chains_of_exactly(used, depth)
        return total

    def _own(self, name: str, per_block: bool) -> list[Choice]:
        """The choices of a block name but for the stride."""
        return [c for f, c in self.settings[name].items() if f != "stride" and c.per_block == per_block]

    def _chains_of_exactly(self, used: tuple[str, ...], depth: int) -> int:
        """Ways to make the per-block choices of `depth` blocks in which just the names `used` occur, all of them.

        By inclusion and exclusion over the subsets of `used`. The first block also has the stride.
        """

        def later(name: str) -> int:
            return math.prod(len(choice.options) for choice in self._own(name, per_block=True))

        def first(name: str) -> int:
            stride = self.settings[name].get("stride")
            return later(name) * (len(stride.options) if stride else 1)

        total = 0
        for size in range(1, len(used) + 1):
            for subset in itertools.combinations(used, size):
                within = sum(map(first, subset)) * sum(map(later, subset)) ** (depth - 1)
                total += (-1) ** (len(used) - size) * within
        return total


@lru_cache(maxsize=2**14)  # a search assembles thousands of architectures of the same blocks
def _block(name: str, fields: tuple[tuple[str, Value], ...]) -> Block:
    return block_schema(name)(**dict(fields))

"""SearchSpace: which architectures may be proposed, as choices that are made one after another.

Everything rests on one walk, `SearchSpace.assemble(choose)`: it makes each choice by calling
`choose(name, options)` and returns the architecture. Sampling, Optuna's define-by-run, replaying and
enumerating are the same walk with another `choose`, so a conditional choice (a block that a shallower
stage does not have) exists only where the walk gets to it.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nas.architecture import Architecture
from nas.blocks import Block, Value, block_schema

if TYPE_CHECKING:
    import numpy as np
    import optuna

Choose = Callable[[str, tuple[Value, ...]], Value]
Choices = Mapping[str, Value]


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
        yield from {
            choice.key: choice for fields in self.settings.values() for choice in fields.values()
        }.values()

    def assemble(self, pick: Callable[[Choice, int], Value]) -> tuple[Block, ...]:
        """The stage's blocks; only the first one has the stage's stride."""
        blocks = []
        for i in range(int(pick(self.depth, 0))):
            name = str(pick(self.block, i))
            fields = {
                field: pick(choice, i)
                for field, choice in self.settings[name].items()
                if field != "stride" or i == 0
            }
            blocks.append(block_schema(name)(**fields))
        return tuple(blocks)

    def encodings(self, shared: Choices) -> int:
        """Number of ways to make this stage's own choices, given the shared ones."""
        depths = (shared[self.depth.shared],) if self.depth.shared else self.depth.options
        names = (shared[self.block.shared],) if self.block.shared else self.block.options

        def ways(name: Value, per_block: bool, first: bool = True) -> int:
            fields = self.settings[str(name)].items()
            own = (
                c for f, c in fields if not c.shared and c.per_block == per_block and (first or f != "stride")
            )
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


@dataclass(frozen=True)
class SearchSpace:
    """A declared set of architectures.

    Attributes:
        name: the file's name without suffix.
        description: one or two sentences for people.
        source: paper or origin.
        shared: choices made once for the whole network.
        stages: templates in order, those of stem and head included.
        path: the file that it came from.
    """

    name: str
    description: str
    source: str
    shared: Mapping[str, tuple[Value, ...]]
    stages: tuple[Stage, ...]
    path: Path

    def assemble(self, choose: Choose) -> Architecture:
        """Walks through the choices and returns the architecture that they make."""
        chosen: dict[str, Value] = {}

        def decide(name: str, options: tuple[Value, ...]) -> Value:
            if len(options) == 1:
                return options[0]
            if name not in chosen:
                chosen[name] = choose(name, options)
            return chosen[name]

        for name, options in self.shared.items():
            decide(name, options)
        parts: dict[str, list[tuple[Block, ...]]] = {"stem": [], "stages": [], "head": []}
        for stage in self.stages:
            blocks = stage.assemble(
                lambda choice, i, stage=stage: decide(choice.name(stage.name, i), choice.options)
            )
            parts[stage.part].append(blocks)
        return Architecture(
            stem=tuple(itertools.chain(*parts["stem"])),
            stages=tuple(parts["stages"]),
            head=tuple(itertools.chain(*parts["head"])),
        )

    def sample(self, rng: random.Random | np.random.Generator | int) -> Architecture:
        """A random architecture, uniform over the options of each choice that it meets."""
        return self.assemble(random_choose(rng))

    def sample_choices(self, rng: random.Random | np.random.Generator | int) -> dict[str, Value]:
        """The choices of a random architecture, as `sample` draws it."""
        return self.choices_made(random_choose(rng))

    def choices_made(self, choose: Choose) -> dict[str, Value]:
        """What `choose` chose on the walk, by parameter name."""
        made: dict[str, Value] = {}

        def recording(name: str, options: tuple[Value, ...]) -> Value:
            made[name] = choose(name, options)
            return made[name]

        self.assemble(recording)
        return made

    def suggest(self, trial: optuna.trial.BaseTrial) -> Architecture:
        """The architecture that an Optuna trial proposes, define-by-run.

        Whole numbers at equal steps are offered as ordered integers, everything else as categories.
        """
        return self.assemble(lambda name, options: _suggest(trial, name, options))

    def architecture(self, choices: Choices) -> Architecture:
        """The architecture of recorded choices.

        Raises:
            ValueError: a choice is missing or not among its options.
        """

        def replay(name: str, options: tuple[Value, ...]) -> Value:
            if choices.get(name) not in options:
                raise ValueError(
                    f"{name}: {choices.get(name)!r} is not allowed in space {self.name!r}: {options}"
                )
            return choices[name]

        return self.assemble(replay)

    def encode(self, arch: Architecture) -> dict[str, Value] | None:
        """Choices that make `arch`, or None if the space does not contain it."""
        return next(_match(self.stages, arch.blocks, self.shared), None)

    def contains(self, arch: Architecture) -> bool:
        """Whether some choices make this network (stage borders don't count, as in `arch_id`)."""
        return self.encode(arch) is not None

    @property
    def size(self) -> int:
        """Number of encodings: the different ways to make all choices."""
        structural = {c.shared for stage in self.stages for c in (stage.depth, stage.block) if c.shared}
        free = math.prod(len(options) for name, options in self.shared.items() if name not in structural)
        total = 0
        for values in itertools.product(*(self.shared[name] for name in sorted(structural))):
            shared = dict(zip(sorted(structural), values, strict=True))
            total += math.prod(stage.encodings(shared) for stage in self.stages)
        return free * total

    def enumerate(self) -> Iterator[dict[str, Value]]:
        """The choices of every encoding, in a fixed order. Look at `size` first."""
        path: list[tuple[str, tuple[Value, ...], int]] = []
        while True:
            step = itertools.count()

            def choose(name: str, options: tuple[Value, ...], step: Iterator[int] = step) -> Value:
                i = next(step)
                if i == len(path):
                    path.append((name, options, 0))
                return options[path[i][2]]

            self.assemble(choose)
            yield {name: options[index] for name, options, index in path}
            while path and path[-1][2] == len(path[-1][1]) - 1:
                path.pop()
            if not path:
                return
            name, options, index = path.pop()
            path.append((name, options, index + 1))

    def count_distinct(self, limit: int = 100_000) -> int | None:
        """Number of distinct architectures by `arch_id`; None if the space has over `limit` encodings."""
        if self.size > limit:
            return None
        return len({self.architecture(choices).arch_id for choices in self.enumerate()})


def random_choose(rng: random.Random | np.random.Generator | int) -> Choose:
    """A `choose` that draws uniformly; takes a seed, or Python's or NumPy's generator."""
    source = random.Random(rng) if isinstance(rng, int) else rng
    return lambda name, options: options[int(source.random() * len(options))]


def _suggest(trial: optuna.trial.BaseTrial, name: str, options: tuple[Value, ...]) -> Value:
    if all(type(option) is int for option in options):
        numbers = [int(option) for option in options]
        steps = {after - before for before, after in itertools.pairwise(numbers)}
        if len(steps) == 1 and min(steps) > 0:
            return trial.suggest_int(name, numbers[0], numbers[-1], step=min(steps))
    return trial.suggest_categorical(name, options)


def _match(
    stages: tuple[Stage, ...], blocks: tuple[Block, ...], shared: Mapping[str, tuple[Value, ...]]
) -> Iterator[dict[str, Value]]:
    """All ways to divide `blocks` among `stages`, each as the choices that it takes."""

    def bind(choice: Choice, value: Value, name: str, bound: dict[str, Value]) -> bool:
        if value not in choice.options or bound.get(name, value) != value:
            return False
        if len(choice.options) > 1:
            bound[name] = value
        return True

    def fits(stage: Stage, run: tuple[Block, ...], bound: dict[str, Value]) -> bool:
        if not bind(stage.depth, len(run), stage.depth.name(stage.name, 0), bound):
            return False
        for i, block in enumerate(run):
            if not bind(stage.block, block.name, stage.block.name(stage.name, i), bound):
                return False
            given = stage.settings[block.name]
            template = {field: given[field] for field in given if field != "stride" or i == 0}
            if not all(bind(c, getattr(block, f), c.name(stage.name, i), bound) for f, c in template.items()):
                return False
            # Fields that the file does not mention, and later strides, have their defaults.
            fixed = type(block)(**{field: getattr(block, field) for field in template})
            if fixed != block:
                return False
        return True

    def search(i: int, start: int, bound: dict[str, Value]) -> Iterator[dict[str, Value]]:
        if i == len(stages):
            if start == len(blocks):
                # A shared choice that no block of this network asks for is free: its first option will do.
                unused = {name: options[0] for name, options in shared.items() if len(options) > 1}
                yield unused | bound
            return
        for depth in map(int, stages[i].depth.options):
            extended = dict(bound)
            if start + depth <= len(blocks) and fits(stages[i], blocks[start : start + depth], extended):
                yield from search(i + 1, start + depth, extended)

    return search(0, 0, {})

"""SearchSpace: which architectures may be proposed, as choices that are made one after another.

Everything rests on one walk, `SearchSpace.assemble(choose)`: it makes each choice by calling
`choose(name, options)` and returns the architecture. Sampling, Optuna's define-by-run, replaying and
enumerating are the same walk with another `choose`, so a conditional choice (a block that a shallower
stage does not have) exists only where the walk gets to it.
"""

from __future__ import annotations

import itertools
import math
import numbers
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.architecture import Architecture
from nas.block_fields import Value
from nas.blocks import Block
from nas.space_match import encoding_of, train_encoding_of
from nas.space_size import count_encodings
from nas.stage import Stage

if TYPE_CHECKING:
    import numpy as np
    import optuna

Choose = Callable[[str, tuple[Value, ...]], Value]
Choices = Mapping[str, Value]


@dataclass(frozen=True)
class SearchSpace:
    """A declared set of architectures.

    Attributes:
        name: the file's name without suffix.
        description: one or two sentences for people.
        source: paper or origin.
        shared: choices made once for the whole network.
        stages: templates in order, those of stem and head included.
        train: options of settings of the training, by name; with a single one it is fixed.
        path: the file that it came from.
        text: the space as YAML that loads alone: that file's text, with what it extends written out.
        published: figures that the source states for a network, such as its `params`.
    """

    name: str
    description: str
    source: str
    shared: Mapping[str, tuple[Value, ...]]
    stages: tuple[Stage, ...]
    train: Mapping[str, tuple[Value, ...]]
    path: Path
    text: str
    published: Mapping[str, Any]

    def assemble(self, choose: Choose) -> Architecture:
        """Walks through the choices and returns the architecture that they make."""
        chosen: dict[str, Value] = {}

        def decide(name: str, options: tuple[Value, ...]) -> Value:
            if len(options) == 1:
                return options[0]
            if name not in chosen:
                chosen[name] = choose(name, options)
            return chosen[name]

        shared = {name: decide(name, options) for name, options in self.shared.items()}
        parts: dict[str, list[tuple[Block, ...]]] = {"stem": [], "stages": [], "head": []}
        for stage in self.stages:
            resolved = stage.resolve(shared)
            blocks = resolved.assemble(
                lambda choice, i, stage=stage: decide(choice.name(stage.name, i), choice.options)
            )
            parts[stage.part].append(blocks)
        return Architecture(
            stem=tuple(itertools.chain(*parts["stem"])),
            stages=tuple(parts["stages"]),
            head=tuple(itertools.chain(*parts["head"])),
            train=tuple((name, decide(f"train.{name}", options)) for name, options in self.train.items()),
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
                raise ValueError(f"{name}: {choices.get(name)!r} is not allowed in space {self.name!r}: {options}")
            return choices[name]

        return self.assemble(replay)

    def encode(self, arch: Architecture) -> dict[str, Value] | None:
        """Choices that make `arch`, or None if the space does not contain it."""
        try:
            of_blocks = encoding_of(arch.blocks, self.stages, self.shared)
        except RecursionError:
            raise ValueError(f"space {self.name} has too many choices that depend on one another") from None
        of_train = train_encoding_of(arch.train, self.train)
        return None if of_blocks is None or of_train is None else of_blocks | of_train

    def contains(self, arch: Architecture) -> bool:
        """Whether some choices make this network (stage borders don't count, as in `arch_id`)."""
        return self.encode(arch) is not None

    @property
    def size(self) -> int:
        """Number of encodings: the different ways to make all choices."""
        return count_encodings(self.stages, self.shared) * math.prod(map(len, self.train.values()))

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
    source = random.Random(int(rng)) if isinstance(rng, int | numbers.Integral) else rng
    return lambda name, options: options[int(source.random() * len(options))]


def _suggest(trial: optuna.trial.BaseTrial, name: str, options: tuple[Value, ...]) -> Value:
    if all(type(option) is int for option in options):
        numbers = [int(option) for option in options]
        steps = {after - before for before, after in itertools.pairwise(numbers)}
        if len(steps) == 1 and min(steps) > 0:
            return trial.suggest_int(name, numbers[0], numbers[-1], step=min(steps))
    chosen = trial.suggest_categorical(name, options)
    assert chosen is not None
    return chosen

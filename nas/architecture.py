"""Architecture: one network as a frozen value, with an identity that equal networks share."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from nas.block_fields import Value
from nas.blocks import Block, Classifier, Reduce, block_from_dict, run_paddings
from nas.bounded import parse_json, said, shown
from nas.recipes import train_value

SCHEMA_VERSION = 1
ID_LENGTH = 12


@dataclass(frozen=True)
class Architecture:
    """A network as stem, stages and head, each a sequence of blocks.

    Stages are for people and search spaces: two architectures with the same chain of blocks are the same
    network wherever the stages' borders are, and share their ids.

    Attributes:
        stem: the first blocks, usually one convolution.
        stages: groups of blocks, each group usually at one resolution.
        head: the last blocks; the very last is the classifier.
        train: settings of its training (`nas.recipes.TrainConfig`) that belong to it, sorted by name; they count in
            `arch_id` and leave no trace in the deploy form.

    Raises:
        ValueError: the last block is not a classifier, or another one is; a setting in `train` that cannot be.
    """

    stem: tuple[Block, ...]
    stages: tuple[tuple[Block, ...], ...]
    head: tuple[Block, ...]
    train: tuple[tuple[str, Value], ...] = ()

    def __post_init__(self) -> None:
        classifiers = [isinstance(block, Classifier) for block in self.blocks]
        if not classifiers or not classifiers[-1] or sum(classifiers) != 1:
            raise ValueError("an architecture ends with its one 'classifier' block")
        settings = dict(self.train)
        if len(settings) < len(self.train):
            raise ValueError(f"train: {[name for name, _ in self.train]} names a setting twice")
        typed = {name: train_value(name, value) for name, value in settings.items()}
        object.__setattr__(self, "train", tuple(sorted(typed.items())))

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All blocks in the order in which data passes them."""
        return (*self.stem, *(block for stage in self.stages for block in stage), *self.head)

    def with_blocks(self, change: Callable[[Block], Block]) -> Architecture:
        """The architecture with `change` made to every block, in their order."""
        return dataclasses.replace(
            self,
            stem=tuple(map(change, self.stem)),
            stages=tuple(tuple(map(change, stage)) for stage in self.stages),
            head=tuple(map(change, self.head)),
        )

    @cached_property
    def arch_id(self) -> str:
        """Hash of the canonical train form and `train`: equal for encodings that mean the same network."""
        return self._hash(deploy=False)

    @cached_property
    def deploy_id(self) -> str:
        """Hash of the deploy form: equal for architectures that differ only while they train."""
        return self._hash(deploy=True)

    def strides(self, input_shape: tuple[int, int, int]) -> tuple[int, ...]:
        """The stride that each block really has on images of `input_shape` (C, H, W).

        One search space serves 8x8 and 224x224 images by this rule: the last feature map keeps at least
        4 pixels a side (2 where the image is smaller than 16); the strides that would leave less are
        dropped, the earliest first, as CIFAR versions of ImageNet networks do.
        """
        side = min(input_shape[1:])
        limit = side / (4 if side >= 16 else 2)
        strides = [block.stride_or_one for block in self.blocks]
        for i, stride in enumerate(strides):
            if math.prod(strides) > limit and stride > 1:
                strides[i] = 1
        return tuple(strides)

    def applied(self, input_shape: tuple[int, int, int]) -> tuple[Block, ...]:
        """The blocks as they are on images of `input_shape` (C, H, W), all in their order.

        Strides as `strides` says. Where one of them is dropped, or a map would vanish, the images are smaller
        than those that the network was made for: then every convolution keeps the size of its map.
        """
        strides = self.strides(input_shape)
        blocks = [
            block if block.stride_or_one == stride else _without_stride(block)
            for block, stride in zip(self.blocks, strides, strict=True)
        ]
        side = min(input_shape[1:])
        for block in blocks:
            side = block.output_side(side) if side > 0 else 0
        if side < 1 or strides != tuple(block.stride_or_one for block in self.blocks):
            blocks = [_padded(block) for block in blocks]
        return tuple(blocks)

    def check(self, in_channels: int) -> None:
        """Holds every block against the channels that enter it.

        Raises:
            ValueError: groups that do not divide the channels, or another mismatch.
        """
        for block in self.blocks:
            block.check(in_channels)
            in_channels = block.output_channels(in_channels)

    def _hash(self, deploy: bool) -> str:
        in_channels: int | None = None
        words: list[dict[str, Value]] = []
        paddings = run_paddings(self.blocks)
        for i, block in enumerate(self.blocks):
            hashed = block.shipped(paddings.get(i)) if deploy else block
            if hashed is not None:
                words.append(hashed.canonical(in_channels, deploy))
                # On small images a run is padded anew, a chain of convolutions each by itself (`applied`).
                if deploy and isinstance(block, Reduce) and paddings[i] != block.padding_pixels:
                    words[-1]["halo"] = paddings[i] - block.padding_pixels
            if in_channels is not None or hasattr(block, "out_channels"):
                in_channels = block.output_channels(in_channels or 0)
        hashed_words: list[Any] = [SCHEMA_VERSION, words]
        if self.train and not deploy:  # else the ids of architectures without it would be others
            hashed_words.append(dict(self.train))
        canonical = json.dumps(hashed_words, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:ID_LENGTH]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form with the schema's version; `train` is there where it is not empty."""
        words: dict[str, Any] = {
            "schema": SCHEMA_VERSION,
            "stem": [block.to_dict() for block in self.stem],
            "stages": [[block.to_dict() for block in stage] for stage in self.stages],
            "head": [block.to_dict() for block in self.head],
        }
        return {**words, "train": dict(self.train)} if self.train else words

    def to_json(self) -> str:
        """One line of JSON that `architecture_from_json` reads back to an equal value."""
        return json.dumps(self.to_dict())


@lru_cache(maxsize=2**14)  # as in a search, where many architectures have the same blocks
def _without_stride(block: Block) -> Block:
    return block.without_stride()


@lru_cache(maxsize=2**14)
def _padded(block: Block) -> Block:
    return block.padded()


def architecture_from_dict(words: Any) -> Architecture:
    """The architecture that `Architecture.to_dict` wrote down.

    Raises:
        ValueError: another schema version, a missing or unknown part, a bad block or a bad setting of `train`; the
            message names the place.
    """
    if not isinstance(words, dict):
        raise ValueError(f"an architecture is a mapping with stem, stages and head, not {type(words).__name__}")
    if words.get("schema") != SCHEMA_VERSION:
        raise ValueError(f"schema: {shown(words.get('schema'))} is not allowed; allowed: {SCHEMA_VERSION}")
    parts = {"schema", "stem", "stages", "head"}
    if set(words) - {"train"} != parts or not all(isinstance(words[part], list) for part in parts - {"schema"}):
        keys = ", ".join(map(said, list(words)[:10]))
        raise ValueError(
            f"an architecture has the keys schema, stem, stages, head (lists) and perhaps train, not {keys}"
        )
    train = words.get("train", {})
    if not isinstance(train, dict):
        raise ValueError(f"train: {shown(train)} is not allowed; allowed: a mapping of settings to values")
    for i, stage in enumerate(words["stages"]):
        if not isinstance(stage, list):
            raise ValueError(f"stages[{i}]: a stage is a list of blocks, not {shown(stage)}")
    return Architecture(
        stem=_blocks(words["stem"], "stem"),
        stages=tuple(_blocks(stage, f"stages[{i}]") for i, stage in enumerate(words["stages"])),
        head=_blocks(words["head"], "head"),
        train=tuple(train.items()),
    )


def architecture_from_json(text: str) -> Architecture:
    """The architecture in a JSON text.

    Raises:
        ValueError: not JSON, or not an architecture.
    """
    return architecture_from_dict(parse_json(text))


def _blocks(words: list[Any], where: str) -> tuple[Block, ...]:
    blocks = []
    for i, block in enumerate(words):
        try:
            blocks.append(block_from_dict(block))
        except ValueError as error:
            raise ValueError(f"{where}[{i}]: {error}") from None
    return tuple(blocks)

"""What every block schema is: a frozen value of plain fields that knows its channels and its identity."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

from nas import block_fields as fields
from nas.block_fields import FieldRule, Value
from nas.convolution import same_padding


@dataclass(frozen=True, kw_only=True)
class Block:
    """One block of an architecture: a value of plain fields, checked when it is made."""

    name: ClassVar[str]
    train_only: ClassVar[bool] = False  # whether the whole block has no trace in the deploy form

    def __post_init__(self) -> None:
        for field, rule in rules(type(self)).items():
            try:
                object.__setattr__(self, field, rule.parse(getattr(self, field)))
            except ValueError as error:
                raise ValueError(f"{self.name}.{field}: {error}") from None

    @classmethod
    def required_fields(cls) -> tuple[str, ...]:
        """Names of the fields without a default."""
        return tuple(f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING)

    @property
    def stride_or_one(self) -> int:
        """The stride, 1 for blocks that have none."""
        return getattr(self, "stride", 1)

    def output_channels(self, in_channels: int) -> int:
        """Channels that leave the block when `in_channels` enter it."""
        return getattr(self, "out_channels", in_channels)

    def grouped_convolutions(self, in_channels: int) -> tuple[tuple[int, int, int], ...]:
        """(in_channels, out_channels, groups) of each convolution whose groups are a free choice."""
        return ()

    def check(self, in_channels: int) -> None:
        """Holds the block against the channels that enter it.

        Raises:
            ValueError: the groups of a convolution do not divide its channels.
        """
        for in_, out, groups in self.grouped_convolutions(in_channels):
            if in_ % groups or out % groups:
                raise ValueError(
                    f"{self.name}.groups: {groups} is not allowed; it must divide the channels of the "
                    f"convolution, {in_} in and {out} out"
                )

    def resolved(self, in_channels: int | None) -> dict[str, Value]:
        """What fields that depend on others come to: a ratio's channel count, the pixels of `padding: same`.

        Args:
            in_channels: channels that enter; None where they are unknown, and fields that need them are left out.
        """
        return {}

    def has_norm(self) -> bool:
        """Whether the train form has a normalization."""
        return True

    def norm_stays(self) -> bool:
        """Whether a normalization stays on the device: GroupNorm does, and where a block begins with BatchNorm."""
        return False

    def keeps_channels(self, in_channels: int | None) -> bool:
        """Whether as many channels leave as enter: with stride 1 the input can be added then.

        Identities ask this and not the stride, which small images drop.
        """
        return in_channels is None or in_channels == self.output_channels(in_channels)

    def keeps_shape(self, in_channels: int) -> bool:
        """Whether the map that leaves has the shape of the one that enters: the input is added then."""
        return self.stride_or_one == 1 and self.keeps_channels(in_channels)

    def shipped(self, padding: int | None) -> Block | None:
        """The block that is on the device instead of this one; None where nothing is.

        Args:
            padding: the zeros that its run leaves to it (`run_paddings`), for blocks that make runs.
        """
        return None if self.train_only else self

    def output_side(self, side: int) -> int:
        """Side of the map that leaves the block when a map of `side` pixels enters it; below 1: there is none."""
        return -(-side // self.stride_or_one)

    def without_stride(self) -> Block:
        """The block as it is on images too small for its stride."""
        return dataclasses.replace(self, stride=1)  # pyright: ignore[reportCallIssue]

    def padded(self) -> Block:
        """The block with `padding: same`, where it has a padding."""
        return dataclasses.replace(self, padding="same") if hasattr(self, "padding") else self

    def to_dict(self) -> dict[str, Value]:
        """The block as JSON-ready words: its name under `block`, then every field."""
        return {"block": self.name, **dataclasses.asdict(self)}

    def canonical(self, in_channels: int | None, deploy: bool) -> dict[str, Value]:
        """What the block's identity rests on: ratios as channel counts, so that equal networks are equal words.

        Args:
            in_channels: channels that enter; None for a network's first block, which data decides.
            deploy: leave out what the deploy form has no trace of.

        Fields at their defaults are left out, so that a field that is added later changes no identity.
        """
        words: dict[str, Value] = {"block": self.name}
        resolved = self.resolved(in_channels)
        default = _defaults(type(self))
        for field, rule in rules(type(self)).items():
            if field == "norm_eps":
                if not (self.norm_stays() if deploy else self.has_norm()):
                    continue
            elif deploy and rule.train_only:
                continue
            value: Value = getattr(self, field)
            if field in resolved:
                words[field] = resolved[field]
            elif deploy and value in rule.folded and not self.norm_stays():
                words[field] = "none"
            elif value != default[field] or (deploy and rule.folded):
                words[field] = value
        return words


@dataclass(frozen=True, kw_only=True)
class NormedBlock(Block):
    """A block of convolutions, each with a normalization, and activations."""

    activation: str = fields.activation()
    norm: str = fields.norm()
    norm_eps: float = fields.norm_eps()

    def has_norm(self) -> bool:
        """See `Block.has_norm`."""
        return self.norm != "none"

    def norm_stays(self) -> bool:
        """See `Block.norm_stays`."""
        return self.norm == "group"


def scaled(channels: int, ratio: float) -> int:
    """The channels that a ratio of others comes to, at least one."""
    return max(1, round(channels * ratio))


def round_channels(channels: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `channels`, never more than 10 % below (MobileNet's rounding)."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def padding_pixels(padding: int | str, kernel_size: int, dilation: int = 1) -> int:
    """The zeros on each side that a block's `padding` comes to."""
    return same_padding(kernel_size, dilation) if padding == "same" else int(padding)


def group_norm_groups(channels: int) -> int:
    """Groups of a GroupNorm: 32 (arXiv:1803.08494), or as many fewer as leave each at least 8 channels."""
    return max(g for g in (1, 2, 4, 8, 16, 32) if g == 1 or (channels % g == 0 and channels >= 8 * g))


def check_sizes(input_shape: tuple[int, int, int], num_classes: int) -> None:
    """Holds a network's ends against what is possible.

    Args:
        input_shape: (C, H, W) of the images.
        num_classes: number of logits.

    Raises:
        ValueError: something that is no positive integer.
    """
    sizes = (*input_shape, num_classes) if isinstance(input_shape, Sequence) else ()
    if len(sizes) != 4 or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise ValueError(
            f"input_shape={input_shape}, num_classes={num_classes}: (C, H, W) and classes must be positive"
        )


@cache
def _defaults(schema: type[Block]) -> dict[str, Any]:
    return {field.name: field.default for field in dataclasses.fields(schema)}


@cache  # a search makes and hashes thousands of blocks
def rules(schema: type[Block]) -> dict[str, FieldRule]:
    """The fields of a block schema and the rule of each, in the order of their definition."""
    return {field.name: field.metadata["rule"] for field in dataclasses.fields(schema)}

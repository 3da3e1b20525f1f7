"""What each block may be told: its fields, their ranges, and which of them exist only while it trains.

These schemas know no torch: search spaces and architectures are made of them, and `nas.networks` holds
a module class for each. A field that is `train_only` costs training time and nothing on the device: it
is part of an architecture's `arch_id` and absent from its `deploy_id`.

To add a block: a schema class here with its line in `BLOCK_SCHEMAS`, a module class in `nas/networks/`
with its line in `BLOCKS`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from nas import block_fields as fields
from nas.block_fields import FieldRule, Value


@dataclass(frozen=True, kw_only=True)
class Block:
    """One block of an architecture: a value of plain fields, checked when it is made."""

    name: ClassVar[str]

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

    def channel_counts(self, in_channels: int | None) -> dict[str, int]:
        """The channels that a field given as a ratio comes to; empty where `in_channels` is needed and unknown."""
        return {}

    def to_dict(self) -> dict[str, Value]:
        """The block as JSON-ready words: its name under `block`, then every field."""
        return {"block": self.name, **dataclasses.asdict(self)}

    def canonical(self, in_channels: int | None, deploy: bool) -> dict[str, Value]:
        """What the block's identity rests on: ratios as channel counts, so that equal networks are equal words.

        Args:
            in_channels: channels that enter; None for a network's first block, which data decides.
            deploy: leave out what the deploy form has no trace of.
        """
        words: dict[str, Value] = {"block": self.name}
        counts = self.channel_counts(in_channels)
        for field, rule in rules(type(self)).items():
            if deploy and rule.train_only:
                continue
            value: Value = getattr(self, field)
            words[field] = "none" if deploy and value in rule.folded else counts.get(field, value)
        return words


def round_channels(channels: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `channels`, never more than 10 % below (MobileNet's rounding)."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def rules(schema: type[Block]) -> dict[str, FieldRule]:
    """The fields of a block schema and the rule of each, in the order of their definition."""
    return {field.name: field.metadata["rule"] for field in dataclasses.fields(schema)}


@dataclass(frozen=True, kw_only=True)
class Conv(Block):
    """Convolution, normalization, activation: stems, plain networks, 1x1 heads."""

    name: ClassVar[str] = "conv"
    out_channels: int = fields.out_channels()
    kernel_size: int = fields.kernel_size()
    stride: int = fields.stride()
    groups: int = fields.groups("groups of the convolution")
    activation: str = fields.activation()
    norm: str = fields.norm()

    def grouped_convolutions(self, in_channels: int) -> tuple[tuple[int, int, int], ...]:
        """See `Block.grouped_convolutions`."""
        return ((in_channels, self.out_channels, self.groups),)


@dataclass(frozen=True, kw_only=True)
class InvertedResidual(Block):
    """MobileNetV2's and V3's block: 1x1 to the wide middle, depthwise kxk, 1x1 back, plus the input.

    Without the first 1x1 where `expansion` is 1, and without the residual where shapes differ.
    Sandler et al. 2018, https://arxiv.org/abs/1801.04381; Howard et al. 2019, https://arxiv.org/abs/1905.02244.
    """

    name: ClassVar[str] = "inverted_residual"
    out_channels: int = fields.out_channels()
    kernel_size: int = fields.kernel_size()
    stride: int = fields.stride()
    expansion: float = fields.number(float, 6.0, 0.125, 64, "middle channels over input channels", shapes=True)
    groups: int = fields.groups("groups of the 1x1 convolutions")
    se_ratio: float = fields.number(float, 0.0, 0, 1, "squeeze-excitation channels over middle channels; 0: none")
    activation: str = fields.activation(default="relu6")
    norm: str = fields.norm()

    def mid_channels(self, in_channels: int) -> int:
        """Channels of the depthwise convolution."""
        return max(1, round(in_channels * self.expansion))

    def se_channels(self, in_channels: int) -> int:
        """Channels of the squeeze, a multiple of 8 as in MobileNetV3; 0 without squeeze-excitation."""
        return round_channels(self.mid_channels(in_channels) * self.se_ratio) if self.se_ratio else 0

    def channel_counts(self, in_channels: int | None) -> dict[str, int]:
        """See `Block.channel_counts`."""
        if in_channels is None:
            return {}
        return {"expansion": self.mid_channels(in_channels), "se_ratio": self.se_channels(in_channels)}

    def grouped_convolutions(self, in_channels: int) -> tuple[tuple[int, int, int], ...]:
        """See `Block.grouped_convolutions`."""
        mid = self.mid_channels(in_channels)
        expand = ((in_channels, mid, self.groups),) if mid != in_channels else ()
        return (*expand, (mid, self.out_channels, self.groups))


@dataclass(frozen=True, kw_only=True)
class Basic(Block):
    """ResNet's basic block: two kxk convolutions and the input (He et al. 2015, arXiv:1512.03385)."""

    name: ClassVar[str] = "basic"
    out_channels: int = fields.out_channels()
    kernel_size: int = fields.kernel_size()
    stride: int = fields.stride()
    expansion: float = fields.number(float, 1.0, 0.125, 16, "middle channels over output channels", shapes=True)
    groups: int = fields.groups("groups of the kxk convolutions")
    activation: str = fields.activation()
    norm: str = fields.norm()

    def mid_channels(self) -> int:
        """Channels between the two convolutions."""
        return max(1, round(self.out_channels * self.expansion))

    def channel_counts(self, in_channels: int | None) -> dict[str, int]:
        """See `Block.channel_counts`."""
        return {"expansion": self.mid_channels()}

    def grouped_convolutions(self, in_channels: int) -> tuple[tuple[int, int, int], ...]:
        """See `Block.grouped_convolutions`."""
        mid = self.mid_channels()
        return ((in_channels, mid, self.groups), (mid, self.out_channels, self.groups))


@dataclass(frozen=True, kw_only=True)
class Bottleneck(Block):
    """ResNet's bottleneck: 1x1 down, kxk (the stride is here), 1x1 up, and the input.

    He et al. 2015, https://arxiv.org/abs/1512.03385; `groups` as in ResNeXt, https://arxiv.org/abs/1611.05431.
    """

    name: ClassVar[str] = "bottleneck"
    out_channels: int = fields.out_channels()
    kernel_size: int = fields.kernel_size()
    stride: int = fields.stride()
    expansion: float = fields.number(float, 0.25, 0.015625, 16, "middle channels over output channels", shapes=True)
    groups: int = fields.groups("groups of the kxk convolution")
    activation: str = fields.activation()
    norm: str = fields.norm()

    def mid_channels(self) -> int:
        """Channels of the kxk convolution."""
        return max(1, round(self.out_channels * self.expansion))

    def channel_counts(self, in_channels: int | None) -> dict[str, int]:
        """See `Block.channel_counts`."""
        return {"expansion": self.mid_channels()}

    def grouped_convolutions(self, in_channels: int) -> tuple[tuple[int, int, int], ...]:
        """See `Block.grouped_convolutions`."""
        mid = self.mid_channels()
        return ((mid, mid, self.groups),)


@dataclass(frozen=True, kw_only=True)
class Reduce(Block):
    """ReduceNet's block: a wide middle and a fading activation in training, ONE kxk convolution on the device.

    Train form: conv kxk to the bottleneck width, BatchNorm, fading activation, conv 1x1, BatchNorm, plus the
    input where shapes allow; then the activation that survives. `activation: none` makes the block linear:
    a run of such blocks is one linear map, so some activation has to survive in each network.
    """

    name: ClassVar[str] = "reduce"
    out_channels: int = fields.out_channels()
    kernel_size: int = fields.kernel_size()
    stride: int = fields.stride()
    bottleneck_width: float = fields.number(
        float, 4.0, 0.125, 64, "middle channels over output channels, while training", train_only=True
    )
    fading_activation: str = fields.activation("activation that fades out while training", train_only=True)
    activation: str = fields.activation("activation that survives")

    def mid_channels(self) -> int:
        """Channels of the middle, in the train form."""
        return max(1, round(self.out_channels * self.bottleneck_width))

    def channel_counts(self, in_channels: int | None) -> dict[str, int]:
        """See `Block.channel_counts`."""
        return {"bottleneck_width": self.mid_channels()}


@dataclass(frozen=True, kw_only=True)
class Classifier(Block):
    """Global average pooling and a fully connected layer to the classes; the last block of every network."""

    name: ClassVar[str] = "classifier"
    dropout: float = fields.number(float, 0.0, 0, 0.95, "share of features dropped while training", train_only=True)


BLOCK_SCHEMAS: dict[str, type[Block]] = {
    "conv": Conv,
    "inverted_residual": InvertedResidual,
    "basic": Basic,
    "bottleneck": Bottleneck,
    "reduce": Reduce,
    "classifier": Classifier,
}


def block_schema(name: Any) -> type[Block]:
    """The schema class of a block's name.

    Raises:
        ValueError: no such block; the message lists the known ones.
    """
    if not isinstance(name, str) or name not in BLOCK_SCHEMAS:
        raise ValueError(f"block {name!r} is unknown; known: {', '.join(BLOCK_SCHEMAS)}")
    return BLOCK_SCHEMAS[name]


def block_from_dict(words: Any) -> Block:
    """The block that `Block.to_dict` wrote down; absent fields take their defaults.

    Raises:
        ValueError: not a mapping, an unknown block or field, a missing field or a value out of range.
    """
    if not isinstance(words, dict):
        raise ValueError(f"a block is a mapping with the key 'block', not {words!r}")
    schema = block_schema(words.get("block"))
    fields = {key: value for key, value in words.items() if key != "block"}
    for key in fields:
        if key not in rules(schema):
            raise ValueError(f"{schema.name}.{key} is unknown; known: {', '.join(rules(schema))}")
    for field in schema.required_fields():
        if field not in fields:
            raise ValueError(f"{schema.name}.{field} is missing; allowed: {rules(schema)[field].allowed}")
    return schema(**fields)

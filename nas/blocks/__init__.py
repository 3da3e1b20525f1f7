"""What each block may be told: its fields, their ranges, and which of them exist only while it trains.

These schemas know no torch: search spaces and architectures are made of them, and `nas.networks` holds
a module class for each. A field that is `train_only` costs training time and nothing on the device: it
is part of an architecture's `arch_id` and absent from its `deploy_id`.

To add a block: a schema class in this package with its line in `BLOCK_SCHEMAS`, a module class in
`nas/networks/` with its line in `BLOCKS`, and what is left of it on the device in `nas/layers/blocks.py`.
"""

from __future__ import annotations

from typing import Any

from nas.blocks.base import Block, round_channels, rules
from nas.blocks.collapsing import Reduce, run_paddings
from nas.blocks.heads import Auxiliary, Classifier
from nas.blocks.multi_branch import Dense, Fire, Inception, ShuffleV1, ShuffleV2, Transition
from nas.blocks.plain import Conv, NormActivation, Pool, Separable, SeriesActivation
from nas.blocks.residual import Basic, Bottleneck, InvertedResidual, Xception
from nas.bounded import said, shown

__all__ = [
    "BLOCK_SCHEMAS",
    "Auxiliary",
    "Basic",
    "Block",
    "Bottleneck",
    "Classifier",
    "Conv",
    "Dense",
    "Fire",
    "Inception",
    "InvertedResidual",
    "NormActivation",
    "Pool",
    "Reduce",
    "Separable",
    "SeriesActivation",
    "ShuffleV1",
    "ShuffleV2",
    "Transition",
    "Xception",
    "block_from_dict",
    "block_schema",
    "round_channels",
    "rules",
    "run_paddings",
]

BLOCK_SCHEMAS: dict[str, type[Block]] = {
    "conv": Conv,
    "separable": Separable,
    "pool": Pool,
    "norm_activation": NormActivation,
    "series_activation": SeriesActivation,
    "inverted_residual": InvertedResidual,
    "basic": Basic,
    "bottleneck": Bottleneck,
    "xception": Xception,
    "inception": Inception,
    "fire": Fire,
    "dense": Dense,
    "transition": Transition,
    "shuffle_v1": ShuffleV1,
    "shuffle_v2": ShuffleV2,
    "reduce": Reduce,
    "auxiliary": Auxiliary,
    "classifier": Classifier,
}


def block_schema(name: Any) -> type[Block]:
    """The schema class of a block's name.

    Raises:
        ValueError: no such block; the message lists the known ones.
    """
    if not isinstance(name, str) or name not in BLOCK_SCHEMAS:
        raise ValueError(f"block {shown(name)} is unknown; known: {', '.join(BLOCK_SCHEMAS)}")
    return BLOCK_SCHEMAS[name]


def block_from_dict(words: Any) -> Block:
    """The block that `Block.to_dict` wrote down; absent fields take their defaults.

    Raises:
        ValueError: not a mapping, an unknown block or field, a missing field or a value out of range.
    """
    if not isinstance(words, dict):
        raise ValueError(f"a block is a mapping with the key 'block', not {shown(words)}")
    schema = block_schema(words.get("block"))
    fields = {key: value for key, value in words.items() if key != "block"}
    for key in fields:
        if key not in rules(schema):
            raise ValueError(f"{schema.name}.{said(key)} is unknown; known: {', '.join(rules(schema))}")
    for field in schema.required_fields():
        if field not in fields:
            raise ValueError(f"{schema.name}.{field} is missing; allowed: {rules(schema)[field].allowed}")
    return schema(**fields)

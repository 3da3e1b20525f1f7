"""The train-time regularization of a recipe, put into an architecture."""

from __future__ import annotations

import dataclasses

from nas.architecture import Architecture
from nas.blocks import Block, Classifier


def with_dropout(arch: Architecture, dropout: float | None, drop_path: float | None) -> Architecture:
    """The architecture with another dropout before its logits, and stochastic depth that rises linearly with depth.

    Its deploy form is the same: both exist only while the network trains.

    Args:
        arch: the architecture.
        dropout: share of features dropped before the logits; None leaves it as it is.
        drop_path: share of images that skip the last block with a residual branch; None leaves all as they are.
    """
    skipping = [block for block in arch.blocks if hasattr(block, "drop_path")]
    shares = iter([(drop_path or 0.0) * (i + 1) / len(skipping) for i in range(len(skipping))])

    def changed(block: Block) -> Block:
        changes: dict[str, float] = {}
        if dropout is not None and isinstance(block, Classifier):
            changes["dropout"] = dropout
        if drop_path is not None and hasattr(block, "drop_path"):
            changes["drop_path"] = next(shares)
        return dataclasses.replace(block, **changes)

    return arch.with_blocks(changed)

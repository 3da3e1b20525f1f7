"""The blocks that end in logits: the classifier, and auxiliary ones that exist while a network trains."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from nas import block_fields as fields
from nas.block_fields import Value
from nas.blocks.base import Block


@dataclass(frozen=True, kw_only=True)
class Classifier(Block):
    """Average pooling and fully connected layers to the classes; the last block of every network.

    `layer: conv` is a 1x1 convolution to the classes, an activation, then pooling, as in NiN and SqueezeNet;
    without activation that is a fully connected layer after pooling, which the deploy form makes of it.
    `pool_size` above 1 and hidden layers are AlexNet's and VGG's.
    """

    name: ClassVar[str] = "classifier"
    layer: str = fields.word(
        "linear", ("linear", "conv"), "fully connected, or 1x1 convolution before pooling", shapes=True
    )
    pool_size: int = fields.number(int, 1, 1, 16, "side of the map after average pooling, pixels", shapes=True)
    hidden_features: int = fields.number(int, 0, 0, 16384, "features of each hidden layer; 0: none", shapes=True)
    hidden_layers: int = fields.number(int, 1, 1, 4, "hidden layers, where they have features")
    activation: str = fields.activation("activation of hidden layers, and of `layer: conv`")
    dropout: float = fields.dropout("share of features dropped while training")

    def check(self, in_channels: int) -> None:
        """See `Block.check`."""
        if self.layer == "conv" and (self.pool_size > 1 or self.hidden_features):
            raise ValueError("classifier.layer: conv is not allowed with pool_size above 1 or hidden_features")

    def resolved(self, in_channels: int | None) -> dict[str, Value]:
        """See `Block.resolved`."""
        words: dict[str, Value] = {}
        if not self.hidden_features:
            words["hidden_layers"] = 0
            if self.layer == "linear":
                words["activation"] = "none"
        return words

    def shipped(self, padding: int | None) -> Classifier:
        """See `Block.shipped`: a linear 1x1 convolution before pooling is a fully connected layer after it."""
        return dataclasses.replace(self, layer="linear") if self.activation == "none" else self


@dataclass(frozen=True, kw_only=True)
class Auxiliary(Block):
    """GoogLeNet's auxiliary classifier: logits from the middle of the network, for its training only.

    Average pooling, 1x1 convolution, a convolution over the whole pooled map, fully connected
    (arXiv:1409.4842; arXiv:1512.00567). The map itself passes on unchanged.
    """

    name: ClassVar[str] = "auxiliary"
    train_only: ClassVar[bool] = True
    weight: float = fields.number(float, 0.3, 0, 10, "weight of its loss beside the main one", train_only=True)
    pool_size: int = fields.number(int, 4, 1, 16, "side of the pooled map, pixels", train_only=True)
    channels: int = fields.number(int, 128, 1, 8192, "channels of the 1x1 convolution", train_only=True)
    features: int = fields.number(int, 1024, 1, 16384, "features before the logits", train_only=True)
    norm: str = fields.word("batch", ("batch", "none"), "normalization of the 1x1 convolution", train_only=True)
    feature_norm: str = fields.word("none", ("batch", "none"), "normalization of the features", train_only=True)
    norm_eps: float = fields.norm_eps()
    dropout: float = fields.dropout("share of features dropped")

    def has_norm(self) -> bool:
        """See `Block.has_norm`."""
        return "batch" in (self.norm, self.feature_norm)

"""The blocks that end in logits; see `nas.blocks.heads`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nas.blocks import Auxiliary, Classifier
from nas.fusion import conv_into_linear
from nas.networks.activations import activation
from nas.networks.bricks import Form, conv_norm, dropout
from nas.networks.conv_modules import linear_from, linear_of


class ClassifierBlock(nn.Module):
    """Pooling and fully connected layers: (N, C, H, W) to logits (N, classes)."""

    def __init__(self, spec: Classifier, in_channels: int, num_classes: int, form: Form) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(spec.pool_size)
        self.flatten = nn.Flatten()
        layers: list[nn.Module] = []
        features = in_channels * spec.pool_size**2
        for _ in range(spec.hidden_layers if spec.hidden_features else 0):
            layers += [nn.Linear(features, spec.hidden_features), activation(spec.activation)]
            layers += [dropout(spec.dropout, form)]
            features = spec.hidden_features
        if not layers:
            layers.append(dropout(spec.dropout, form))
        self.layers = nn.Sequential(*layers, nn.Linear(features, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.layers(self.flatten(self.pool(x)))


class ConvClassifierBlock(nn.Module):
    """A 1x1 convolution to the classes, an activation, pooling: (N, C, H, W) to logits (N, classes)."""

    def __init__(self, spec: Classifier, in_channels: int, num_classes: int, form: Form) -> None:
        super().__init__()
        self.dropout = dropout(spec.dropout, form)
        self.conv = nn.Conv2d(in_channels, num_classes, 1)
        self.activation = activation(spec.activation)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.shipped = spec.shipped(None)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.flatten(self.pool(self.activation(self.conv(self.dropout(x)))))

    def fuse(self) -> nn.Module:
        """Without activation a fully connected layer after the pool, which costs a map's pixels less; else itself."""
        if self.shipped.layer == "conv":
            return self
        weight, bias = self.conv.weight, self.conv.bias
        assert bias is not None
        with torch.device("meta"):  # initial numbers would be thrown away, and draw from the global generator
            fused = ClassifierBlock(self.shipped, weight.shape[1], weight.shape[0], "deploy")
        one_to_one = torch.eye(weight.shape[0], dtype=weight.dtype, device=weight.device)
        fused.layers[-1] = linear_from(*conv_into_linear(linear_of(self.conv), one_to_one, None))
        return fused


def classifier_block(spec: Classifier, in_channels: int, num_classes: int, form: Form) -> nn.Module:
    """The classifier with the layer that it asks for."""
    block = ConvClassifierBlock if spec.layer == "conv" else ClassifierBlock
    return block(spec, in_channels, num_classes, form)


class AuxiliaryBlock(nn.Module):
    """Passes its input (N, C, H, W) on, and has logits (N, classes) of its own; nothing at deployment."""

    def __init__(self, spec: Auxiliary, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.weight = spec.weight
        size = spec.pool_size
        self.layers = nn.Sequential(
            nn.AdaptiveAvgPool2d(size),
            conv_norm(in_channels, spec.channels, 1, form="train", norm=spec.norm, eps=spec.norm_eps),
            nn.ReLU(),
            conv_norm(
                spec.channels,
                spec.features,
                size,
                form="train",
                padding=0,
                norm=spec.feature_norm,
                eps=spec.norm_eps,
            ),
            nn.ReLU(),
            nn.Flatten(),
            dropout(spec.dropout, "train"),
            nn.Linear(spec.features, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """The input."""
        return x

    def logits(self, x: Tensor) -> Tensor:
        """The auxiliary logits."""
        return self.layers(x)

    def fuse(self) -> nn.Identity:
        """What is left of it on the device."""
        return nn.Identity()

"""The fading activation: there when training begins, gone before it ends."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nas.networks.activations import activation


class FadingActivation(nn.Module):
    """`A(x) = lam * act(x) + (1 - lam) * x`: an activation that fades to the identity while training.

    `lam` is a buffer, so that it travels with copies and averages of the network. It starts at 1 and must
    be 0 before the network is fused. No operation here is in place: an in-place ReLU would overwrite `x`
    before the second term reads it, and the network would never become linear.
    """

    lam: Tensor

    def __init__(self, name: str, fade_share: float = 0.7) -> None:
        super().__init__()
        self.activation = activation(name)
        self.fade_share = fade_share
        self.register_buffer("lam", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """The mixture, of the shape of `x`."""
        return self.lam * self.activation(x) + (1 - self.lam) * x

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"fade_share={self.fade_share:g}"


def fade(network: nn.Module, progress: float) -> None:
    """Sets `lam` of every fading activation to where it is after a share `progress` of the training."""
    for module in network.modules():
        if isinstance(module, FadingActivation):
            module.lam.fill_(fading(progress, module.fade_share))


def fading(progress: float, fade_share: float) -> float:
    """`lam` after a share of the training: a cosine from 1 to 0 over `fade_share`, then exactly 0."""
    return 0.0 if progress >= fade_share else (1 + math.cos(math.pi * progress / fade_share)) / 2


def set_fading(network: nn.Module, lam: float) -> None:
    """Sets `lam` of every fading activation in a network: 1 is the activation, 0 the identity."""
    for module in network.modules():
        if isinstance(module, FadingActivation):
            module.lam.fill_(lam)

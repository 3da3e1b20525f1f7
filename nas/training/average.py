"""An exponential moving average of a network's weights, which ships instead of the weights themselves."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """The average of a network as it trains; BatchNorm's statistics are averaged like weights.

    torch's `AveragedModel` would do, but it waits for the device in every step.

    Attributes:
        network: the averaged network, in eval mode. Its `lam` buffers are to be faded like those of the original.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self._decay = decay
        self._pairs = [
            (_weights(averaged), _weights(trained))
            for averaged, trained in zip(self.network.modules(), network.modules(), strict=True)
        ]
        self._averaged = [tensor for averaged, _ in self._pairs for tensor in averaged]
        self._trained = [tensor for _, trained in self._pairs for tensor in trained]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the weights after `step` steps; the first ones are forgotten sooner."""
        decay = min(self._decay, (1 + step) / (10 + step))
        get_ema_multi_avg_fn(decay)(self._averaged, self._trained, step)


def _weights(module: nn.Module) -> list[Tensor]:
    """A module's own floating-point tensors, without `lam`, which has its own schedule."""
    own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    return [tensor.detach() for name, tensor in own if tensor.is_floating_point() and name != "lam"]

"""The optimizer of a training, and its learning rate over the steps."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from nas.recipes import TrainConfig

WSD_DECAY = 1 / 6  # share of the training
ONE_CYCLE_RISE = 0.3  # share of the steps until the peak, and what is divided off the peak at the start and the end:
ONE_CYCLE_START, ONE_CYCLE_END = 25.0, 1e4  # the defaults of torch's OneCycleLR (arXiv:1708.07120)


def make_optimizer(network: nn.Module, recipe: TrainConfig) -> torch.optim.Optimizer:
    """AdamW or Nesterov SGD; weight decay on matrices and kernels only, not on norms and biases."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    # Fused kernels do not wait for the device either where a scaler has found that a step is to be skipped.
    kind: dict[str, Any] = {"fused": True} if any(p.is_cuda for p in parameters) else {"foreach": True}
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.learning_rate, **kind)
    momentum = recipe.momentum
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=momentum, nesterov=momentum > 0, **kind)


def schedule(step: int, total: int, recipe: TrainConfig) -> float:
    """Share of the peak learning rate at a step of `total`."""
    if recipe.schedule == "one_cycle":
        return one_cycle(step / max(1, total - 1))
    warmup = min(recipe.warmup_epochs * total / recipe.epochs, total / 2)
    if recipe.schedule == "wsd":
        return min((step + 1) / (warmup + 1), 1.0) * (1 - decayed(step / total))
    return warm_cosine(step, total, warmup)


def decayed(progress: float) -> float:
    """How much of the decay of a warm-up, stable, decay schedule is over after a share of the training.

    It begins when a fifth of the epochs so far is left. Until then a longer training is the same one, so that a copy of
    it that cools down is judged as if it had been meant to end there (arXiv:2405.18392).
    """
    return max(0.0, 1 - (1 - progress) / WSD_DECAY)


def warm_cosine(step: int, total: int, warmup: float) -> float:
    """Linear warm-up over `warmup` steps, then a cosine to 0."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return (1 + math.cos(math.pi * (step - warmup) / max(1.0, total - warmup))) / 2


def one_cycle(progress: float) -> float:
    """A cosine up for the first steps, another one down to almost nothing."""
    if progress < ONE_CYCLE_RISE:
        return _between(1 / ONE_CYCLE_START, 1.0, progress / ONE_CYCLE_RISE)
    return _between(1.0, 1 / ONE_CYCLE_START / ONE_CYCLE_END, (progress - ONE_CYCLE_RISE) / (1 - ONE_CYCLE_RISE))


def _between(begin: float, end: float, progress: float) -> float:
    return end + (begin - end) * (1 + math.cos(math.pi * progress)) / 2

"""What a training minimizes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from nas.networks.builder import Network
from nas.recipes import TrainConfig


@dataclass(frozen=True)
class Labels:
    """What a batch's images are: class numbers (N,), and with mixup each one's partner's and the share it keeps."""

    y: Tensor
    partner: Tensor | None = None
    share: float | None = None


class Loss:
    """Cross-entropy with label smoothing, class weights, auxiliary classifiers and distillation.

    The losses of auxiliary classifiers are added with their weights. With a teacher (arXiv:1503.02531) the divergence
    from its softened probabilities has `teacher_share` of the loss.
    """

    def __init__(
        self, recipe: TrainConfig, class_counts: tuple[int, ...], device: str, teacher: nn.Module | None = None
    ) -> None:
        self._smoothing = recipe.label_smoothing
        self._teacher, self._share, self._temperature = teacher, recipe.teacher_share, recipe.temperature
        self._weight = None
        if recipe.class_weights:
            counts = torch.tensor(class_counts, dtype=torch.float32, device=device).clamp(min=1)
            self._weight = counts.sum() / len(counts) / counts

    def __call__(self, network: nn.Module, x: Tensor, labels: Labels) -> Tensor:
        """The loss () of a network on normalized images (N, C, H, W)."""
        logits, auxiliary = with_auxiliary(network, x)
        loss = self.of_logits(logits, labels)
        if self._teacher is not None:
            loss = (1 - self._share) * loss + self._share * self._divergence(logits, x)
        for weight, other in auxiliary:
            loss = loss + weight * self.of_logits(other, labels)
        return loss

    def of_logits(self, logits: Tensor, labels: Labels) -> Tensor:
        """The cross-entropy () of logits (N, classes)."""
        loss = self._cross_entropy(logits, labels.y)
        if labels.partner is None or labels.share is None:
            return loss
        return labels.share * loss + (1 - labels.share) * self._cross_entropy(logits, labels.y[labels.partner])

    def _cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(logits.float(), y, weight=self._weight, label_smoothing=self._smoothing)

    def _divergence(self, logits: Tensor, x: Tensor) -> Tensor:
        assert self._teacher is not None
        with torch.no_grad():
            known = log_softmax(self._teacher(x).float() / self._temperature, 1)
        own = log_softmax(logits.float() / self._temperature, 1)
        return kl_div(own, known, reduction="batchmean", log_target=True) * self._temperature**2


def with_auxiliary(network: nn.Module, x: Tensor) -> tuple[Tensor, list[tuple[float, Tensor]]]:
    """The logits, and those of each auxiliary classifier with the weight of its loss; none for foreign networks."""
    return network.with_auxiliary(x) if isinstance(network, Network) else (network(x), [])

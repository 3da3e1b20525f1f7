"""How good a network is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score
from torch import nn

from nas.data import ImageData, ImageSet
from nas.training.failures import Diverged

METRICS: dict[str, Callable[..., float]] = {
    "accuracy": accuracy_score,
    "balanced_accuracy": balanced_accuracy_score,  # mean over the classes of the share that is recognized
    "macro_f1": lambda true, predicted: float(f1_score(true, predicted, average="macro")),
}


@torch.inference_mode()
def evaluate(
    network: nn.Module,
    data: ImageData,
    images: ImageSet,
    metric: str = "accuracy",
    batch_size: int = 250,
    between_batches: Callable[[], None] = lambda: None,
) -> float:
    """A metric in [0, 1] of a network in eval mode.

    Args:
        network: images (N, C, H, W) to logits (N, classes), on the device of `images`.
        data: which knows how images are normalized.
        images: what it is judged by.
        metric: a key of `METRICS`.
        batch_size: images at a time.
        between_batches: called before each batch.

    Raises:
        Diverged: a logit is not finite, so the network is no classifier.
    """
    predicted, finite, normalize = [], [], data.normalizer(images.y.device)
    for batch in images.batches(batch_size):
        between_batches()
        logits = network(normalize(batch.x))
        predicted.append(logits.argmax(1))
        finite.append(torch.isfinite(logits).all())
    if not torch.stack(finite).all():
        raise Diverged("diverged: the fused network's outputs are not finite")
    return float(METRICS[metric](images.y.cpu().numpy(), torch.cat(predicted).cpu().numpy()))

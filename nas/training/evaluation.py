"""How good a network is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from sklearn.metrics import accuracy_score, f1_score, recall_score
from torch import nn

from nas.data import ImageData, ImageSet, fitting_batch_size
from nas.training.failures import Diverged

# Classes that no image is of, as a small validation set may lack some, do not count.
METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": lambda true, said: float(accuracy_score(true, said)),
    "balanced_accuracy": lambda true, said: float(
        recall_score(true, said, labels=np.unique(true), average="macro", zero_division=0)  # pyright: ignore
    ),
    "macro_f1": lambda true, said: float(
        f1_score(true, said, labels=np.unique(true), average="macro", zero_division=0)  # pyright: ignore
    ),
}


@torch.inference_mode()
def evaluate(
    network: nn.Module,
    data: ImageData,
    images: ImageSet,
    metric: str = "accuracy",
    batch_size: int | None = None,
    between_batches: Callable[[], None] = lambda: None,
) -> float:
    """A metric in [0, 1] of a network in eval mode.

    Args:
        network: images (N, C, H, W) to logits (N, classes), on the device of `images`.
        data: which knows how images are normalized.
        images: what it is judged by.
        metric: a key of `METRICS`.
        batch_size: images at a time; by default as many as suits the device and their size.
        between_batches: called before each batch.

    Raises:
        Diverged: a logit is not finite, so the network is no classifier.
    """
    predicted, finite, normalize = [], [], data.normalizer(images.y.device)
    for batch in images.batches(batch_size or fitting_batch_size(images.shape, images.y.device)):
        between_batches()
        logits = network(normalize(batch.x))
        predicted.append(logits.argmax(1))
        finite.append(torch.isfinite(logits).all())
    if not torch.stack(finite).all():
        raise Diverged("diverged: the fused network's outputs are not finite")
    return float(METRICS[metric](images.y.cpu().numpy(), torch.cat(predicted).cpu().numpy()))

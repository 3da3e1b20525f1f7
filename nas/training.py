"""Training a network in its train form, and evaluating its deploy form."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from nas.data import Augmentation, ImageData, Images
from nas.networks.builder import Network
from nas.networks.fading import fade
from nas.recipes import TrainConfig


class Diverged(ArithmeticError):
    """The loss became NaN or infinite."""


class TimedOut(TimeoutError):
    """The trial took longer than it may."""


@dataclass(frozen=True)
class Epoch:
    """What an epoch of training left: its number, from 1, and its mean loss."""

    number: int
    loss: float


def train(
    network: nn.Module, data: ImageData, config: TrainConfig, seed: int, between_steps: Callable[[], None]
) -> Iterator[Epoch]:
    """Trains a network in place, yielding after every epoch; it is left in eval mode.

    Cosine schedule after a linear warm-up; fading activations follow their own cosine from 1 to 0, which they
    reach at their `fade_share` of the training and keep: the rest trains the deploy form's function. The losses
    of auxiliary classifiers are added with their weights.

    Args:
        network: the train form, on the device of `data.train`.
        data: the images.
        config: the recipe.
        seed: of the order of images and their augmentation.
        between_steps: called before each step; may let others go first, and raises `TimedOut` when the trial's time
            is over.

    Raises:
        Diverged: the loss of an epoch is not finite.
        TimedOut: see `between_steps`.
    """
    device = data.train.x.device
    generator = torch.Generator(device=device).manual_seed(seed)
    size = min(config.batch_size, len(data.train.y))
    steps = len(data.train.y) // size  # the rest of a shuffled epoch is left out: BatchNorm needs full batches
    total = steps * config.epochs
    warmup = min(config.warmup_epochs * steps, total / 2)
    optimizer = _optimizer(network, config)
    step = 0
    for number in range(1, config.epochs + 1):
        network.train()
        order = torch.randperm(len(data.train.y), generator=generator, device=device)
        loss_sum = torch.zeros((), device=device)
        for batch in order.split(size)[:steps]:
            between_steps()
            fade(network, step / total)
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * schedule(step, total, warmup)
            x = data.train.x[batch]
            if config.augment:
                x = augment(x, data.augmentation, generator)
            loss = batch_loss(network, data.normalize(x), data.train.y[batch], config.label_smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            loss_sum += loss.detach()
            step += 1
        mean_loss = float(loss_sum) / steps
        if not math.isfinite(mean_loss):
            raise Diverged(f"diverged: the loss is {mean_loss} in epoch {number}")
        if number == config.epochs:
            fade(network, 1.0)
        network.eval()
        yield Epoch(number, mean_loss)


def batch_loss(network: nn.Module, x: Tensor, y: Tensor, label_smoothing: float) -> Tensor:
    """Cross-entropy of a batch, that of auxiliary classifiers added with their weights."""
    logits, auxiliary = network.with_auxiliary(x) if isinstance(network, Network) else (network(x), [])
    loss = cross_entropy(logits, y, label_smoothing=label_smoothing)
    for weight, other in auxiliary:
        loss = loss + weight * cross_entropy(other, y, label_smoothing=label_smoothing)
    return loss


@torch.no_grad()
def evaluate(
    network: nn.Module,
    data: ImageData,
    images: Images,
    batch_size: int = 250,
    between_batches: Callable[[], None] = lambda: None,
) -> float:
    """Accuracy in [0, 1] of a network in eval mode; `between_batches` is called before each batch.

    Raises:
        Diverged: a logit is not finite, so the network is no classifier.
    """
    correct = torch.zeros((), device=images.y.device, dtype=torch.long)
    for x, y in zip(images.x.split(batch_size), images.y.split(batch_size), strict=True):
        between_batches()
        logits = network(data.normalize(x))
        if not torch.isfinite(logits).all():
            raise Diverged("diverged: the fused network's outputs are not finite")
        correct += (logits.argmax(1) == y).sum()
    return float(correct) / len(images.y)


def deadline(limit_s: float | None, waited_s: Callable[[], float] = lambda: 0.0) -> Callable[[], None]:
    """A function that raises `TimedOut` once `limit_s` seconds have passed from now; never without a limit.

    `waited_s` says how long one has waited for others so far, which does not count.
    """
    start = time.monotonic() - waited_s()

    def check() -> None:
        if limit_s is not None and time.monotonic() - waited_s() - start > limit_s:
            raise TimedOut(f"timeout: longer than trials.timeout={limit_s:g} s")

    return check


def schedule(step: int, total: int, warmup: float) -> float:
    """Share of the peak learning rate at a step: linear warm-up, then a cosine to 0."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return (1 + math.cos(math.pi * (step - warmup) / max(1.0, total - warmup))) / 2


def augment(x: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Each image of (N, C, H, W) shifted (edges repeated) and mirrored at random."""
    n, _, height, width = x.shape
    shift = min(augmentation.shift, height - 1, width - 1)
    device = x.device
    if shift:
        # The images' edges are repeated; padding works on floats only.
        padded = pad(x.float(), (shift,) * 4, mode="replicate").to(x.dtype)
        offsets = torch.randint(0, 2 * shift + 1, (2, n, 1), generator=generator, device=device)
        rows = offsets[0] + torch.arange(height, device=device)
        columns = offsets[1] + torch.arange(width, device=device)
        image = torch.arange(n, device=device)[:, None, None]
        x = padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    if augmentation.flip:
        mirrored = torch.rand(n, generator=generator, device=device) < 0.5
        x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
    return x


def _optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW or Nesterov SGD; weight decay on matrices and kernels only, not on norms and biases."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.learning_rate, foreach=True)
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum, nesterov=config.momentum > 0)

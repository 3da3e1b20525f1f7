"""The training loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nas.data import ImageData
from nas.networks.fading import FadingActivation, fading
from nas.recipes import TrainConfig
from nas.training.augmentation import augment, mixed, movement
from nas.training.average import WeightAverage
from nas.training.failures import Diverged
from nas.training.graphs import Backward, faster, may_be_captured
from nas.training.losses import Labels, Loss
from nas.training.optimizer import decayed, make_optimizer, schedule
from nas.training.precision import autocast, layout, training_dtype

WORTH_A_GRAPH = 500  # steps from which a second of trying CUDA graphs is nothing


@dataclass(frozen=True)
class Epoch:
    """What an epoch of training left: its number, from 1, and its mean loss."""

    number: int
    loss: float


class Training:
    """The training of one network, in place.

    Fading activations follow their own cosine from 1 to 0, which they reach at their `fade_share` of the training and
    keep: the rest trains the deploy form's function. Every epoch draws from generators of its own seed, so that a
    training that is continued (`restore`) sees the same images in the same order as one that was never interrupted.

    Attributes:
        done: epochs that are over.
        shipped: the network whose weights ship: the one that trains, or the average of its weights. In eval mode
            between epochs.
    """

    def __init__(
        self,
        network: nn.Module,
        data: ImageData,
        recipe: TrainConfig,
        seed: int,
        between_steps: Callable[[], None],
        teacher: nn.Module | None = None,
    ) -> None:
        """A training that has not begun.

        Args:
            network: the train form, on the device of `data.train`.
            data: the images.
            recipe: how it is trained.
            seed: of the order of images, their augmentation, and dropout.
            between_steps: called before each step; may let others go first, and raises `TimedOut` when the trial's
                time is over.
            teacher: network that is distilled from, in eval mode, on the same device.

        Raises:
            ValueError: the device does not have the recipe's precision.
        """
        self._device = str(data.train.y.device)
        self._dtype = training_dtype(recipe.precision, self._device, network)
        self._layout = layout(recipe)
        self._network = network.to(memory_format=self._layout)  # pyright: ignore[reportCallIssue]  # torch's overload
        self._data, self._recipe, self._seed, self._between_steps = data, recipe, seed, between_steps
        # Whether images may be moved: those that are streamed are cropped at random then.
        self._moves = recipe.augment and movement(recipe, data.augmentation).shift > 0
        self._normalize = data.normalizer(data.train.y.device)
        self._loss = Loss(recipe, data.class_counts, self._device, teacher)
        self._optimizer = make_optimizer(network, recipe)
        self._parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        self._scaler = torch.GradScaler(self._device.partition(":")[0], enabled=self._dtype == torch.float16)
        self._average = WeightAverage(network, recipe.ema) if recipe.ema else None
        self.shipped = self._average.network if self._average else network
        self._fading = [
            module
            for each in {id(network): network, id(self.shipped): self.shipped}.values()
            for module in each.modules()
            if isinstance(module, FadingActivation)
        ]
        # The rest of a shuffled epoch is left out: BatchNorm needs full batches.
        self._batch_size = min(recipe.batch_size, len(data.train))
        self._steps = len(data.train) // self._batch_size
        self._total = self._steps * recipe.epochs
        self.done = 0
        self._plain_backward: Backward = lambda x, y: self._backward(x, Labels(y))
        self._may_graph = (
            self._device.startswith("cuda")
            and self._total >= WORTH_A_GRAPH
            and not self._scaler.is_enabled()
            and not recipe.mixup
            and may_be_captured(network)
        )

    def epochs(self) -> Iterator[Epoch]:
        """Trains, yielding after every epoch.

        Raises:
            Diverged: the loss of an epoch is not finite.
            TimedOut: see `between_steps`.
        """
        while self.done < self._recipe.epochs:
            self._network.train()
            loss = self._epoch()
            self._network.eval()
            if not math.isfinite(loss):
                raise Diverged(f"diverged: the loss is {loss} in epoch {self.done + 1}")
            self.done += 1
            if self.done == self._recipe.epochs:
                self._fade(1.0)
            yield Epoch(self.done, loss)

    def _epoch(self) -> float:
        """Trains for one epoch; its mean loss."""
        seed = (self._seed * 1_000_003 + self.done) * 3 % 2**62
        generator = torch.Generator(self._device).manual_seed(seed + 1)
        loss_sum = torch.zeros((), device=self._device)
        cuda = [torch.cuda.current_device()] if self._device.startswith("cuda") else []
        step = self.done * self._steps
        with torch.random.fork_rng(cuda):
            torch.manual_seed(seed + 2)  # of dropout, stochastic depth, RandAugment
            for batch in self._data.train.shuffled(self._batch_size, seed, self._moves):
                self._between_steps()
                loss_sum += self._step(batch.x, batch.y, step, generator)
                step += 1
        return float(loss_sum) / self._steps

    def _step(self, x: Tensor, y: Tensor, step: int, generator: torch.Generator) -> Tensor:
        """One step; its loss (), which nobody has waited for."""
        self._fade(step / self._total)
        for group in self._optimizer.param_groups:
            group["lr"] = self._recipe.learning_rate * schedule(step, self._total, self._recipe)
        x, labels = self._prepared(x, y, generator)
        if self._may_graph:
            self._may_graph = False
            self._plain_backward = faster(self._plain_backward, self._network, x, y)
        loss = self._backward(x, labels) if labels.partner is not None else self._plain_backward(x, y)
        if self._recipe.grad_clip:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self._parameters, self._recipe.grad_clip, foreach=True)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._average:
            self._average.update(step)
        return loss

    def _backward(self, x: Tensor, labels: Labels) -> Tensor:
        """Leaves the gradient of a batch with the parameters; its loss ()."""
        with autocast(self._device, self._dtype):
            loss = self._loss(self._network, x, labels)
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        return loss.detach()

    def _prepared(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Labels]:
        """Augmented and normalized images in the training's layout, and what they are."""
        recipe = self._recipe
        if recipe.augment:
            x = augment(x, recipe, self._data.augmentation, generator)
        x = self._normalize(x).contiguous(memory_format=self._layout)
        if not (recipe.augment and recipe.mixup):
            return x, Labels(y)
        x, partner, share = mixed(x, recipe.mixup, generator)
        return x, Labels(y, partner, share)

    def _fade(self, progress: float) -> None:
        progress = decayed(progress) if self._recipe.schedule == "wsd" else progress
        for module in self._fading:
            module.lam.fill_(fading(progress, module.fade_share))

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that the epochs to come depend on: tensors by name, and JSON-ready words."""
        tensors = {f"network.{name}": tensor for name, tensor in self._network.state_dict().items()}
        if self._average:
            tensors |= {f"average.{name}": tensor for name, tensor in self._average.network.state_dict().items()}
        for number, parameter in enumerate(self._parameters):
            for name, tensor in self._optimizer.state[parameter].items():
                tensors[f"optimizer.{number}.{name}"] = torch.as_tensor(tensor)
        return tensors, {"done": self.done, "scaler": self._scaler.state_dict()}

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor], words: dict[str, Any]) -> None:
        """Continues from what `state` gave in another process.

        Raises:
            RuntimeError, KeyError: it is not of this network.
        """
        self._network.load_state_dict(_of(tensors, "network."))
        if self._average:
            self._average.network.load_state_dict(_of(tensors, "average."))
        for number, parameter in enumerate(self._parameters):
            # Strides like those of the parameter, as the optimizer makes them.
            self._optimizer.state[parameter] = {
                name: tensor.clone() if name == "step" else torch.empty_like(parameter).copy_(tensor)
                for name, tensor in _of(tensors, f"optimizer.{number}.").items()
            }
        if words["scaler"]:
            self._scaler.load_state_dict(words["scaler"])
        self.done = int(words["done"])


def _of(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

"""A judged network as a value: bytes and words that travel anywhere, of which it is built again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from safetensors.torch import load, save
from torch import nn

from nas.architecture import architecture_from_json
from nas.data import ImageData, fitting_batch_size
from nas.data.images import resized
from nas.deploy import load_deployed
from nas.networks.builder import build
from nas.networks.merging import apply_merges, merge_plan_from_json
from nas.plugins import import_plugins
from nas.store import RunStore


@dataclass(frozen=True)
class FittedNetwork:
    """A fused and merged network, and how images are prepared for it.

    Attributes:
        trial: its number in the run.
        architecture: JSON.
        merges: how it was merged, JSON.
        weights: safetensors.
        classes: number of them.
        input_shape: (C, H, W).
        mean: of the training images by channel, in their units.
        std: likewise.
        plugins: modules that its blocks are in.
    """

    trial: int
    architecture: str
    merges: str
    weights: bytes
    classes: int
    input_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    plugins: tuple[str, ...] = ()

    def build(self) -> nn.Module:
        """The network, in eval mode on the CPU: normalized images (N, C, H, W) to logits (N, classes)."""
        import_plugins(list(self.plugins))
        arch = architecture_from_json(self.architecture)
        plain = build(arch, num_classes=self.classes, input_shape=self.input_shape, form="deploy")
        network = apply_merges(plain, merge_plan_from_json(self.merges))
        network.load_state_dict(load(self.weights))
        return network.eval()

    @torch.inference_mode()
    def probabilities(self, network: nn.Module, images: np.ndarray) -> np.ndarray:
        """(N, classes), float64, of images (N, C, H, W) in the units of those that it was trained on, of any size."""
        mean, std = (torch.tensor(each).reshape(1, -1, 1, 1) for each in (self.mean, self.std))
        size = fitting_batch_size(self.input_shape, torch.device("cpu"))
        parts = []
        for start in range(0, len(images), size):
            pixels = torch.from_numpy(np.ascontiguousarray(images[start : start + size], dtype=np.float32))
            pixels = resized(pixels, self.input_shape[1:])
            parts.append(network((pixels - mean) / std).double().softmax(1))
        return torch.cat(parts).numpy()


def fitted_network(store: RunStore, trial: int, data: ImageData, plugins: Sequence[str]) -> FittedNetwork:
    """The network of a trial of a run that was searched on `data`, with blocks of `plugins`.

    Raises:
        ValueError: its weights are missing or damaged.
    """
    record = next(each for each in store.records() if each.trial == trial)
    weights = store.weights_file(trial)
    network, merges = load_deployed(record.architecture, weights, data.num_classes, data.input_shape)
    return FittedNetwork(
        trial,
        record.architecture.to_json(),
        merges.to_json(),
        save({name: tensor.contiguous() for name, tensor in network.state_dict().items()}),
        data.num_classes,
        data.input_shape,
        data.mean,
        data.std,
        tuple(plugins),
    )

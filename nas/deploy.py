"""Deployable files of one judged network, verified before they are where a user looks for them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from nas.architecture import Architecture
from nas.command_line import Failed
from nas.config import first_line
from nas.data import ImageData, fitting_batch_size
from nas.files import write_at_once
from nas.networks.builder import build
from nas.networks.fusing import unfused_norms
from nas.networks.merging import MergePlan, apply_merges, merge_plan_from_json
from nas.networks.onnx_file import OnnxNetwork, shipped_bytes
from nas.tensor_file import save_tensors

MERGES = "merges"  # key of the merge plan in a weights file's metadata
VERIFIED_IMAGES = 10_000
SEEN_IMAGES = 1000  # of the training images, to tell their range
TOLERANCE = 1e-4  # largest difference of ONNX Runtime's outputs over the largest output


class ExportFailed(Failed):
    """A file does not hold the network that it should."""


def save_weights(network: nn.Module, merges: MergePlan, file: Path) -> None:
    """Writes a merged network's weights and how it was merged as safetensors, at once: no reader sees half a file."""
    save_tensors(network.state_dict(), file, {MERGES: merges.to_json()})


def keep_networks(
    trained: nn.Module, deployed: nn.Module, merges: MergePlan, trained_file: Path, deployed_file: Path
) -> None:
    """Keeps both forms of a judged network, the one that ships last: where it is, the other is too."""
    save_tensors(trained.state_dict(), trained_file)
    save_weights(deployed, merges, deployed_file)


def load_deployed(
    arch: Architecture, weights: Path, num_classes: int, input_shape: tuple[int, int, int]
) -> tuple[nn.Module, MergePlan]:
    """The fused and merged network of an architecture with weights that `save_weights` wrote, and how it was merged.

    Raises:
        ValueError: the file cannot be read, or holds another network's weights.
    """
    network = build(arch, num_classes=num_classes, input_shape=input_shape, form="deploy")
    try:
        with safe_open(weights, framework="pt") as file:
            merges = merge_plan_from_json((file.metadata() or {}).get(MERGES, MergePlan(()).to_json()))
        merged = apply_merges(network, merges)
        merged.load_state_dict(load_file(weights))
    except Exception as error:  # safetensors raises its own, torch a RuntimeError of many lines
        raise ValueError(f"{weights} does not hold this network: {first_line(error)}") from None
    return merged, merges


def load_trained(arch: Architecture, weights: Path, num_classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
    """The train form of an architecture with the weights that `keep_networks` kept.

    Raises:
        ValueError: the file cannot be read, or holds another network's weights.
    """
    network = build(arch, num_classes=num_classes, input_shape=input_shape, form="train")
    try:
        network.load_state_dict(load_file(weights))
    except Exception as error:  # as above
        raise ValueError(f"{weights} does not hold this network: {first_line(error)}") from None
    return network


@dataclass(frozen=True)
class Model:
    """A fused and merged network, what ships of it (itself, or its quantized form), and what has to be told of it.

    `trained` is its train form, where that is to be kept.
    """

    architecture: Architecture
    network: nn.Module
    shipped: nn.Module
    merges: MergePlan
    data: ImageData
    metrics: dict[str, Any]
    trained: nn.Module | None = None


def export_model(model: Model, directory: Path) -> None:
    """Leaves a model's files (`write_model`) in a folder, in place of what was there.

    The folder is made under another name and renamed last: it is there in full or not at all.

    Raises:
        ExportFailed: see `write_model`.
    """
    draft = directory.with_name(f".{directory.name}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        write_model(model, draft)
        shutil.rmtree(directory, ignore_errors=True)
        draft.rename(directory)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_model(model: Model, folder: Path) -> None:
    """Writes architecture.json, model.safetensors, model.onnx, and last, after verifying the ONNX file, metrics.json.

    Raises:
        ExportFailed: the file's outputs or predictions on test images differ from the network's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "architecture.json").write_text(model.architecture.to_json() + "\n", encoding="utf-8")
    save_weights(model.network, model.merges, folder / "model.safetensors")
    if model.trained is not None:
        save_tensors(model.trained.state_dict(), folder / "train.safetensors")
    (folder / "model.onnx").write_bytes(shipped_bytes(model.shipped, model.data.input_shape))
    difference = _verify_onnx(model.shipped, model.data, folder / "model.onnx")
    metrics = {
        **model.metrics,
        "input": input_words(model.data),
        "classes": list(model.data.classes),
        "unfused_norms": unfused_norms(model.network),
        "merged": [list(segment) for segment in model.merges.segments],
        "onnx_difference": difference,
    }
    write_at_once(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")


def input_words(data: ImageData) -> dict[str, Any]:
    """How images are prepared for a network of a data set, JSON-ready.

    `range` are black and white in the units of the images: 0 and 255 of bytes that use the upper half, too; else the
    least and the greatest value of training images, from all over.
    """
    pixels = data.train.spread(SEEN_IMAGES)
    if pixels.dtype == torch.uint8 and pixels.max() > 127:  # a dark set of photographs has no white in it
        pixels = torch.tensor([0, 255])
    return {
        "shape": ["batch", *data.input_shape],
        "dtype": "float32",
        "normalize": "(pixels - mean) / std, by channel, in the units of the original images",
        "mean": list(data.mean),
        "std": list(data.std),
        "range": [float(pixels.min()), float(pixels.max())],
    }


def _verify_onnx(shipped: nn.Module, data: ImageData, file: Path) -> float:
    """The largest difference over the largest output, on test images from all over."""
    written = OnnxNetwork(file.read_bytes(), data.input_shape)
    found = agreement(outputs_to_compare(written, data), outputs_to_compare(shipped, data))
    if found.equal_predictions < 1:
        raise ExportFailed(f"{file.name}: predictions differ from the network's on test images")
    if not found.difference <= TOLERANCE:
        raise ExportFailed(f"{file.name}: outputs differ by {found.difference:.2g} of the largest output")
    return found.difference


class Agreement(NamedTuple):
    """How far two networks agree on real images.

    Attributes:
        images: on how many.
        difference: the largest of two outputs, over the largest output.
        equal_predictions: the share of images for which both say the same class.
    """

    images: int
    difference: float
    equal_predictions: float


def outputs(network: nn.Module, batches: Iterable[Tensor], data: ImageData) -> Tensor:
    """Logits (N, classes) of a network on the CPU, of batches of images (n, C, H, W) as the data have them."""
    with torch.inference_mode():
        return torch.cat([network(data.normalize(each.cpu())) for each in batches])


def outputs_to_compare(network: nn.Module, data: ImageData) -> Tensor:
    """Logits (N, classes) of a network on the CPU for at most `VERIFIED_IMAGES` unseen images from all over."""
    images = data.unseen.spread(VERIFIED_IMAGES).cpu()
    return outputs(network, images.split(fitting_batch_size(data.input_shape, images.device)), data)


def agreement(given: Tensor, expected: Tensor) -> Agreement:
    """How far two networks' logits (N, classes) of the same images agree."""
    largest = float(expected.abs().max()) or 1.0
    equal = given.argmax(1) == expected.argmax(1)
    return Agreement(len(given), float((given - expected).abs().max()) / largest, float(equal.float().mean()))

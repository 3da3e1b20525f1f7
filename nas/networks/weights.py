"""Starting from weights on disk: our own files, and torchvision's for the networks that it has."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from nas.config import first_line
from nas.networks.builder import Network
from nas.networks.heads import AuxiliaryBlock, ClassifierBlock, ConvClassifierBlock

NOT_WEIGHTS = ("num_batches_tracked", ".lam")


def load_weights(network: Network, file: Path, whole: bool = False) -> None:
    """Fills a network in train form with the weights of a file, in place.

    State dicts of our own train forms are matched by name. Others are by order and shape: our modules register their
    tensors in the order in which torchvision's do, so its pretrained weights fit the zoo's networks. A last layer for
    another number of classes keeps its fresh values; auxiliary classifiers do where the file has none.

    Args:
        network: the train form.
        file: `.safetensors`, or `.pt`/`.pth` with a state dict. The latter are read without running any code that
            they may hold (`weights_only`).
        whole: whether the last layer has to fit as well.

    Raises:
        ValueError: the file cannot be read, or holds another network's weights.
    """
    given = {name: value for name, value in _read(file).items() if not name.endswith(NOT_WEIGHTS)}
    orders = _orders(network)
    if file.suffix == ".safetensors" and set(given) != {target.name for target in orders[0]}:
        raise ValueError(
            f"weights={file} is not of this network's train form (an exported model is its deploy form); files of "
            "other networks must be .pt or .pth, since safetensors does not keep their order"
        )
    reasons = []
    for targets in orders:
        names = [target.name for target in targets]
        try:
            # safetensors sorts its tensors by name.
            named = set(names) == set(given)
            kept = [target._replace(may_stay=target.may_stay and not whole) for target in targets]
            pairs = _matched(kept, [(name, given[name]) for name in names] if named else list(given.items()))
        except ValueError as error:
            reasons.append(str(error))
            continue
        with torch.no_grad():
            for target, value in pairs:
                target.copy_(value.reshape(target.shape))
        return
    raise ValueError(f"weights={file} does not hold this network: {reasons[0]}")


def _read(file: Path) -> Mapping[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        check_unpacked(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors and the unpickler raise their own, which they keep private
        reason = f": {first_line(error)}" if isinstance(error, OSError) else ""
        raise ValueError(
            f"weights={file} cannot be read as a state dict{reason}; allowed: .safetensors, or .pt or .pth of "
            "torch.save(model.state_dict())"
        ) from None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"weights={file} is no state dict: allowed is a mapping of names to tensors")
    return state


def check_unpacked(file: Path) -> None:
    """Holds that a file of torch.save is not packed, since a few bytes can be unpacked to very many; it never is.

    Raises:
        ValueError: it is.
    """
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if any(each.compress_type != zipfile.ZIP_STORED for each in archive.infolist()):
                raise ValueError("its parts are packed")


class Target(NamedTuple):
    """A tensor to fill: its name, and whether it may stay as it is."""

    name: str
    tensor: Tensor
    may_stay: bool


def _orders(network: Network) -> list[list[Target]]:
    """The network's tensors in the orders in which a file may hold them.

    torchvision registers auxiliary heads where they stand (Inception V3) or after all else but the classifier
    (GoogLeNet); a file may also lack them.
    """
    body: list[Target] = []
    auxiliary: list[Target] = []
    inline: list[Target] = []
    for i, block in enumerate(network.blocks):
        last = _logits(block)
        state = block.state_dict(prefix=f"blocks.{i}.", keep_vars=True)
        targets = [
            Target(name, tensor, name.rpartition(".")[0] == f"blocks.{i}.{last}")
            for name, tensor in state.items()
            if not name.endswith(NOT_WEIGHTS)
        ]
        if isinstance(block, ClassifierBlock | ConvClassifierBlock):
            return [[*inline, *targets], [*body, *auxiliary, *targets], [*body, *targets]]
        (auxiliary if isinstance(block, AuxiliaryBlock) else body).extend(targets)
        inline.extend(targets)
    raise AssertionError("an architecture ends with its classifier")


def _logits(block: torch.nn.Module) -> str:
    """The name, within a block, of the layer that makes logits; empty where there is none."""
    if isinstance(block, ConvClassifierBlock):
        return "conv"
    return f"layers.{len(block.layers) - 1}" if isinstance(block, ClassifierBlock | AuxiliaryBlock) else ""


def _matched(targets: list[Target], given: list[tuple[str, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    if len(targets) != len(given):
        raise ValueError(f"it has {len(given)} tensors, the network {len(targets)}")
    pairs = []
    for (name, target, may_stay), (given_name, value) in zip(targets, given, strict=True):
        if given_name.rpartition(".")[2] != name.rpartition(".")[2]:
            raise ValueError(f"{given_name} stands where {name} should")
        # A fully connected layer may stand for a convolution over the whole map (auxiliary heads).
        if target.shape == value.shape or (
            value.ndim == 2 and target.ndim > 1 and target.flatten(1).shape == value.shape
        ):
            pairs.append((target, value))
        elif not (may_stay and target.shape[1:] == value.shape[1:]):
            raise ValueError(f"{given_name} is {tuple(value.shape)} where {name} is {tuple(target.shape)}")
    return pairs

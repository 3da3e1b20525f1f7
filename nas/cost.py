"""What a network costs without being run: parameters and multiply-adds."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def count(network: nn.Module, input_shape: tuple[int, int, int]) -> tuple[int, int]:
    """Parameters of a network and its multiply-adds for one image.

    Multiply-adds are those of convolutions and linear layers, each counted once (PyTorch's counter counts
    a multiply-add as two operations). Counted on the meta device, in eval mode: nothing is computed, and the
    network is not changed.

    Args:
        network: any module that takes (1, C, H, W).
        input_shape: (C, H, W).

    Returns:
        (params, macs).
    """
    probe, image = on_meta(network, input_shape)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        probe(image)
    params = sum(parameter.numel() for parameter in network.parameters())
    return params, counter.get_total_flops() // 2


def entering_shapes(
    network: nn.Module, input_shape: tuple[int, int, int], names: Sequence[str]
) -> list[tuple[str, tuple[int, int, int]]]:
    """The (C, H, W) that enters each of some named modules, in the order in which they run; 1 for sizes that it lacks.

    A module that runs twice is there twice. Found on the meta device: the network is not changed.
    """
    seen: list[tuple[str, tuple[int, int, int]]] = []

    def record(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            channels, height, width = (*inputs[0].shape[1:], 1, 1)[:3]
            seen.append((name, (channels, height, width)))

        return hook

    probe, image = on_meta(network, input_shape)
    for name in names:
        probe.get_submodule(name).register_forward_pre_hook(record(name))
    with torch.no_grad():
        probe(image)
    return seen


def on_meta(network: nn.Module, input_shape: tuple[int, int, int]) -> tuple[nn.Module, Tensor]:
    """A copy of a network in eval mode and an image (1, C, H, W) for it, both without numbers: running it is free."""
    dtype = next((parameter.dtype for parameter in network.parameters()), torch.float32)
    image = torch.empty(1, *input_shape, device="meta", dtype=dtype)
    # Numbers are left behind by the copying itself: to copy and then to drop them takes most of the time.
    without = {id(each): nn.Parameter(each.detach().to("meta"), each.requires_grad) for each in network.parameters()}
    buffers = {id(each): each.detach().to("meta") for each in network.buffers()}
    return copy.deepcopy(network, {**buffers, **without}).to("meta").eval(), image

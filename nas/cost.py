"""What a network costs without being run: parameters, multiply-adds, and the numbers that it keeps in memory."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from nas.reading import Footprint, Size


def count(network: nn.Module, input_shape: tuple[int, int, int]) -> tuple[int, int]:
    """Parameters of a network and its multiply-adds for one image.

    Multiply-adds are those of convolutions and linear layers, each counted once (PyTorch's formulas count
    a multiply-add as two operations). Counted on the meta device, in eval mode: nothing is computed, and the
    network is not changed.

    Args:
        network: any module that takes (1, C, H, W).
        input_shape: (C, H, W).

    Returns:
        (params, macs).
    """
    return _params(network), _observed(network, input_shape).flops // 2


def footprint(network: nn.Module, input_shape: tuple[int, int, int]) -> Footprint:
    """The numbers that a network keeps in memory, found as `count` does.

    Activations are what operators return: counted while anything refers to them, views and results in place not
    twice. What an operator returns beside its result (indices of a max-pool, statistics of a norm) and what it
    needs while it computes is not counted.
    """
    return _footprint(network, _observed(network, input_shape))


def size(network: nn.Module, input_shape: tuple[int, int, int], batch_size: int, dtype: str) -> Size:
    """All of this, of a network that ships with so many images in a batch, in a dtype (`nas.reading.NUMBER_BYTES`)."""
    observed = _observed(network, input_shape)
    peak_mb = _footprint(network, observed).peak_mb(batch_size, dtype)
    return Size(_params(network), observed.flops // 2, peak_mb)


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


class Observer(TorchDispatchMode):
    """Counts what runs within it: operations, and the numbers of tensors that are alive at once.

    Attributes:
        flops: operations by PyTorch's formulas.
        most_alive: the most numbers at once in the tensors that it was told of or saw made.
    """

    def __init__(self, stored: Sequence[Tensor], entered: Tensor) -> None:
        super().__init__()
        self.flops = self.most_alive = self._alive = 0
        self._known: dict[int, object] = {each.untyped_storage()._cdata: None for each in stored}
        self._see(entered)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operator."""
        results = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.flops += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=results)
        # A list is of results, a tuple of a result and what may be needed for its gradient.
        for each in results if isinstance(results, list) else [results[0] if isinstance(results, tuple) else results]:
            if isinstance(each, Tensor):
                self._see(each)
        return results

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, numbers = storage._cdata, storage.nbytes() // tensor.element_size()
        if key in self._known:
            return

        def gone(_reference: object) -> None:
            del self._known[key]
            self._alive -= numbers

        self._known[key] = weakref.ref(storage, gone)
        self._alive += numbers
        self.most_alive = max(self.most_alive, self._alive)


def _observed(network: nn.Module, input_shape: tuple[int, int, int]) -> Observer:
    """What a network did with one image."""
    # In a caller's inference mode operators would not be taken apart into those that there are formulas for.
    with torch.inference_mode(False), torch.no_grad():
        probe, image = on_meta(network, input_shape)
        observer = Observer([*probe.parameters(), *probe.buffers()], image)
        with observer:
            probe(image)
    return observer


def _params(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _footprint(network: nn.Module, observed: Observer) -> Footprint:
    stored = [*network.parameters(), *network.buffers()]
    kernels, others = [each for each in stored if each.ndim > 1], [each for each in stored if each.ndim <= 1]
    other_bytes = sum(each.numel() * each.element_size() for each in others)
    return Footprint(sum(each.numel() for each in kernels), other_bytes, observed.most_alive)

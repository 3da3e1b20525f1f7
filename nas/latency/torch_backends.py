"""PyTorch as a runtime: eager, and compiled by inductor."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from nas.config import LatencyConfig
from nas.latency.prepared import CUDA_EVENTS, Prepared, cuda_clock, host_clock, not_supported

MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@contextlib.contextmanager
def torch_eager(network: nn.Module, batch: Tensor, config: LatencyConfig) -> Iterator[Prepared]:
    """Eager PyTorch; on CUDA as a graph, if so configured. The memory format is the faster one unless given."""
    with _threads(config.threads), torch.inference_mode(), _float32(batch):
        ready, *rivals = [_eager(network, batch, config, each) for each in _formats(config)]
        yield replace(ready, rivals=tuple(rivals))


@contextlib.contextmanager
def torch_compile(network: nn.Module, batch: Tensor, config: LatencyConfig) -> Iterator[Prepared]:
    """Compiled by inductor, weights frozen; on CUDA its graphs, if so configured."""
    # Inductor lays convolutions out as it finds best.
    memory_format = "contiguous" if config.memory_format == "auto" else config.memory_format
    graphs = {"triton.cudagraphs": config.cuda_graphs} if batch.is_cuda else {}
    # Networks of one class share a limit of compilations, beyond which they silently run eager.
    unlimited = torch._dynamo.config.patch(recompile_limit=10_000, accumulated_recompile_limit=10_000)
    with _threads(config.threads), torch.inference_mode(), _float32(batch), unlimited:
        placed, images = _placed(network, batch, memory_format)
        compiled = torch.compile(placed, dynamic=False, options={"freezing": True, **graphs})
        try:
            try:
                compiled(images)
            except Exception as error:  # inductor and the compiler behind it raise their own kinds
                raise not_supported("torch_compile", error) from None
            yield _timed(compiled, images, config, memory_format)
        finally:
            torch.compiler.reset()


def _eager(network: nn.Module, batch: Tensor, config: LatencyConfig, memory_format: str) -> Prepared:
    placed, images = _placed(network, batch, memory_format)
    try:
        placed(images)
    except Exception as error:  # the network's own code may raise anything
        raise not_supported("torch", error) from None
    if not (batch.is_cuda and config.cuda_graphs):
        return _timed(placed, images, config, memory_format)
    # As PyTorch's notes on CUDA graphs have it: warm up on a side stream, then capture.
    side = torch.cuda.Stream(batch.device)
    side.wait_stream(torch.cuda.current_stream(batch.device))
    with torch.cuda.stream(side):
        for _ in range(3):
            placed(images)
    torch.cuda.current_stream(batch.device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        # By itself it would capture on a stream of the first GPU that was ever captured on.
        with torch.cuda.graph(graph, stream=side):
            logits = placed(images)
    except RuntimeError as error:
        raise not_supported("torch with CUDA graphs", error) from None

    def replay(_images: Tensor, _weights: nn.Module = placed) -> Tensor:
        graph.replay()  # it reads the weights where they lie, and does not keep them there
        return logits

    return _timed(replay, images, config, memory_format)


def _timed(call: Callable[[Tensor], Tensor], images: Tensor, config: LatencyConfig, memory_format: str) -> Prepared:
    def logits() -> np.ndarray:
        return call(images).cpu().numpy()

    if not images.is_cuda:
        return Prepared(logits, host_clock(lambda: call(images)), memory_format)
    clock = cuda_clock(lambda: call(images), images.device, config.flush_l2)
    return Prepared(logits, clock, memory_format, CUDA_EVENTS)


def _placed(network: nn.Module, batch: Tensor, memory_format: str) -> tuple[nn.Module, Tensor]:
    how = MEMORY_FORMATS[memory_format]
    return copy.deepcopy(network).to(memory_format=how), batch.contiguous(memory_format=how)


def _formats(config: LatencyConfig) -> list[str]:
    return list(MEMORY_FORMATS) if config.memory_format == "auto" else [config.memory_format]


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _float32(batch: Tensor) -> contextlib.AbstractContextManager[None]:
    """On a GPU: the fastest algorithms, without TensorFloat-32, which is not the float32 that is asked for."""
    if not batch.is_cuda:
        return contextlib.nullcontext()
    return torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False)

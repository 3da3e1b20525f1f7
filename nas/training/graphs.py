"""Forward and backward passes as a CUDA graph, where that is faster: small networks wait for launches."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

# What gives the loss () of a batch (N, C, H, W) with class numbers (N,), and leaves gradients with the parameters.
Backward = Callable[[Tensor, Tensor], Tensor]

WARM_UPS = 3
REPEATS = 5
WORTH_IT = 0.95  # of the time without a graph
SAME = 0.05  # largest relative difference of the gradient: kernels may add up in another order, in bf16 too


class Graphed:
    """A backward pass, captured once and replayed on other batches of the same shape.

    As in PyTorch's notes on whole-network capture: warm-up on a side stream, gradients that the graph itself allocates.
    """

    def __init__(self, backward: Backward, network: nn.Module, x: Tensor, y: Tensor) -> None:
        """Captures `backward`.

        Raises:
            RuntimeError: something in it cannot be captured.
        """
        self._parameters = list(network.parameters())
        self._x, self._y = x.clone(), y.clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                backward(self._x, self._y)
        torch.cuda.current_stream().wait_stream(side)
        for parameter in self._parameters:
            parameter.grad = None
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._loss = backward(self._x, self._y)
        self._gradients = [parameter.grad for parameter in self._parameters]

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Like the backward pass that was captured."""
        self._x.copy_(x)
        self._y.copy_(y)
        self._graph.replay()
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        return self._loss


def may_be_captured(network: nn.Module) -> bool:
    """Whether replays would do what was captured: nothing in the network draws random numbers."""
    return not any(isinstance(module, nn.Dropout | StochasticDepth) and module.p > 0 for module in network.modules())


def faster(backward: Backward, network: nn.Module, x: Tensor, y: Tensor) -> Backward:
    """`backward`, or its graph if that gives the same gradient on this batch in less time; both are tried.

    Weights and statistics of the network are left as they were.
    """
    before = [buffer.clone() for buffer in network.buffers()]
    try:
        graphed = Graphed(backward, network, x, y)
        same = _same(backward, graphed, network, x, y)
        better = same and _seconds(graphed, x, y) < WORTH_IT * _seconds(backward, x, y)
    except RuntimeError:  # what cannot be captured, or does not fit into the memory twice, is trained as it is
        return backward
    finally:
        with torch.no_grad():
            for buffer, value in zip(network.buffers(), before, strict=True):
                buffer.copy_(value)
    return graphed if better else backward


def _same(first: Backward, second: Backward, network: nn.Module, x: Tensor, y: Tensor) -> bool:
    """Whether both leave the same gradient."""
    first(x, y)
    wanted = [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]
    second(x, y)
    given = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    if len(given) != len(wanted):
        return False
    squares = sum(float((a - b).square().sum()) for a, b in zip(wanted, given, strict=True))
    return squares <= SAME**2 * sum(float(a.square().sum()) for a in wanted)


def _seconds(backward: Backward, x: Tensor, y: Tensor) -> float:
    """Median seconds of a pass, the device's included."""
    seconds = []
    for _ in range(REPEATS):
        torch.cuda.synchronize()
        start = time.perf_counter()
        backward(x, y)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)

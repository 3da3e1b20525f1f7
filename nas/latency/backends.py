"""The runtimes whose latency can be measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

Run = Callable[[], object]


class LatencyBackend(Protocol):
    """A runtime: made ready for one network and one batch, it yields a function that runs them to the end."""

    def ready(self, network: nn.Module, batch: Tensor, threads: int) -> AbstractContextManager[Run]:
        """A context in which the yielded function runs `network` on `batch` once, synchronously."""
        ...


class TorchBackend:
    """Eager PyTorch on the device of the batch."""

    @contextmanager
    def ready(self, network: nn.Module, batch: Tensor, threads: int) -> Iterator[Run]:
        """See `LatencyBackend.ready`; the thread count of the process is put back afterwards."""

        def run() -> None:
            network(batch)
            if batch.is_cuda:
                torch.cuda.synchronize(batch.device)

        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            with torch.inference_mode():
                yield run
        finally:
            torch.set_num_threads(before)


LATENCY_BACKENDS: dict[str, Callable[[], LatencyBackend]] = {"torch": TorchBackend}


def latency_backend(name: str) -> LatencyBackend:
    """The backend of a name.

    Raises:
        ValueError: an unknown name.
    """
    if name not in LATENCY_BACKENDS:
        raise ValueError(f"latency.backend={name} is unknown; known: {', '.join(LATENCY_BACKENDS)}")
    return LATENCY_BACKENDS[name]()

"""Reading batches in processes of their own, a few ahead of the one that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nas.cores import cores


class _Batches(Dataset[Tensor | str]):
    """Item i is the i-th batch as `read` gives it, or why it cannot be read."""

    def __init__(self, read: Callable[[list[int]], Tensor], batches: Sequence[list[int]]) -> None:
        self.read, self.batches = read, batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> Tensor | str:
        # A raised error would reach the reader as the traceback of another process; its line is what is wanted.
        try:
            with _one_thread():
                return self.read(self.batches[number])
        except ValueError as error:
            return str(error)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One image has too little work for several threads, which wait for each other longer than they work.

    Workers have one anyway; this is for the process that reads without any.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def read_batches(
    read: Callable[[list[int]], Tensor], batches: Sequence[list[int]], workers: int | None, pinned: bool = False
) -> Iterator[Tensor]:
    """What `read` gives for each of `batches`, in their order.

    The processes end with the iterator, be it read to its end or not. `read` has one thread. No random numbers
    of this process are drawn.

    Args:
        read: reads a batch; must be picklable.
        batches: what it is called with, once each.
        workers: processes that read; 0: this one reads; None: one a core. A single batch is read by this one.
        pinned: leave batches in pinned memory, from where they can be copied to a CUDA device in the background.

    Raises:
        ValueError: the one that `read` raised.
    """
    workers = cores() if workers is None else workers
    loader = DataLoader(
        _Batches(read, batches),
        batch_size=None,
        num_workers=min(workers, len(batches)) if len(batches) > 1 else 0,
        pin_memory=pinned,
        generator=torch.Generator(),  # else the loader takes the workers' seeds from the global one
    )
    for batch in loader:
        if isinstance(batch, str):
            raise ValueError(batch)
        yield batch

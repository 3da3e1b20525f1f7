"""How this process gets its memory: trainings on the CPU take and free large tensors in every step."""

from __future__ import annotations

import ctypes
import sys

# Of glibc's mallopt(3).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST = 2**30


def keep_freed_memory() -> None:
    """Tells glibc's allocator to keep what is freed, instead of giving every large tensor back to the system.

    Else each step has its memory zeroed by the kernel anew, page by page: measured on two cores, that took from a
    twentieth to two thirds of a training's time (`analysis/results/README.md`). PyTorch's own guide recommends another
    allocator, to be preloaded, for the same reason. Elsewhere than with glibc nothing is done.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST)
        mallopt(M_TRIM_THRESHOLD, LARGEST)

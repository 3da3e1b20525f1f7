"""A machine that has run out of something, which is not the fault of the trial that meets it."""

from __future__ import annotations

import errno

FULL = (errno.ENOSPC, errno.EDQUOT)
# What libraries say that raise errors of their own: safetensors, ONNX Runtime.
FULL_WORDS = ("No space left on device", "Disk quota exceeded")
MEMORY_WORDS = ("out of memory", "can't allocate memory", "Failed to allocate memory", "bad_alloc")


def out_of_space(error: BaseException) -> bool:
    """Whether something could not be written because a disk is full."""
    return getattr(error, "errno", None) in FULL or any(word in str(error) for word in FULL_WORDS)


def out_of_memory(error: BaseException) -> bool:
    """Whether memory could not be had, of the machine or of a GPU."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or (isinstance(error, RuntimeError) and any(word in str(error) for word in MEMORY_WORDS))

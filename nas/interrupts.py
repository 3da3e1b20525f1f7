"""Ctrl-C at a moment when it does no harm."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def interrupt_later() -> Iterator[None]:
    """Holds Ctrl-C back until its block has ended, for what would leave a mess if it were cut off in the middle.

    Raises:
        KeyboardInterrupt: at the end, if there was one.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone is interrupted
        yield
        return
    held: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held:
        raise KeyboardInterrupt

"""Ctrl-C and SIGTERM: as exceptions, and at moments when they do no harm."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn


class Terminated(KeyboardInterrupt):
    """SIGTERM: a scheduler takes the machine away, within seconds."""


@contextlib.contextmanager
def terminations() -> Iterator[None]:
    """SIGTERM raises `Terminated` in the block: left alone, Python would end at once, with nothing put away."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def terminate(number: int, frame: FrameType | None) -> NoReturn:
        came.append(number)
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except KeyboardInterrupt:
        if came:
            raise Terminated from None  # Ray makes a KeyboardInterrupt of its own of it
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def interrupt_later() -> Iterator[None]:
    """Holds Ctrl-C and SIGTERM back until its block has ended, for what would leave a mess if it were cut off.

    At the end they do what they would have done at once.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone is interrupted
        yield
        return
    held: list[int] = []
    before = {
        each: signal.signal(each, lambda number, frame: held.append(number))
        for each in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(each) is not None  # None: it is handled outside of Python, and could not be put back
    }
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        for number in dict.fromkeys(held):
            signal.raise_signal(number)

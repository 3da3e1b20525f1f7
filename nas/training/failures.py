"""How a training can fail for reasons of its own."""

from __future__ import annotations

import time
from collections.abc import Callable


class Diverged(ArithmeticError):
    """The loss became NaN or infinite."""


class TimedOut(TimeoutError):
    """The trial took longer than it may."""


def deadline(limit_s: float | None, waited_s: Callable[[], float] = lambda: 0.0) -> Callable[[], None]:
    """A function that raises `TimedOut` once `limit_s` seconds have passed from now; never without a limit.

    `waited_s` says how long one has waited for others so far, which does not count.
    """
    start = time.monotonic() - waited_s()

    def check() -> None:
        if limit_s is not None and time.monotonic() - waited_s() - start > limit_s:
            raise TimedOut(f"timeout: longer than trials.timeout={limit_s:g} s")

    return check

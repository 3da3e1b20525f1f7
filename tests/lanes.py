"""What the tests of the quiet lane ask of its lock files."""

from __future__ import annotations

import contextlib
import fcntl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from nas.latency.lane import Lane

PATIENCE_S = 120  # what takes longer than this hangs


def is_free(folder: Path, device: str = "cpu") -> bool:
    """Whether nobody holds or waits for a device."""
    with contextlib.ExitStack() as stack:
        for file in folder.glob(f"{device.replace(':', '-')}.*"):
            try:
                fcntl.flock(stack.enter_context(file.open()), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
    return True


def in_time(condition: Callable[[], bool]) -> bool:
    """Waits until something is so."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it hangs"
        time.sleep(0.005)
    return True


@contextlib.contextmanager
def thread(target: Callable[[], object]) -> Iterator[None]:
    """Runs something beside the test, which ends with it."""
    running = threading.Thread(target=target, daemon=True)
    running.start()
    yield
    running.join(PATIENCE_S)
    assert not running.is_alive(), "it hangs"


def enter_and_leave(folder: Path, device: str = "cpu") -> None:
    """Everybody gets in: a worker, and a measurement."""

    def enter() -> None:
        with Lane(device, folder=folder).working():
            pass
        with Lane(folder=folder).measuring(device):
            pass

    with thread(enter):
        pass
    assert is_free(folder, device)


def lockable(path: Path, how: int) -> bool:
    """Whether a lock could be had at once."""
    with path.open() as file:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True

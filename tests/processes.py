"""Other processes, as tests see them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path


def wait_for(true: Callable[[], bool]) -> None:
    """Waits until something is true, five minutes at most."""
    deadline = time.monotonic() + 300
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def lives(process: int) -> bool:
    """Whether a process is there, and is no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(process: int) -> set[int]:
    """Processes of a session that `process` leads, or that descend from one of it."""
    found: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            pid, (_, parent, *_) = int(stat.parent.name), stat.read_text().rpartition(")")[2].split()
            found[pid] = int(parent)
    known = {process}
    while more := {pid for pid, parent in found.items() if parent in known} - known:
        known |= more
    return known - {process}

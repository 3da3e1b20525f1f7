"""What the reference network usually takes on a device of this machine: the readings of all processes, in one file.

A processor's speed wanders by some percent within minutes, for reasons that no program sees (its clock, its neighbours
on the same host), and all networks' latencies wander along. Two processes can only agree on a latency if they know how
fast the machine was meanwhile.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import statistics
from pathlib import Path
from typing import NamedTuple

LATEST = 1000  # readings that count: of some searches, since a window of minutes would wander with the machine
LONGEST_LINE = 32  # bytes


class Speeds(NamedTuple):
    """What the reference network takes on a device, ms: usually (the median of the latest readings), and lately."""

    usual_ms: float | None
    last_ms: float | None


def speeds(folder: Path, device: str) -> Speeds:
    """What was read on a device (any words that tell devices apart); None where nothing was."""
    readings = _readings(folder, device)
    return Speeds(statistics.median(readings), readings[-1]) if readings else Speeds(None, None)


def _readings(folder: Path, device: str) -> list[float]:
    try:
        with _file(folder, device).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LATEST * LONGEST_LINE))
            lines = file.read().decode("ascii", errors="replace").splitlines()
    except OSError:
        return []
    readings = []
    for line in lines[-LATEST:]:
        with contextlib.suppress(ValueError):  # a torn line
            readings.append(float(line))
    return [reading for reading in readings if 0 < reading < float("inf")]


def note_reading(folder: Path, device: str, reading_ms: float) -> None:
    """Adds a reading; where the file belongs to somebody else who does not share it, nothing happens."""
    with contextlib.suppress(PermissionError):
        file = os.open(_file(folder, device), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            with contextlib.suppress(PermissionError):
                os.fchmod(file, 0o666)
            os.write(file, f"{reading_ms:.9g}\n".encode())  # one write: lines of several processes do not mix
        finally:
            os.close(file)


def _file(folder: Path, device: str) -> Path:
    return folder / f"reference-{hashlib.sha256(device.encode()).hexdigest()[:12]}"

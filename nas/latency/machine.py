"""The machine that latencies are measured on: its name, its cores, what else it does meanwhile."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import torch


def device_name(device: str) -> str:
    """The processor that `device` ("cpu", "cuda", "cuda:1") means on this machine."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def fingerprint(device: str) -> str:
    """What tells devices apart whose latencies differ: the processor, and for a CPU its cores."""
    return device_name(device) if device.startswith("cuda") else f"{device_name(device)}, {cores()} cores"


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class CpuTime:
    """Processor time up to a moment, in seconds.

    Attributes:
        at: the moment.
        own: of this process.
        all: of all processes, and what the host of a virtual machine withheld; None where it can't be read.
    """

    at: float
    own: float
    all: float | None


def cpu_time() -> CpuTime:
    """Processor time up to now."""
    own = time.process_time()
    try:
        words = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
        user, nice, system, _idle, _iowait, irq, soft_irq, steal = map(int, words[:8])
        total = (user + nice + system + irq + soft_irq + steal) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        total = None
    return CpuTime(time.monotonic(), own, total)


def load_between(before: CpuTime, after: CpuTime) -> float | None:
    """Cores that others kept busy, on average; None where it can't be told."""
    if before.all is None or after.all is None or after.at <= before.at:
        return None
    return max(0.0, (after.all - before.all) - (after.own - before.own)) / (after.at - before.at)

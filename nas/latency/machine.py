"""The machine that latencies are measured on: its name, its cores, what else it does meanwhile."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from nas.cores import cores


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


def device_named(device: str) -> str:
    """The device that "cpu", "cuda" or "cuda:1" means, a GPU with its number.

    Raises:
        ValueError: a device that is not there.
    """
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
        raise ValueError(f"device={device} is not allowed; allowed: cpu, cuda, cuda:0, ...")
    if kind == "cpu":
        return kind
    if int(number or 0) >= torch.cuda.device_count():
        raise ValueError(f"device={device} is not allowed: there are {torch.cuda.device_count()} CUDA devices")
    return f"cuda:{number or torch.cuda.current_device()}"


def lane_of(device: str) -> str:
    """The name of a device's lane: a GPU's number depends on which of them a process may see, its uuid does not."""
    return f"cuda-{torch.cuda.get_device_properties(device).uuid}" if device.startswith("cuda") else device


def check_threads(threads: int) -> None:
    """Holds the number of threads against this machine.

    Raises:
        ValueError: there are fewer cores.
    """
    if threads > cores():
        raise ValueError(f"latency.threads={threads} is not allowed; allowed: 1 to {cores()}, the cores here")


@dataclass(frozen=True)
class CpuTime:
    """Processor time up to a moment, in seconds.

    Attributes:
        at: the moment.
        own: of this process.
        all: of all processes on this one's cores, with what the host of a virtual machine withheld; None where it
            can't be read.
    """

    at: float
    own: float
    all: float | None


def cpu_time() -> CpuTime:
    """Processor time up to now."""
    own = time.process_time()
    try:
        total = sum(_busy_s(Path("/proc/stat").read_text(encoding="ascii")))
    except (OSError, ValueError):
        total = None
    return CpuTime(time.monotonic(), own, total)


def _busy_s(stat: str) -> Iterator[float]:
    """Seconds for which each of this process's cores was busy: a container's may be few of the host's."""
    mine = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    for name, *words in (line.split() for line in stat.splitlines()):
        if name in mine:
            user, nice, system, _idle, _iowait, irq, soft_irq, steal = map(int, words[:8])
            yield (user + nice + system + irq + soft_irq + steal) / os.sysconf("SC_CLK_TCK")


def load_between(before: CpuTime, after: CpuTime) -> float | None:
    """Cores that others kept busy, on average; None where it can't be told."""
    if before.all is None or after.all is None or after.at <= before.at:
        return None
    return max(0.0, (after.all - before.all) - (after.own - before.own)) / (after.at - before.at)

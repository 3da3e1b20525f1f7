"""A network that is ready to be timed, and the clocks that time it."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from nas.latency.sampling import TimeOnce

HOST_CLOCK, CUDA_EVENTS, TABLE = "perf_counter", "CUDA events", "table"
REPEATS_OF_A_RIVAL = 15
LONGEST_RIVALRY_S = 0.25


@dataclass(frozen=True)
class Prepared:
    """A network in a runtime, with its batch.

    Attributes:
        run: runs them once, to the end; the logits (N, classes).
        time_once: the same, and the milliseconds that it took.
        memory_format: how the batch lies in memory.
        clock: what `time_once` reads.
        rivals: other ways in which the runtime can run it, see `fastest`.
    """

    run: Callable[[], np.ndarray]
    time_once: TimeOnce
    memory_format: str = "contiguous"
    clock: str = HOST_CLOCK
    rivals: tuple[Prepared, ...] = ()


def fastest(ready: Prepared) -> Prepared:
    """The way with the least median of a few repeats, interleaved after as many to warm up; on a quiet device."""
    ways = [ready, *ready.rivals]
    if len(ways) == 1:
        return ready
    times: list[list[float]] = []
    end = time.perf_counter() + LONGEST_RIVALRY_S
    while len(times) < 2 * REPEATS_OF_A_RIVAL and (len(times) < 2 or time.perf_counter() < end):
        times.append([each.time_once() for each in ways])
    medians = [statistics.median(column) for column in zip(*times[len(times) // 2 :], strict=True)]
    return ways[medians.index(min(medians))]


class NotSupported(ValueError):
    """A runtime cannot run a network."""


def not_supported(backend: str, error: Exception) -> NotSupported:
    """The error in one line, with the name of the operator that it is about, wherever that is said."""
    said: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        said.append(str(cause))
        cause = cause.__cause__ or cause.__context__
    # Not `torch.onnx.export`, which the exporter's own advice names.
    operator = re.search(r"\b(?<!torch\.)(?:aten|prims|torchvision|onnx|quantized)[.:]+\w+(?:\.\w+)?", "\n".join(said))
    about = f"operator {operator.group()}: " if operator else ""
    why = re.sub(r"\x1b\[[\d;]*m", "", str(error)).strip().split("\n")[0] or type(error).__name__  # without colours
    return NotSupported(f"{backend} cannot run this network: {about}{why[:200]}")


def host_clock(run: Callable[[], object]) -> TimeOnce:
    """Times what ends before it returns, by the processor's monotonic clock."""

    def time_once() -> float:
        start = time.perf_counter_ns()
        run()
        return (time.perf_counter_ns() - start) / 1e6

    return time_once


def cuda_clock(run: Callable[[], object], device: torch.device, flush_l2: bool) -> TimeOnce:
    """Times work on a GPU by its own events, from when the device is free to when the batch is done.

    The launch by the host is part of it, as it is for a user who waits for one batch. With `flush_l2`, weights and
    images come from the GPU's main memory, and the launch passes while the cache is emptied.
    """
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    filler = torch.empty(2 * cache if flush_l2 else 0, dtype=torch.int8, device=device)

    def time_once() -> float:
        if flush_l2:
            filler.zero_()
        begin.record()
        run()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)

    return time_once

"""Latencies that were measured before: one file for all runs of a folder, written by the driver only.

A latency is remembered as it was first measured. So a repeated search meets the numbers that the first one
met and, with one trial at a time, proposes the same architectures.
"""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from nas.config import LatencyConfig


@dataclass(frozen=True)
class LatencyKey:
    """Everything that decides a network's latency."""

    deploy_id: str
    input_shape: tuple[int, int, int]
    num_classes: int
    merge: str
    backend: str
    dtype: str
    batch_size: int
    threads: int
    device: str


@dataclass(frozen=True)
class RememberedLatency:
    """A latency in ms as it was first measured: its median and interquartile range."""

    median_ms: float
    iqr_ms: float


def latency_key(
    deploy_id: str, input_shape: tuple[int, int, int], num_classes: int, merge: str, config: LatencyConfig, device: str
) -> LatencyKey:
    """The key of a network's latency on this machine."""
    return LatencyKey(
        deploy_id=deploy_id,
        input_shape=input_shape,
        num_classes=num_classes,
        merge=merge,
        backend=f"{config.backend} {torch.__version__}",
        dtype="float32",
        batch_size=config.batch_size,
        threads=config.threads,
        device=device_name(device),
    )


def device_name(device: str) -> str:
    """The processor that `device` means on this machine."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


class LatencyMemory:
    """The remembered latencies of a runs folder (`runs/.latency/latencies.jsonl`)."""

    def __init__(self, runs_dir: Path) -> None:
        self._file = runs_dir / ".latency" / "latencies.jsonl"
        self._known: dict[str, RememberedLatency] = {}
        if self._file.exists():
            for line in self._file.read_text(encoding="utf-8", errors="replace").splitlines():
                self._read(line)

    def get(self, key: LatencyKey) -> RememberedLatency | None:
        """What was measured first under this key, if anything."""
        return self._known.get(_text(key))

    def remember(self, key: LatencyKey, latency: RememberedLatency) -> None:
        """Keeps a first measurement; later ones under the same key are not kept."""
        if _text(key) in self._known:
            return
        self._known[_text(key)] = latency
        self._file.parent.mkdir(parents=True, exist_ok=True)
        torn = self._file.exists() and not self._file.read_bytes().endswith(b"\n")
        with self._file.open("a", encoding="utf-8") as file:
            file.write("\n" * torn + json.dumps({**asdict(key), **asdict(latency)}) + "\n")

    def _read(self, line: str) -> None:
        """Takes in a line; a torn or foreign one is passed over, since it can only be measured again."""
        try:
            words = json.loads(line)
            latency = RememberedLatency(float(words.pop("median_ms")), float(words.pop("iqr_ms")))
            key = LatencyKey(**{**words, "input_shape": tuple(words["input_shape"])})
        except (ValueError, TypeError, KeyError, AttributeError):
            return
        self._known.setdefault(_text(key), latency)


def _text(key: LatencyKey) -> str:
    return json.dumps(asdict(key), sort_keys=True)

"""Latencies that were measured before: one file for all runs of a folder, written by the driver only.

A latency is remembered as it was first measured without doubt. So a repeated search meets the numbers that the first
one met and, with one trial at a time, proposes the same architectures.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from nas.config import LatencyConfig
from nas.latency.backends import backend_for, cuda_options
from nas.trial import Reading, reading_from_dict


@dataclass(frozen=True)
class LatencyKey:
    """Everything that decides a network's latency; `merge` is how mergers are planned, the reading has the plan."""

    deploy_id: str
    input_shape: tuple[int, int, int]
    num_classes: int
    merge: str
    backend: str
    dtype: str
    memory_format: str
    batch_size: int
    threads: int
    device: str


def latency_key(
    deploy_id: str,
    input_shape: tuple[int, int, int],
    num_classes: int,
    merge: str,
    config: LatencyConfig,
    device: str,
    fingerprint: str,
) -> LatencyKey:
    """The key of a network's latency on a device ("cpu", "cuda:0") of a machine (its `fingerprint`)."""
    name, backend = backend_for(config, device)
    return LatencyKey(
        deploy_id=deploy_id,
        input_shape=input_shape,
        num_classes=num_classes,
        merge=merge,
        backend=f"{name} {backend.version}{cuda_options(config, device)}",
        dtype=config.dtype,
        memory_format=config.memory_format,
        batch_size=config.batch_size,
        threads=config.threads,
        device=fingerprint,
    )


class LatencyMemory:
    """The remembered latencies of a runs folder (`runs/.latency/latencies.jsonl`)."""

    def __init__(self, runs_dir: Path) -> None:
        self._file = runs_dir / ".latency" / "latencies.jsonl"
        self._known: dict[LatencyKey, Reading] = {}
        if self._file.exists():
            for line in self._file.read_text(encoding="utf-8", errors="replace").splitlines():
                self._read(line)

    def get(self, key: LatencyKey) -> Reading | None:
        """What is remembered under this key, if anything."""
        return self._known.get(key)

    def remember(self, key: LatencyKey, reading: Reading) -> None:
        """Keeps a measured reading, unless one without doubt is known under the key."""
        if reading.source != "measured" or not self._take(key, reading):
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        torn = self._file.exists() and not self._file.read_bytes().endswith(b"\n")
        with self._file.open("a", encoding="utf-8") as file:
            file.write("\n" * torn + json.dumps({"key": asdict(key), "reading": asdict(reading)}) + "\n")

    def _read(self, line: str) -> None:
        """Takes in a line; a torn or foreign one is passed over, since it can only be measured again."""
        try:
            words = json.loads(line)
            key = LatencyKey(**{**words["key"], "input_shape": tuple(words["key"]["input_shape"])})
            reading = reading_from_dict(words["reading"])
            reference_ms = 1.0 if reading.reference_ms is None else reading.reference_ms
            if all(0 < each < float("inf") for each in (reading.median_ms, reading.high_ms, reference_ms)):
                self._take(key, reading)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return

    def _take(self, key: LatencyKey, reading: Reading) -> bool:
        """Whether a reading is news."""
        known = self._known.get(key)
        if known is not None and (not known.doubt or reading.doubt):
            return False
        self._known[key] = replace(reading, source="remembered")
        return True

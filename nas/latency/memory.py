"""Latencies that were measured before: one file for all runs of a folder, written by the driver only.

A latency is remembered as it was first measured without doubt. So a repeated search meets the numbers that the first
one met and, with one trial at a time, proposes the same architectures. A doubtful one holds for its own run alone,
where networks of one deploy form share one latency; the next run measures anew.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

from nas.bounded import parse_json_line
from nas.latency.conditions import Conditions, conditions_from_dict
from nas.reading import Reading, reading_from_dict


class LatencyMemory:
    """What is remembered under some conditions in a runs folder (`runs/.latency/latencies.jsonl`).

    Attributes:
        where: the conditions.
    """

    def __init__(self, runs_dir: Path, where: Conditions, tolerance: float) -> None:
        """The memory of a folder; of its file only what is known within `tolerance` (half the interval) counts."""
        self.where = where
        self._file, self._tolerance = runs_dir / ".latency" / "latencies.jsonl", tolerance
        self._known: dict[str, Reading] = {}
        if self._file.exists():
            for line in self._file.read_text(encoding="utf-8", errors="replace").splitlines():
                self._read(line)

    def get(self, deploy_id: str) -> Reading | None:
        """What is remembered of a deploy form, if anything; its mergers are in the reading."""
        return self._known.get(deploy_id)

    def remember(self, deploy_id: str, reading: Reading) -> None:
        """Keeps a measured reading, unless one as good is known; in the file, if it is without doubt."""
        known = self._known.get(deploy_id)
        if reading.source != "measured" or (known is not None and (reading.doubt or not known.doubt)):
            return
        self._known[deploy_id] = replace(reading, source="remembered")
        if reading.doubt:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        words = {"key": {"deploy_id": deploy_id, **asdict(self.where)}, "reading": asdict(reading)}
        with self._file.open("ab+") as file:
            file.seek(-min(1, file.tell()), os.SEEK_END)
            torn = file.read() not in (b"", b"\n")
            file.write(("\n" * torn + json.dumps(words) + "\n").encode())

    def _read(self, line: str) -> None:
        """Takes in a line; a torn or foreign one is passed over, since it can only be measured again."""
        try:
            words = parse_json_line(line)
            deploy_id = str(words["key"].pop("deploy_id"))
            reading = reading_from_dict(words["reading"])
            reference_ms = 1.0 if reading.reference_ms is None else reading.reference_ms
            sane = all(0 < each < float("inf") for each in (reading.median_ms, reading.high_ms, reference_ms))
            known = (reading.high_ms - reading.low_ms) / 2 <= self._tolerance * reading.median_ms
            if sane and known and not reading.doubt and conditions_from_dict(words["key"]) == self.where:
                self._known.setdefault(deploy_id, replace(reading, source="remembered"))
        except (ValueError, TypeError, KeyError, AttributeError):
            return

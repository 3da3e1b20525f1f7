"""The smallest searches that are real, and what to ask of what they leave behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nas
from nas.results import Run

SMALL = {"space": "tiny", "budget": 4, "train.epochs": 1, "train.warmup_epochs": 0, "trials.executor": "inline"}


def small_search(runs_dir: Path, **settings: Any) -> Run:
    """A search of the smallest space, one epoch a trial, without output."""
    return nas.run_search(verbose=False, **{**SMALL, "runs_dir": str(runs_dir), **settings})


def events_of(run: Run) -> list[dict[str, Any]]:
    """The lines of a run's events.jsonl."""
    return [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]


def proposals_of(run: Run) -> list[str]:
    """The ids of the proposed architectures, in order."""
    return [event["arch_id"] for event in events_of(run) if event["event"] == "proposed"]

"""The smallest searches that are real, and what to ask of what they leave behind."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import optuna
from optuna.storages.journal import JournalFileBackend

import nas
from nas.latency import lane, measure, sampling
from nas.results import Run

SMALL = {
    "space": "tiny",
    "budget": 4,
    "train.epochs": 1,
    "train.warmup_epochs": 0,
    "trials.executor": "inline",
    "latency.tolerance": 1,  # how long a search of the tests takes must not depend on how quiet the machine is
}


@contextlib.contextmanager
def quick_latency(folder: Path) -> Iterator[None]:
    """Short measurements in this process, in a lane of its own beside `folder`: nobody else's are waited for.

    However the machine's speed wanders meanwhile, none of them is doubtful.
    """
    own_lane, rounds = folder.with_name(f"{folder.name}-lane"), patch.object(sampling, "ROUND_S", 0.002)
    with rounds, patch.object(lane, "FOLDER", own_lane), patch.object(measure, "FAR_OFF", math.inf):
        yield


def small_search(runs_dir: Path, verbose: bool = False, **settings: Any) -> Run:
    """A search of the smallest space, one epoch a trial."""
    with quick_latency(runs_dir):
        return nas.run_search(verbose=verbose, **{**SMALL, "runs_dir": str(runs_dir), **settings})


def events_of(run: Run) -> list[dict[str, Any]]:
    """The lines of a run's events.jsonl."""
    return [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]


def proposals_of(run: Run) -> list[str]:
    """The ids of the proposed architectures, in order."""
    return [event["arch_id"] for event in events_of(run) if event["event"] == "proposed"]


def journal_of(run: Run) -> optuna.Study:
    """The study that a run's study.log tells of."""
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(run.path / "study.log")))
    return optuna.load_study(study_name=run.path.name, storage=storage)

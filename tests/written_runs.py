"""Runs that were never searched: their events written down by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nas.architecture import architecture_from_dict
from nas.command_line import make_config
from nas.store import RunStore
from nas.trial import Ended, Priced, Proposed, TrialState
from tests.helpers import HEAD, reading

ARCHITECTURE = architecture_from_dict(
    {"schema": 1, "stem": [{"block": "conv", "out_channels": 8}], "stages": [], "head": [{"block": "classifier"}]}
)


def write_run(
    runs_dir: Path,
    name: str,
    points: Sequence[tuple[float, float]],
    choices: Sequence[dict[str, Any]] | None = None,
    end: str | None = "budget",
    **settings: Any,
) -> RunStore:
    """A run of completed trials: errors and latencies in ms, and what each chose."""
    config = make_config({"space": "tiny", "run": name, "runs_dir": str(runs_dir), **settings})
    store = RunStore.create(runs_dir, name, config, HEAD, {"torch": "2.0"})
    for trial, (error, latency_ms) in enumerate(points):
        chosen = choices[trial] if choices else {}
        store.append(
            Proposed(trial, ARCHITECTURE.to_dict(), ARCHITECTURE.arch_id, ARCHITECTURE.deploy_id, chosen),
            Priced(trial, 100, 1000, reading(latency_ms)),
        )
        store.append(Ended(trial, TrialState.COMPLETED, "", 1 - error, 2, 1.5))
    if end is not None:
        store.write_end(end)
    return store

"""What a search knows before it begins: earlier runs' trials, and the published networks that its space contains."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from nas.architecture import Architecture
from nas.block_fields import Value
from nas.config import SearchConfig, user_path
from nas.config_fields import leaves
from nas.job import Job
from nas.space import SearchSpace
from nas.space_file import load_architecture, zoo_names
from nas.store import RunStore
from nas.trial import TrialRecord
from nas.tune.pricing import size_of

SAME = (
    "data",
    "val_share",
    "metric",
    "weights",
    "latency.dtype",
)  # what trials of one accuracy have in common, and all of:
SAME_OF = ("data.", "train.")
OF_THE_MACHINE = ("data.workers", "data.resident_gb")


def earlier_trials(config: SearchConfig, space: SearchSpace, job: Job) -> tuple[TrialRecord, ...]:
    """The trials of the runs in `warm_start` that have an accuracy and are members of the space, in its choices.

    Their peak memory is counted anew: their run may be of a version that did not, or of another batch.

    Raises:
        ValueError: there is no such run, or its accuracies are of other data or trainings.
    """
    found = []
    for run in config.warm_start:
        store = RunStore.find("warm_start", run, Path(config.runs_dir))
        _check_same(run, store.config(), config)
        for record in store.records():
            choices = None if record.accuracy is None else space.encode(record.architecture)
            if choices is not None:
                if record.cost is None:
                    raise ValueError(f"warm_start={run}: trial {record.trial} has an accuracy, but no cost")
                peak_mb = size_of(record.architecture, job).peak_memory_mb
                cost = dataclasses.replace(record.cost, peak_memory_mb=peak_mb)
                found.append(dataclasses.replace(record, choices=choices, cost=cost))
    return tuple(found)


def published_members(space: SearchSpace, job: Job) -> Iterator[tuple[str, dict[str, Value]]]:
    """The networks of the zoo that a space contains: names, and the choices that make them.

    Those that break a limit are left out, as far as that is known without measuring.
    """
    for name in zoo_names():
        arch = load_architecture(name)
        choices = space.encode(arch)
        if choices is not None and _may_ship(arch, job):
            yield name, choices


def _may_ship(arch: Architecture, job: Job) -> bool:
    """Whether it can be built for the job's images and keeps the limits of what is counted."""
    try:
        counted = size_of(arch, job)._asdict()
    except ValueError:
        return False
    return not any(each.broken_by(counted) for each in job.constraints if each.name in counted)


def _check_same(run: str, theirs: SearchConfig, ours: SearchConfig) -> None:
    there, here = ({key: value for key, (_, value) in leaves(each).items()} for each in (theirs, ours))
    differing = [key for key in here if _matters(key) and there[key] != here[key]]
    if differing:
        key = differing[0]
        raise ValueError(
            f"warm_start={run} has {key}={there[key]}; allowed: a run with {key}={here[key]}, as this search"
        )


def _matters(key: str) -> bool:
    return (key in SAME or key.startswith(SAME_OF)) and key not in OF_THE_MACHINE


def absolute_runs(runs: Sequence[str]) -> list[str]:
    """The same with the paths absolute: `runs/latest` may soon be another run. Names stay names."""
    paths = [user_path("warm_start", run) for run in runs]
    return [str(path.resolve()) if path.exists() else run for path, run in zip(paths, runs, strict=True)]

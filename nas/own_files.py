"""What may be in a run's folder that another person may have made, before anything is written or removed there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

FOLDERS = frozenset({"checkpoints", "exports", "models", "report", "tensorboard", "weights"})
FILES = frozenset({
    ".lock", "config.yaml", "end.json", "environment.json", "events.jsonl", "pareto.csv", "pareto.png", "space.yaml",
    "study.log", "trials.csv",
})  # fmt: skip


def check_files(run: Path) -> None:
    """Holds that a run's folder has its own files and folders alone, each where that kind belongs.

    What is written stays in it then: neither a link nor another name of a file elsewhere leads out.

    Raises:
        ValueError: something else is there.
    """
    for folder, folders, files in os.walk(run):
        for name in (*folders, *files):
            path = Path(folder, name)
            if what := _what_leads_out(path) or (path.parent == run and _of_the_wrong_kind(path)):
                raise ValueError(
                    f"run={run.name}: {path.relative_to(run)} is {what}; allowed: a run's folder of its own files and "
                    "folders alone, since some are written and removed there"
                )


def _what_leads_out(path: Path) -> str | None:
    """What a path is that may lead out of its folder, or that waits for somebody when it is read, if it does."""
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        return f"a link to {path.readlink()}"
    if stat.S_ISREG(found.st_mode):
        return f"a file with {found.st_nlink} names" if found.st_nlink > 1 else None
    return None if stat.S_ISDIR(found.st_mode) else "neither a file nor a folder"


def _of_the_wrong_kind(path: Path) -> str | None:
    """What is wrong about a path at the top of a run's folder, if it is a file for a folder or the other way round."""
    if path.name in FOLDERS and not path.is_dir():
        return "a file where a folder belongs"
    return "a folder where a file belongs" if path.name in FILES and path.is_dir() else None

"""A run's files where its workers run: in the run's own folder, or where that is not there, on their way to it."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable
from pathlib import Path

from nas.files import write_at_once
from nas.store import RunStore
from nas.trial import Ended, Event

MARK = ".driver"  # file in a run's folder by which workers know that they see the driver's own

Files = tuple[tuple[str, bytes], ...]


def mark_folder(store: RunStore) -> str:
    """Marks a run's folder, and returns the mark: at the same path of another machine may be another run."""
    mark = uuid.uuid4().hex
    write_at_once(store.path / MARK, mark)
    return mark


class WorkerFiles:
    """The files of the trials of one worker.

    Attributes:
        store: the run, or where its folder is not there, a temporary folder in its place.
    """

    def __init__(self, run_dir: Path, mark: str) -> None:
        self._away = None if _is_there(run_dir, mark) else tempfile.TemporaryDirectory(prefix="nas-")
        self.store = RunStore(run_dir if self._away is None else Path(self._away.name))
        self.clear()

    def to_send(self, events: Iterable[Event]) -> Files:
        """Names within the run's folder, and contents, of what the driver lacks to record these events."""
        trials = [each.trial for each in events if isinstance(each, Ended)] if self._away else []
        # The form that ships comes last: where it is, the other is too.
        files = [file(trial) for trial in trials for file in (self.store.trained_file, self.store.weights_file)]
        return tuple((str(each.relative_to(self.store.path)), each.read_bytes()) for each in files if each.exists())

    def clear(self) -> None:
        """Lets go of what earlier trials have left, unless it is in the run's folder."""
        if self._away:
            shutil.rmtree(self.store.path, ignore_errors=True)
            (self.store.path / "weights").mkdir(parents=True)

    def close(self) -> None:
        """Removes the temporary folder, if there is one."""
        if self._away:
            self._away.cleanup()


def _is_there(run_dir: Path, mark: str) -> bool:
    """Whether this machine sees the driver's folder, and may write to it."""
    try:
        there = (run_dir / MARK).read_text(encoding="utf-8") == mark
    except OSError:
        return False
    return there and os.access(run_dir / "weights", os.W_OK)

"""Optuna's journal of a run, `study.log`: what the program writes of its study for others to read."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial


class Journal:
    """A journal that trials are added to when they have ended."""

    def __init__(self, file: Path, name: str, directions: Sequence[StudyDirection], metrics: list[str]) -> None:
        """A new journal of a study; a file that was there is replaced."""
        file.unlink(missing_ok=True)
        self._backend, self._name = _Forgetful(file), name
        study = optuna.create_study(study_name=name, directions=directions, storage=JournalStorage(self._backend))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(metrics)

    def add(self, trial: FrozenTrial) -> None:
        """Writes a trial down."""
        self._backend.forget_trials()
        storage = JournalStorage(self._backend)
        storage.create_new_trial(storage.get_study_id_from_name(self._name), trial)


class _Forgetful(BaseJournalBackend):
    """A journal file of which only what is remembered is read back: else Optuna keeps all its trials in memory."""

    def __init__(self, file: Path) -> None:
        self._file = JournalFileBackend(str(file))
        self._remembered: list[dict[str, Any]] = []

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Writes, and remembers."""
        self._file.append_logs(logs)
        self._remembered += logs

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        """What is remembered, from the one of this number on."""
        return self._remembered[log_number_from:]

    def forget_trials(self) -> None:
        """Remembers the study alone."""
        self._remembered = [each for each in self._remembered if "distributions" not in each]

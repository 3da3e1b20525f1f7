"""RunStore: what a run leaves on disk. `events.jsonl` is the truth; all else can be derived from it again."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from nas.bounded import parse_json, parse_json_line, read_text, shown
from nas.command_line import config_to_yaml, make_config, read_settings
from nas.config import SearchConfig, first_line, user_path
from nas.exhausted import out_of_space
from nas.files import write_at_once
from nas.interrupts import interrupt_later
from nas.own_files import check_files
from nas.trial import Ended, Event, TrialRecord, event_from_dict, event_to_dict, records_of

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
MOST_LINE_BYTES = 4_000_000  # of an event; an architecture takes some thousand
LATEST_S = 1e11  # a time stamp of the year 5000
WEIGHTS = re.compile(r"weights/[0-9]+(\.train)?\.safetensors")
RUNS_NAMED = 8  # in an error, the last ones by name


class RunStore:
    """One run's folder, `runs/<run>/`; only the driver writes to it, and trials that see it their weights.

    Attributes:
        path: the folder, absolute.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()

    @classmethod
    def create(
        cls, runs_dir: Path, name: str, config: SearchConfig, space: str, environment: dict[str, Any]
    ) -> RunStore:
        """A new run's folder with configuration, search space and environment, complete or not there at all.

        Raises:
            ValueError: a bad name, or a run of this name exists.
        """
        check_new(runs_dir, name)
        draft = runs_dir / f".{name}.{os.getpid()}.tmp"
        try:
            draft.mkdir(parents=True)
            (draft / "config.yaml").write_text(config_to_yaml(config), encoding="utf-8")
            (draft / "space.yaml").write_text(space, encoding="utf-8")
            _write_json(draft / "environment.json", environment)
            (draft / "weights").mkdir()
            (draft / "events.jsonl").touch()
            draft.rename(runs_dir / name)
        except OSError as error:
            raise ValueError(f"runs_dir={runs_dir}: run={name} cannot be made in it: {error}") from None
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        store = cls(runs_dir / name)
        store.point_latest()
        return store

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other drivers out; the system lets go of the lock of a process that dies.

        Raises:
            ValueError: another driver has the run, or its `.lock` is no file.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            lock = os.open(self.path / ".lock", flags, 0o666)
        except OSError as error:
            if out_of_space(error):
                raise
            raise ValueError(f"run={self.name}: {self.path / '.lock'} cannot be opened: {error.strerror}") from None
        with os.fdopen(lock, "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ValueError(f"run={self.name} is being searched by another process") from None
            yield

    def being_searched(self) -> bool:
        """Whether a driver of this machine has the run."""
        try:
            with (self.path / ".lock").open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # let go of at once, when the file is closed
        except BlockingIOError:
            return True
        except OSError:  # no such file, or one that is none
            return False
        return False

    def reopen(self, config: SearchConfig) -> None:
        """Makes a run that had ended ready to go on under `config`.

        Raises:
            ValueError: see `check_files`.
        """
        check_files(self.path)
        (self.path / "weights").mkdir(exist_ok=True)  # what copies folders may leave out empty ones
        self.mend()
        write_at_once(self.path / "config.yaml", config_to_yaml(config))
        (self.path / "end.json").unlink(missing_ok=True)
        self.point_latest()

    def discard_if_empty(self) -> None:
        """Removes a run in which nothing has happened yet: what failed before its first event is not kept."""
        if (self.path / "events.jsonl").stat().st_size == 0:
            shutil.rmtree(self.path)
            link = self.path.parent / "latest"
            if link.is_symlink() and not link.exists():
                link.unlink()

    @classmethod
    def open(cls, path: str | Path) -> RunStore:
        """The store of an existing run.

        Raises:
            ValueError: there is no run.
        """
        folder = user_path("run", path)
        try:
            there = (folder / "events.jsonl").is_file()
        except OSError as error:  # a name that no file can have
            raise ValueError(f"{folder} is not a run: {first_line(error)}") from None
        if not there:
            raise ValueError(f"{folder} is not a run: it has no events.jsonl; {_runs_in(folder.parent)}")
        return cls(folder)

    @classmethod
    def find(cls, key: str, run: str, runs_dir: Path) -> RunStore:
        """The store of a run by its path, or by its name in a folder of runs.

        Raises:
            ValueError: there is no such run; the message begins with `key`.
        """
        try:
            return cls.open(run_path(key, run, runs_dir))
        except (OSError, ValueError) as error:  # OSError: a name that no file can have
            raise ValueError(f"{key}={run}: {first_line(error)}") from None

    @property
    def name(self) -> str:
        """The run's name."""
        return self.path.name

    def config(self) -> SearchConfig:
        """The run's configuration; no plugin is imported by it.

        Raises:
            ValueError: the file is missing or damaged.
        """
        file = self.path / "config.yaml"
        settings = read_settings(f"config={file}", file)
        return make_config({key: value for key, value in settings.items() if key != "resume"} | {"run": self.name})

    def space_text(self) -> str:
        """The search space's file as it was when the run began.

        Raises:
            ValueError: it cannot be read.
        """
        file = self.path / "space.yaml"
        try:
            return read_text(file)
        except ValueError as error:
            raise ValueError(f"{file} {error}") from None

    def environment(self) -> dict[str, Any]:
        """What the run's figures depend on besides its configuration, as it was when the run began.

        Raises:
            ValueError: the file is missing or damaged.
        """
        return _read_json(self.path / "environment.json")

    def append(self, *events: Event) -> None:
        """Adds events with the time of day, and has them on disk before it returns."""
        now = round(time.time(), 3)
        lines = [json.dumps({**event_to_dict(event), "time": now}) + "\n" for event in events]
        if not lines:
            return
        with interrupt_later(), (self.path / "events.jsonl").open("a", encoding="utf-8") as file:
            file.write("".join(lines))
            file.flush()
            os.fsync(file.fileno())

    def events(self) -> list[Event]:
        """All events; a torn last line is left out, as if it had not been written.

        Raises:
            ValueError: another line that is not an event; the message names it.
        """
        return [event for event, _ in self.timed_events()]

    def end_times(self) -> dict[int, float]:
        """Seconds from the run's first event until each trial had ended, by the clock of the machine that searched.

        Pauses before a run was resumed are counted; when the clock was set back, no time has passed. Trials of events
        without a time are left out.

        Raises:
            ValueError: as `events` does.
        """
        timed = [(event, clock) for event, clock in self.timed_events() if clock is not None]
        passed, before, ends = 0.0, timed[0][1] if timed else 0.0, {}
        for event, clock in timed:
            passed, before = passed + max(0.0, clock - before), clock
            if isinstance(event, Ended):
                ends[event.trial] = round(passed, 3)
        return ends

    def timed_events(self) -> list[tuple[Event, float | None]]:
        """All events, each with its time of day in seconds, where it has one.

        Raises:
            ValueError: as `events` does.
        """
        events = []
        for number, line in enumerate(self._lines(), 1):
            try:
                words = parse_json_line(line.decode("utf-8", errors="replace"))
                events.append((event_from_dict(words), _time_of_day(words.get("time"))))
            except ValueError as error:
                if not line.endswith(b"\n"):
                    break
                raise ValueError(f"{self.path / 'events.jsonl'}, line {number}: {error}") from None
        return events

    def _lines(self) -> Iterator[bytes]:
        """The lines of the events, of which the last one may be torn.

        Raises:
            ValueError: one is longer than any event.
        """
        with (self.path / "events.jsonl").open("rb") as file:
            for number in itertools.count(1):
                line = file.readline(MOST_LINE_BYTES + 1)
                if len(line) > MOST_LINE_BYTES:
                    raise ValueError(f"{file.name}, line {number}: it is longer than {MOST_LINE_BYTES:,} bytes")
                if not line:
                    return
                yield line

    def mend(self) -> None:
        """Ends a torn last line, so that the next event begins on its own: cut off if it is not an event."""
        file = self.path / "events.jsonl"
        whole, last = 0, b"\n"
        for line in self._lines():
            whole, last = whole + len(line), line
        if last.endswith(b"\n"):
            return
        try:
            event_from_dict(parse_json_line(last.decode("utf-8")))
        except ValueError:
            os.truncate(file, whole - len(last))  # in place: the disk may be full still
            return
        with file.open("ab") as log:
            log.write(b"\n")

    def records(self) -> list[TrialRecord]:
        """The trials that have ended."""
        return records_of(self.events())

    def weights_file(self, trial: int) -> Path:
        """Where the weights of a trial's fused network are."""
        return self.path / "weights" / f"{trial}.safetensors"

    def trained_file(self, trial: int) -> Path:
        """Where the weights of a trial's train form are; of an ended run, those of its front only."""
        return self.path / "weights" / f"{trial}.train.safetensors"

    def checkpoint_file(self, trial: int) -> Path:
        """Where a trial's training is written down while it lasts."""
        return self.path / "checkpoints" / f"{trial}.safetensors"

    def receive(self, files: Iterable[tuple[str, bytes]]) -> None:
        """Writes weights that came from another machine, each file at once.

        Args:
            files: names within a run's folder, and contents; the order is kept.

        Raises:
            ValueError: another name than weights have; nothing is written then.
        """
        files = tuple(files)
        for name, _ in files:
            if not WEIGHTS.fullmatch(name):
                raise ValueError(f"{name!r} is no file of weights of a run")
        for name, content in files:
            write_at_once(self.path / name, content)

    def model_dir(self, trial: int) -> Path:
        """Where a network of the front is exported to."""
        return self.path / "models" / str(trial)

    def write_end(self, reason: str) -> None:
        """Notes why the search ended, a key of `nas.tune.progress.ENDINGS`."""
        _write_json(self.path / "end.json", {"reason": reason})

    def end_reason(self) -> str | None:
        """Why the search ended, or None while it has not.

        Raises:
            ValueError: the file is damaged.
        """
        file = self.path / "end.json"
        reason = _read_json(file).get("reason") if file.exists() else None
        if reason is not None and not isinstance(reason, str):
            raise ValueError(f"{file}: reason: {shown(reason)} is not allowed; allowed: a word")
        return reason

    def point_latest(self) -> None:
        """Makes `runs/latest` point to this run."""
        link, draft = self.path.parent / "latest", self.path.parent / f".latest.{os.getpid()}"
        draft.unlink(missing_ok=True)
        draft.symlink_to(self.name)
        draft.replace(link)


def run_path(key: str, run: str | Path, runs_dir: Path) -> Path:
    """Where a run is that is given by its path, or by its name in a folder of runs; it may not be there.

    Raises:
        ValueError: no path; the message begins with `key`.
    """
    path = user_path(key, run)
    return path if (path / "events.jsonl").is_file() else runs_dir / path


def run_and_trial(spec: str) -> tuple[str, int] | None:
    """The run's path and the trial's number that `RUN:TRIAL` names (`runs/latest:12`); None for any other word."""
    run, colon, number = spec.rpartition(":")
    return (run, int(number)) if colon and number.isdecimal() else None


def _runs_in(folder: Path) -> str:
    """What a person who asked for another run of this folder can ask for."""
    names = sorted(file.parent.name for file in folder.glob("*/events.jsonl"))
    if not names:
        return "python -m nas.search begins one"
    return f"runs in {folder}: {', '.join(names[-RUNS_NAMED:])}" + (", ..." if len(names) > RUNS_NAMED else "")


def check_new(runs_dir: Path, name: str) -> None:
    """Checks that a run of this name can be made.

    Raises:
        ValueError: a name that is no plain file name, or a run that exists.
    """
    if not NAME.fullmatch(name) or name == "latest":
        raise ValueError(f"run={name} is not allowed; allowed: letters, digits, '.', '_' and '-' (not 'latest')")
    try:
        (runs_dir / name).exists()
        home = next(folder for folder in (runs_dir, *runs_dir.parents) if folder.exists())
    except OSError as error:
        raise ValueError(f"runs_dir={runs_dir}: {error}") from None
    if not (home.is_dir() and os.access(home, os.W_OK)):
        raise ValueError(f"runs_dir={runs_dir}: {home} is not a folder that can be written to")
    latest = runs_dir / "latest"
    if latest.exists() and not latest.is_symlink():
        raise ValueError(f"runs_dir={runs_dir}: 'latest' in it is no link to a run; move it away")
    if (runs_dir / name).exists():
        raise ValueError(f"run={name} exists in {runs_dir}; choose another name, or continue it with resume=true")


def _read_json(file: Path) -> dict[str, Any]:
    """A mapping that was written as JSON.

    Raises:
        ValueError: it is missing or damaged.
    """
    try:
        words = parse_json(read_text(file))
    except ValueError as error:
        raise ValueError(f"{file} cannot be read: {error}") from None
    if not isinstance(words, dict):
        raise ValueError(f"{file} cannot be read: {shown(words)} is not a mapping")
    return words


def _time_of_day(raw: Any) -> float | None:
    """The seconds that a line's time stamp says, if it is one."""
    return float(raw) if type(raw) in (int, float) and 0 <= raw < LATEST_S else None


def _write_json(file: Path, words: dict[str, Any]) -> None:
    write_at_once(file, json.dumps(words, indent=2) + "\n")

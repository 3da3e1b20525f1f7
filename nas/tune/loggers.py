"""A run's metrics in TensorBoard and MLflow, besides the run's own store: `log=[tensorboard,mlflow]`."""

from __future__ import annotations

import importlib.util
import re
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol

from nas.bounded import read_text, shown
from nas.command_line import config_to_yaml
from nas.config import SearchConfig, first_line
from nas.config_fields import leaves
from nas.results import front_of, make_constraints
from nas.store import RunStore
from nas.trial import Ended, Event, TrialRecord, TrialState, records_of

MLFLOW_ID = "mlflow_run_id"  # the file in a run's folder by which a resumed search finds MLflow's run
MLFLOW_EXPERIMENT = "nas"
MLFLOW_PARAMS = 100  # at a time, by MLflow's protocol
FRONT_SIZE = "search/front_size"  # every trial has it


class TrialLog(Protocol):
    """Where the metrics of ended trials go.

    Attributes:
        has: trials that an earlier session of the search has written there.
    """

    has: set[int]

    def write(self, trial: int, metrics: dict[str, float]) -> None:
        """Takes the metrics of a trial, whose number is the step."""
        ...

    def end(self, finished: bool) -> None:
        """The session is over."""
        ...


class TensorBoardLog:
    """Event files in the run's folder, made anew from its records whenever it is resumed."""

    def __init__(self, config: SearchConfig, store: RunStore) -> None:
        from tensorboardX import SummaryWriter

        folder = store.path / "tensorboard"
        shutil.rmtree(folder, ignore_errors=True)
        self.has: set[int] = set()
        self._writer = SummaryWriter(logdir=str(folder))
        self._writer.add_text("config", "".join(f"    {line}\n" for line in config_to_yaml(config).splitlines()))

    def write(self, trial: int, metrics: dict[str, float]) -> None:
        """See `TrialLog`."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, trial)
        self._writer.flush()

    def end(self, finished: bool) -> None:
        """See `TrialLog`."""
        self._writer.close()


class MlflowLog:
    """One MLflow run a search, which a resumed search goes on with; where, says MLflow's own MLFLOW_TRACKING_URI."""

    def __init__(self, config: SearchConfig, store: RunStore) -> None:
        from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]
        from mlflow.entities import Param  # pyright: ignore[reportMissingImports]

        self._client, file = MlflowClient(), store.path / MLFLOW_ID
        if file.exists():
            self._run = _run_id(file)
            self.has = {each.step for each in self._client.get_metric_history(self._run, FRONT_SIZE)}
            self._client.update_run(self._run, "RUNNING")
            return
        self.has = set()
        experiment = self._client.get_experiment_by_name(MLFLOW_EXPERIMENT)
        experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(MLFLOW_EXPERIMENT)
        self._run = self._client.create_run(experiment_id, run_name=store.name).info.run_id
        file.write_text(self._run + "\n", encoding="utf-8")
        params = [Param(key, str(value)) for key, (_, value) in leaves(config).items()]
        for i in range(0, len(params), MLFLOW_PARAMS):
            self._client.log_batch(self._run, params=params[i : i + MLFLOW_PARAMS])

    def write(self, trial: int, metrics: dict[str, float]) -> None:
        """See `TrialLog`."""
        from mlflow.entities import Metric  # pyright: ignore[reportMissingImports]

        now_ms = int(time.time() * 1000)
        self._client.log_batch(self._run, [Metric(name, value, now_ms, trial) for name, value in metrics.items()])

    def end(self, finished: bool) -> None:
        """See `TrialLog`."""
        self._client.set_terminated(self._run, "FINISHED" if finished else "KILLED")


def _run_id(file: Path) -> str:
    """The MLflow run that a search goes on with: a word of letters and digits, from which MLflow makes paths.

    Raises:
        ValueError: it is none.
    """
    run = read_text(file).strip()
    if not re.fullmatch("[A-Za-z0-9]{1,64}", run):
        raise ValueError(f"{file}: {shown(run)} is not allowed; allowed: the id of an MLflow run")
    return run


class Logger(NamedTuple):
    """What opens a log, and the library that it needs."""

    library: str
    open: Callable[[SearchConfig, RunStore], TrialLog]


LOGGERS: dict[str, Logger] = {
    "tensorboard": Logger("tensorboardX", TensorBoardLog),
    "mlflow": Logger("mlflow", MlflowLog),
}


def check_loggers(names: Sequence[str]) -> None:
    """Holds that logs of these names can be written.

    Raises:
        ValueError: an unknown name, or one whose library is not installed.
    """
    for name in names:
        if name not in LOGGERS:
            raise ValueError(f"log: {name!r} is not allowed; allowed: {', '.join(LOGGERS)}")
        library = LOGGERS[name].library
        if importlib.util.find_spec(library) is None:
            raise ValueError(f"log={name} needs {library}, which is not installed: pip install 'nas-fused[{name}]'")


class SearchLogs:
    """Passes each trial that ends on to the logs of a search; a log that fails is left, and the search goes on."""

    def __init__(self, config: SearchConfig, store: RunStore, say: Callable[[str], None]) -> None:
        """Opens the logs, and gives them what earlier sessions have judged and they do not have."""
        self._objectives, self._constraints = config.objectives, make_constraints(config.constraints)
        self._say, self._logs = say, dict[str, TrialLog]()
        self._best, self._front = 0.0, list[TrialRecord]()
        for name in dict.fromkeys(config.log):
            self._try(name, partial(self._open, name, config, store))
        if self._logs:
            for record in _as_they_ended(store.events()):
                self._take_in(record)

    def __enter__(self) -> SearchLogs:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for name, log in list(self._logs.items()):
            self._try(name, partial(log.end, kind is None))

    def watch(self, event: Event, last: TrialRecord | None) -> None:
        """Takes in what an event changed; `last` is the record of the latest trial that has ended."""
        if isinstance(event, Ended) and self._logs:
            assert last is not None
            self._take_in(last)

    def _open(self, name: str, config: SearchConfig, store: RunStore) -> None:
        self._logs[name] = LOGGERS[name].open(config, store)

    def _take_in(self, record: TrialRecord) -> None:
        self._front = front_of([*self._front, record], self._objectives, self._constraints)
        if record.state is TrialState.COMPLETED:
            self._best = max(self._best, record.accuracy or 0.0)
        so_far = {"search/best_accuracy": self._best, FRONT_SIZE: float(len(self._front))}
        for name, log in list(self._logs.items()):
            if record.trial not in log.has:
                self._try(name, partial(log.write, record.trial, {**metrics_of(record), **so_far}))

    def _try(self, name: str, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # whatever a library or a server raises
            self._logs.pop(name, None)
            self._say(f"log={name} is given up, the search goes on: {first_line(error)}")


def metrics_of(record: TrialRecord) -> dict[str, float]:
    """The metrics of a trial by itself: how it ended, what it costs, how accurate it is."""
    known = {"accuracy": record.accuracy, "error": record.error, "train_s": record.train_s, **record.costs}
    metrics = {f"trial/{name}": float(value) for name, value in known.items() if value is not None}
    return {f"state/{record.state.value}": 1.0, **metrics}


def _as_they_ended(events: Iterable[Event]) -> list[TrialRecord]:
    events = list(events)
    records = {record.trial: record for record in records_of(events)}
    return [records[event.trial] for event in events if isinstance(event, Ended)]

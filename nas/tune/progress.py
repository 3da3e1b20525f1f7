"""What a person sees while a search runs, and when it is over."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from types import TracebackType

import pandas as pd
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from nas.command_line import words_to_repeat
from nas.config import SearchConfig
from nas.console import table_console
from nas.data import ImageData
from nas.results import Run
from nas.space import SearchSpace
from nas.store import RunStore
from nas.trial import Ended, EpochEnded, Event, Proposed, Rung, TrialRecord
from nas.tune.search_state import SearchState


class ProgressView:
    """A line for each trial that ends, above a bar that moves (in a terminal) with the trials in flight."""

    def __init__(self, config: SearchConfig, enabled: bool) -> None:
        self._config = config
        self._metric = config.metric.replace("_", " ")
        self._enabled = enabled
        self._console = table_console()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[doing]}"),
        )
        shown = enabled and self._console.is_terminal
        self._bar = Progress(*columns, console=self._console, transient=True, disable=not shown)
        self._task = self._bar.add_task("trials", total=config.budget, doing="")
        self._epochs: dict[int, int] = {}

    def __enter__(self) -> ProgressView:
        self._bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def announce(self, space: SearchSpace, data: ImageData) -> None:
        """Says what will be searched, on what."""
        self.say(f"space {space.name}: {space.size:,} encodings")
        self.say(data.summary())

    def watch(self, event: Event, state: SearchState) -> None:
        """Shows what an event changed."""
        if isinstance(event, Proposed) and event.why:
            self.say(f"{'':9}  trial {event.trial:<4}  proposed    {event.why}")
        if isinstance(event, EpochEnded):
            self._epochs[event.trial] = event.epochs
        if isinstance(event, Rung) and not state.works_on(event.trial):
            self._epochs.pop(event.trial, None)
            reached = f"{self._metric} {event.accuracy:.4f} after {event.epochs} epochs"
            self.say(f"{'':9}  trial {event.trial:<4}  at a rung   {reached}")
        if isinstance(event, Ended):
            self._epochs.pop(event.trial, None)
            assert state.last is not None
            self._line(state.last, state)
        doing = ", ".join(f"{trial}: epoch {epochs}" for trial, epochs in sorted(self._epochs.items()))
        self._bar.update(self._task, completed=state.trained, doing=doing)

    def say(self, text: str) -> None:
        """Prints a line."""
        if self._enabled:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _line(self, record: TrialRecord, state: SearchState) -> None:
        words = [
            f"{state.trained:>4}/{self._config.budget}",
            f"trial {record.trial:<4}",
            f"{record.state.value:<10}",
        ]
        if record.accuracy is not None:
            words.append(f"{self._metric} {record.accuracy:.4f}")
        if record.cost is not None:
            words += [f"{record.cost.latency.median_ms:8.4f} ms", f"{record.cost.params:>10,} params"]
        if record.accuracy is not None:
            words.append(f"{record.train_s:6.1f} s" + ("  on the front" if record in state.front else ""))
        if record.reason:
            words.append(record.reason)
        self.say("  ".join(words))

    def report(self, run: Run, reason: str) -> None:
        """The end of a run: the front as a table, where it is, what to type next."""
        if not self._enabled:
            return
        front, store = run.front, RunStore.open(run.path)
        table = Table(title=f"Pareto front of {store.name}: {len(front)} networks", title_justify="left")
        memory = self._config.constraints.peak_memory_mb is not None or "peak_memory_mb" in self._config.objectives
        for name in (
            "trial",
            f"val {self._metric}",
            f"test {self._metric}",
            "latency ms",
            "95 % interval",
            "params",
            "MACs",
            *(["peak MB"] if memory else []),
        ):
            table.add_column(name, justify="right")
        for row in front.to_dict("records"):
            table.add_row(
                str(row["trial"]),
                f"{row['accuracy']:.4f}",
                "" if pd.isna(row["test_accuracy"]) else f"{row['test_accuracy']:.4f}",
                f"{row['latency_ms']:.4f}",
                f"{row['latency_low_ms']:.4f} to {row['latency_high_ms']:.4f}",
                f"{row['params']:,}",
                f"{row['macs']:,}",
                *([f"{row['peak_memory_mb']:.4g}"] if memory else []),
            )
        self._console.print(table)
        flagged = front.loc[front["latency_doubt"] != ""]
        for why, rows in flagged.groupby(flagged["latency_doubt"].str.split(":").str[0])["trial"]:
            self.say(f"Latency flagged, {why}: trials {', '.join(map(str, rows))} (see latency_doubt in pareto.csv)")
        self.say(f"The search ended: {ENDINGS[reason]}.")
        if not len(front):
            self.say(f"No trial completed, so there is no front{_why(store.records())}.")
        self.say(f"Run:  {store.path}  (trials.csv, pareto.csv, pareto.png, models/TRIAL/model.onnx)")
        elsewhere = store.path.parent != Path("runs").absolute()
        folder = f" runs_dir={shlex.quote(str(store.path.parent))}" if elsewhere else ""
        more = [*words_to_repeat(self._config), f"budget={2 * self._config.budget}"]
        if reason == "budget_epochs":
            more.append(f"budget_epochs={2 * (self._config.budget_epochs or 0)}")
        if reason == "patience":
            more.append("stop.hypervolume_patience=null")
        if reason != "exhausted":
            self.say(f"Next: python -m nas.search run={store.name}{folder} resume=true {' '.join(more)}")


ENDINGS = {
    "budget": "the budget is used up",
    "exhausted": "the space is exhausted, every architecture of it was judged",
    "budget_epochs": "the budget of epochs is used up",
    "time_budget": "the time budget is used up",
    "patience": "the front has not moved for stop.hypervolume_patience trials",
    "infeasible": "too many architectures broke a constraint",
    "interrupted": "interrupted; what had been judged is kept",
}


def _why(records: list[TrialRecord]) -> str:
    """The commonest reason, where trials ended without a result."""
    reasons = Counter(record.reason for record in records if record.reason)
    return "".join(f"; {times} of {len(records)} trials: {reason}" for reason, times in reasons.most_common(1))

"""What records say: the table of trials, the Pareto front, its picture. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import moocore
import numpy as np
import pandas as pd

from nas.config import ConstraintsConfig, SearchConfig
from nas.knee import logarithmic
from nas.objectives import CONSTRAINT_NAMES, OBJECTIVES, Constraint
from nas.store import RunStore
from nas.trial import TrialRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from nas.notebook_figure import NotebookFigure

# The columns of a trial table, before those of the space's choices, and their types.
COLUMNS = {
    "trial": "int64",
    "arch_id": "str",
    "deploy_id": "str",
    "state": "str",
    "reason": "str",
    "accuracy": "float64",
    "error": "float64",
    "latency_ms": "float64",
    "latency_iqr_ms": "float64",
    "latency_low_ms": "float64",
    "latency_high_ms": "float64",
    "latency_source": "str",
    "latency_doubt": "str",
    "params": "Int64",
    "macs": "Int64",
    "peak_memory_mb": "float64",
    "train_params": "Int64",
    "train_macs": "Int64",
    "epochs": "int64",
    "train_s": "float64",
    "waited_s": "float64",
    "remeasured": "bool",
    "on_front": "bool",
    "test_accuracy": "float64",
}


@dataclass(frozen=True)
class Run:
    """A run to read from.

    Attributes:
        path: its folder.
    """

    path: Path

    @property
    def reason(self) -> str | None:
        """Why its search ended: budget, budget_epochs, patience, exhausted, time_budget, interrupted or infeasible.

        None while it runs.
        """
        return RunStore.open(self.path).end_reason()

    @property
    def trials(self) -> pd.DataFrame:
        """One row a trial; see `trial_table`."""
        store = RunStore.open(self.path)
        return trial_table(store.records(), store.config())

    @property
    def front(self) -> pd.DataFrame:
        """The rows on the Pareto front, by the last objective (latency, in a default search)."""
        store = RunStore.open(self.path)
        config = store.config()
        return front_table(trial_table(store.records(), config), config.objectives)


def make_constraints(config: ConstraintsConfig) -> tuple[Constraint, ...]:
    """The constraints that a configuration sets."""
    limits = {name: getattr(config, name) for name in CONSTRAINT_NAMES}
    return tuple(Constraint(name, limit) for name, limit in limits.items() if limit is not None)


def non_dominated(points: np.ndarray) -> np.ndarray:
    """Which rows of (n, objectives), all minimized, no other row dominates; equal rows are all kept."""
    if len(points) == 0:
        return np.zeros(0, dtype=bool)
    return np.asarray(moocore.is_nondominated(points, keep_weakly=True), dtype=bool)


def front_of(
    records: Sequence[TrialRecord], objectives: Sequence[str], constraints: Sequence[Constraint]
) -> list[TrialRecord]:
    """The completed records that keep the constraints, by their latest costs, and that no other dominates."""
    feasible = [
        record
        for record in records
        if record.values(objectives) and not any(each.broken_by(record.costs) for each in constraints)
    ]
    signs = np.array([1.0 if OBJECTIVES[name].direction == "minimize" else -1.0 for name in objectives])
    points = np.array([record.values(objectives) for record in feasible]).reshape(-1, len(objectives))
    return [record for record, kept in zip(feasible, non_dominated(points * signs), strict=True) if kept]


def trial_table(records: Sequence[TrialRecord], config: SearchConfig) -> pd.DataFrame:
    """A tidy table, one row a trial: the columns `COLUMNS`, then one for each choice of the space."""
    front = {record.trial for record in front_of(records, config.objectives, make_constraints(config.constraints))}
    rows = [
        {
            "trial": record.trial,
            "arch_id": record.architecture.arch_id,
            "deploy_id": record.architecture.deploy_id,
            "state": record.state.value,
            "reason": record.reason,
            "accuracy": record.accuracy,
            "error": record.error,
            **record.costs,
            "latency_source": record.cost.latency.source if record.cost else "",
            "latency_doubt": record.cost.latency.doubt if record.cost else "",
            "train_params": record.train_params,
            "train_macs": record.train_macs,
            "epochs": record.epochs,
            "train_s": record.train_s,
            "waited_s": record.waited_s,
            "remeasured": record.remeasured,
            "on_front": record.trial in front,
            "test_accuracy": record.test_accuracy,
            **record.choices,
        }
        for record in records
    ]
    table = pd.DataFrame(rows)
    choices = [column for column in table.columns if column not in COLUMNS]
    table = table.reindex(columns=[*COLUMNS, *choices]).astype(COLUMNS)
    # Whole numbers stay whole where only some trials had the choice.
    return table.astype({name: table[name].convert_dtypes().dtype for name in choices})


def front_table(trials: pd.DataFrame, objectives: Sequence[str]) -> pd.DataFrame:
    """The front's rows of a trial table, in the order of its last objective, then of its first."""
    on_front = trials.loc[trials["on_front"].astype(bool)]
    return on_front.sort_values([objectives[-1], objectives[0], "trial"]).reset_index(drop=True)


def plot_front(trials: pd.DataFrame, objectives: Sequence[str] | None = None, title: str = "") -> NotebookFigure:
    """The completed trials and their front over the first two objectives, as a figure.

    A front of two objectives is drawn as the stairs that it is: between two networks, nothing better was found. Of
    more, the third is told by colours: what looks dominated is better there.
    """
    from nas.notebook_figure import NotebookFigure

    names: Sequence[str] = objectives or trials.attrs.get("objectives", ("error", "latency_ms"))
    y_name, x_name = names[0], names[1]
    figure = NotebookFigure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    done = trials.loc[trials["state"] == "completed"]
    front = done.loc[done["on_front"].astype(bool)].sort_values([x_name, y_name])
    axes.scatter(done[x_name], done[y_name], s=18, color="#9aa5b1", label=f"{len(done)} trained networks")
    if len(front):
        label = f"Pareto front, {len(front)} networks"
        if len(names) == 2:
            axes.step(front[x_name], front[y_name], where="post", color="#c2410c", linewidth=1.2)
            axes.scatter(front[x_name], front[y_name], s=34, color="#c2410c", zorder=3, label=label)
        else:
            _coloured(figure, axes, front, names, label)
    scale_axes(axes, done, names, trials.attrs.get("metric", "accuracy"))
    axes.set_title(title)
    axes.legend(frameon=False)
    return figure


def scale_axes(axes: Axes, points: pd.DataFrame, objectives: Sequence[str], metric: str = "accuracy") -> None:
    """Gives the axes of the first two objectives (y, x) their scale, names and units."""
    from matplotlib.ticker import LogLocator, NullFormatter

    y_name, x_name = objectives[0], objectives[1]
    for axis, set_scale, name in ((axes.xaxis, axes.set_xscale, x_name), (axes.yaxis, axes.set_yscale, y_name)):
        if logarithmic(points[name].to_numpy(dtype=float)):
            set_scale("log")
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(f"{x_name} ({OBJECTIVES[x_name].unit})")
    unit = OBJECTIVES[y_name].unit if y_name != "error" or metric == "accuracy" else f"1 - {metric}, validation images"
    axes.set_ylabel(f"{y_name} ({unit})")
    axes.grid(alpha=0.25)


def _coloured(figure: Figure, axes: Axes, front: pd.DataFrame, names: Sequence[str], label: str) -> None:
    """A front over its first two objectives, the third as colours with a scale beside the axes."""
    y, x, third = (front[name].to_numpy(dtype=float) for name in names[:3])
    norm = "log" if logarithmic(third) else "linear"
    edge = {"edgecolors": "#c2410c", "linewidths": 0.8}
    points = axes.scatter(x, y, s=34, c=third, cmap="viridis", norm=norm, zorder=3, label=label, **edge)
    figure.colorbar(points, ax=axes, label=f"{names[2]} ({OBJECTIVES[names[2]].unit})")


def write_results(store: RunStore, records: Sequence[TrialRecord], config: SearchConfig) -> None:
    """Writes `trials.csv`, `pareto.csv` and `pareto.png` of the records of a run of this configuration."""
    trials = write_tables(store, records, config)
    title = f"{store.name}: space {Path(config.space).stem}, data {Path(config.data).name}"
    plot_front(trials, config.objectives, title).savefig(store.path / "pareto.png", dpi=150)


def write_tables(store: RunStore, records: Sequence[TrialRecord], config: SearchConfig) -> pd.DataFrame:
    """Writes `trials.csv` and `pareto.csv` likewise; returns the former."""
    trials = trial_table(records, config)
    trials.attrs["metric"] = config.metric
    trials.to_csv(store.path / "trials.csv", index=False)
    front_table(trials, config.objectives).to_csv(store.path / "pareto.csv", index=False)
    return trials

"""What several runs attain: surfaces of the empirical attainment function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import moocore
import numpy as np
import pandas as pd

from analysis.front import objectives_of, pareto_front, points, signs
from analysis.load import Runs, as_runs
from nas.results import scale_axes

if TYPE_CHECKING:
    from nas.notebook_figure import NotebookFigure

PERCENTILES = (25.0, 50.0, 75.0)
COLOURS = ("#c2410c", "#1d4ed8", "#15803d", "#7e22ce", "#a16207")


def attainment(
    runs: Runs, percentiles: Sequence[float] = PERCENTILES, objectives: Sequence[str] | None = None
) -> pd.DataFrame:
    """The empirical attainment surfaces of runs, e.g. of one search with several seeds.

    What lies on the surface of 50 % or is dominated by it was attained (equalled or dominated) by at least half of the
    runs: it is the median front. Computed by moocore (Fonseca, Guerreiro, Lopez-Ibanez and Paquete, "On the
    computation of the empirical attainment function", EMO 2011).

    Args:
        runs: a table of `load_runs`, or what that takes.
        percentiles: of the runs, above 0 and at most 100; they need not be multiples of 100 / runs.
        objectives: two or three; by default those of the runs.

    Returns:
        Columns `percentile` and the objectives: the corners of each surface, by the last objective.

    Raises:
        ValueError: no runs, percentiles or objectives that cannot be, or a run without a completed trial,
            which attains nothing.
    """
    table = as_runs(runs)
    names = list(objectives_of(table, objectives))
    if not percentiles or any(not 0 < each <= 100 for each in percentiles):
        raise ValueError(f"percentiles={list(percentiles)} are not allowed; allowed: some above 0 and at most 100")
    if len(names) > 3:
        raise ValueError(f"objectives={names} are too many for attainment surfaces; allowed: two or three")
    fronts = {str(run): points(pareto_front(trials, names), names) for run, trials in table.groupby("run", sort=False)}
    if empty := [run for run, front in fronts.items() if not len(front)]:
        raise ValueError(f"run {empty[0]} has no completed trial, so it attains nothing")
    sets = np.repeat(np.arange(len(fronts)), [len(front) for front in fronts.values()])
    corners = moocore.eaf(np.concatenate(list(fronts.values())), sets, percentiles=sorted(set(percentiles)))
    surfaces = pd.DataFrame(corners, columns=[*names, "percentile"])
    surfaces[names] *= signs(names)
    surfaces = surfaces.reindex(columns=["percentile", *names])
    surfaces = surfaces.sort_values(["percentile", names[-1]], kind="stable", ignore_index=True)
    surfaces.attrs.update(objectives=names, metric=table.attrs.get("metric", "accuracy"))
    return surfaces


def plot_attainment(surfaces: Mapping[str, pd.DataFrame], title: str = "") -> NotebookFigure:
    """Attainment surfaces of groups of runs over their two objectives, as a figure: medians as lines, others thin.

    Args:
        surfaces: tables of `attainment`, by the group's name.
        title: of the figure.

    Raises:
        ValueError: no groups, or not of two objectives that are the same for all.
    """
    from nas.notebook_figure import NotebookFigure

    kinds = {tuple(table.attrs["objectives"]) for table in surfaces.values()}
    if len(kinds) != 1 or len(names := next(iter(kinds))) != 2:
        raise ValueError(f"attainment is drawn for two objectives, the same for all groups; given: {sorted(kinds)}")
    y_name, x_name = names
    figure = NotebookFigure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for i, (group, table) in enumerate(surfaces.items()):
        for percentile, corners in table.groupby("percentile"):
            width = 2.0 if percentile == 50 else 0.8
            label, colour = f"{group}, {percentile:g} %", COLOURS[i % len(COLOURS)]
            axes.step(corners[x_name], corners[y_name], where="post", color=colour, label=label, linewidth=width)
    everything = pd.concat(list(surfaces.values()))
    scale_axes(axes, everything, names, next(iter(surfaces.values())).attrs["metric"])
    axes.set_title(title)
    axes.legend(frameon=False)
    return figure

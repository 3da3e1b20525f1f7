"""Charts as PNG and SVG files, by matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.report.chart import GREY, Chart, Series
from analysis.report.words import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 7.5, 4.6  # inches
ROW = 0.27  # inches
PIXEL = 0.75  # points
MOST_CHARACTERS = 45  # of a row's name: more would leave no room for the picture
MANY_POINTS = 500  # from which points are drawn as pixels, also in an SVG
MARKS = {"circle": "o", "ring": "o", "open": "o", "diamond": "D", "star": "*", "square": "s", "triangle": "^"}
STYLE: dict[Any, Any] = {"text.parse_math": False, "svg.hashsalt": "report", "axes.axisbelow": True, "font.size": 10}


def save(chart: Chart, folder: Path) -> None:
    """Writes `STEM.png` and `STEM.svg` of a chart into a folder."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        height = 1.8 + ROW * len(chart.rows) if chart.rows else HEIGHT
        drawing = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = drawing.add_subplot()
        for each in chart.series:
            _draw(axes, each, chart)
        _axes(axes, chart)
        drawing.savefig(folder / f"{chart.stem}.png", dpi=150)
        drawing.savefig(folder / f"{chart.stem}.svg", metadata={"Date": None})


def _draw(axes: Axes, series: Series, chart: Chart) -> None:
    if series.kind == "stairs":
        width = 0.9 if series.thin else 1.6
        axes.step(series.x, series.y, where="post", color=series.colour, linewidth=width, label=series.name or None)
    elif series.kind == "links":
        axes.hlines(series.y, series.x, series.x_high, color=series.colour, linewidth=0.8, alpha=0.7)
    elif series.kind == "bars":
        axes.barh(series.y, series.x, height=series.size, color=series.colour, label=series.name or None)
        for x, y, label in zip(series.x, series.y, series.labels, strict=False):
            axes.annotate(label, (x, y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
    else:
        _points(axes, series, chart)


def _points(axes: Axes, series: Series, chart: Chart) -> None:
    bars: dict[str, Any] = {f"{axis}err": found for axis in "xy" if (found := _lengths(series, axis)) is not None}
    if bars:
        axes.errorbar(series.x, series.y, **bars, fmt="none", ecolor=series.colour, elinewidth=0.8, alpha=0.6)
    from matplotlib.ticker import LogLocator

    how: dict[str, Any] = {
        "s": (PIXEL * series.size) ** 2,
        "marker": MARKS[series.symbol],
        "zorder": 3,
        "linewidths": 1.2,
    }
    how |= {"rasterized": len(series.x) > MANY_POINTS, "label": series.name or None}
    if series.values:
        how |= {"c": series.values, "cmap": "viridis", "norm": "log" if chart.scale_log else "linear"}
        drawn = axes.scatter(series.x, series.y, **how)
        ticks = {"ticks": LogLocator(subs=(1.0, 2.0, 5.0)), "format": "{x:g}"} if chart.scale_log else {}
        axes.figure.colorbar(drawn, ax=axes, label=chart.scale, **ticks)
    elif series.symbol in ("ring", "open"):
        axes.scatter(series.x, series.y, facecolors="none", edgecolors=series.colour, **how)
    else:
        axes.scatter(series.x, series.y, color=series.colour, alpha=0.6 if series.colour == GREY else 1, **how)
    for x, y, label, left in zip(series.x, series.y, series.labels, chart.leftwards(series), strict=False):
        side: dict[str, Any] = {"xytext": (-7, 7), "ha": "right"} if left else {"xytext": (7, 7)}
        axes.annotate(label, (x, y), textcoords="offset points", fontsize=9, **side)


def _lengths(series: Series, axis: str) -> np.ndarray | None:
    """(2, n): how far intervals reach below and above; None where there are none."""
    at = np.array(getattr(series, axis), dtype=float)
    low, high = (np.array(getattr(series, f"{axis}_{end}"), dtype=float) for end in ("low", "high"))
    if not len(low) or np.isnan(low).all():
        return None
    return np.nan_to_num(np.clip(np.stack([at - low, high - at]), 0, None))


def _axes(axes: Axes, chart: Chart) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    for axis, set_scale, log in (
        (axes.xaxis, axes.set_xscale, chart.x_log),
        (axes.yaxis, axes.set_yscale, chart.y_log),
    ):
        if log:
            set_scale("log")
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(chart.x_title)
    axes.set_ylabel(chart.y_title)
    axes.set_title(chart.title)
    axes.grid(alpha=0.25, axis="x" if chart.rows else "both")
    if chart.rows:
        axes.set_yticks(range(len(chart.rows)), [shortened(row, MOST_CHARACTERS) for row in chart.rows])
        axes.set_ylim(len(chart.rows) - 0.5, -0.5)
        axes.margins(x=0.12)
    if chart.line:
        axes.axvline(chart.line[0], color="#555555", linewidth=0.8, linestyle="--", label=f"mean of {chart.line[1]}")
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, fontsize=9)

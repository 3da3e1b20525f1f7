"""The picture of a front."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.report.chart import BLACK, BLUE, GREEN, GREY, MANY, RED, SYMBOLS, Chart, Series
from analysis.report.compared import Comparison
from analysis.report.values import Values
from analysis.report.words import any_known, figure, hover_of
from nas.knee import logarithmic
from nas.objectives import OBJECTIVES


def front_chart(values: Values, comparison: Comparison | None) -> Chart:
    """The trained networks and the front, with intervals, over the first two objectives."""
    y, x = values.objectives[:2]
    front = values.front.sort_values([x, y])
    done = values.trials.loc[values.trials["state"] == "completed"]
    flat = len(values.objectives) == 2
    published = done.loc[done["published"] != ""]
    series = [_points(f"{len(done)} trained", done.loc[~done["on_front"]], x, y, colour=GREY, size=6)]
    if x == "latency_ms" and any_known(front, "unfused_latency_ms"):
        series += _unfused(front, y)
    if flat:
        series.append(Series("", *columns(front, x, y), "stairs", RED))
    series.append(_front_points(values, front, x, y))
    if comparison:
        series += _other_fronts(comparison, x, y, flat)
    if len(published):
        labels = tuple(published["published"])
        series.append(_points("published", published, x, y, colour=GREEN, symbol="star", size=13, labels=labels))
    series.append(_named(values, x, y))
    third = "" if flat else values.objectives[2]
    spread = done[third].to_numpy(dtype=float) if third else np.zeros(0)
    return Chart(
        "front",
        f"{plain_name(y).capitalize()} against {plain_name(x)}",
        axis_title(x, values),
        axis_title(y, values),
        tuple(each for each in series if each.x),
        _front_caption(values, front, x, y, len(published)),
        logarithmic(done[x].to_numpy(dtype=float)),
        logarithmic(done[y].to_numpy(dtype=float)),
        scale=axis_title(third, values) if third else "",
        scale_log=logarithmic(spread),
    )


def plain_name(objective: str) -> str:
    """An objective without its unit."""
    return objective.removesuffix("_ms").removesuffix("_mb").replace("_", " ")


def axis_title(name: str, values: Values) -> str:
    """An objective with its unit."""
    if name == "error" and values.config.metric != "accuracy":
        return f"error (1 - {values.config.metric}, validation)"
    return f"{plain_name(name)} ({OBJECTIVES[name].unit})"


def _front_caption(values: Values, front: pd.DataFrame, x: str, y: str, published: int) -> str:
    said = ["Each point is a network that was trained in full; to the lower left is better."]
    if len(values.objectives) == 2:
        said.append("Between two networks of the front, nothing better was found: it is stairs, not a curve.")
    else:
        said.append(f"The colour tells {values.objectives[2]}: what looks dominated here is better there.")
    if any_known(front, "error_low") and "error" in (x, y):
        said.append(
            "Vertical bars: 95 % interval of the error by the number of validation images (Wilson); it does not know "
            "that the best of many were picked."
        )
    if "latency_ms" in (x, y):
        sources = set(front["latency_source"])
        said.append(
            f"Horizontal bars: {'90' if sources == {'predicted'} else '95'} % interval of the latency's median."
        )
        if any_known(front, "unfused_latency_ms"):
            said.append("A line leads from each fused network to its train form, unfused, timed on the same runtime.")
        else:
            said.append("Unfused latencies are not recorded in this run.")
    if not published:
        said.append("No network of the zoo was trained in this run (zoo_first=true does that).")
    return " ".join(said)


def columns(rows: pd.DataFrame, x: str, y: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Two columns as a series has them."""
    return tuple(rows[x].astype(float)), tuple(rows[y].astype(float))


def _points(name: str, rows: pd.DataFrame, x: str, y: str, **more: object) -> Series:
    hover = tuple(hover_of(row) for row in rows.to_dict("records"))
    return Series(name, *columns(rows, x, y), hover=hover, **more)  # type: ignore[arg-type]


def _front_points(values: Values, front: pd.DataFrame, x: str, y: str) -> Series:
    ends: dict[str, tuple[float, ...]] = {}
    for axis, name in (("x", x), ("y", y)):
        known = {"error": ("error_low", "error_high"), "latency_ms": ("latency_low_ms", "latency_high_ms")}.get(name)
        if known:
            ends |= {f"{axis}_{end}": tuple(front[column]) for end, column in zip(("low", "high"), known, strict=True)}
    third = values.objectives[2:3]
    coloured = {"values": tuple(front[third[0]].astype(float))} if third else {}
    return _points(f"front, {len(front)}", front, x, y, colour=RED, **ends, **coloured)


def _unfused(front: pd.DataFrame, y: str) -> list[Series]:
    known = front.loc[front["unfused_latency_ms"].notna()]
    unfused = tuple(known["unfused_latency_ms"])
    hover = tuple(
        f"trial {row['trial']}, unfused: {figure('latency_ms', row['unfused_latency_ms'])} ms, "
        f"{row['unfused_latency_ms'] / row['latency_ms']:.2f} times the fused"
        for row in known.to_dict("records")
    )
    ys = tuple(known[y].astype(float))
    return [
        Series("", tuple(known["latency_ms"]), ys, "links", BLUE, x_high=unfused),
        Series("the same, unfused", unfused, ys, colour=BLUE, symbol="open", hover=hover),
    ]


def _other_fronts(comparison: Comparison, x: str, y: str, flat: bool) -> list[Series]:
    series = []
    for i, run in enumerate(comparison.runs[1:]):
        rows = comparison.trials.loc[(comparison.trials["run"] == run) & comparison.trials["on_front"]]
        rows, colour = rows.sort_values([x, y]), MANY[i % len(MANY)]
        hover = tuple(f"{run}\n{hover_of(row)}" for row in rows.to_dict("records"))
        points = Series(run, *columns(rows, x, y), colour=colour, symbol=SYMBOLS[i % len(SYMBOLS)], size=7, hover=hover)
        series += [*([Series("", *columns(rows, x, y), "stairs", colour, thin=True)] if flat else []), points]
    return series


def _named(values: Values, x: str, y: str) -> Series:
    """Rings around the networks that are named first."""
    labels = tuple(", ".join(pick.words) for pick in values.picks)
    xs, ys = (tuple(float(pick.row[name]) for pick in values.picks) for name in (x, y))
    return Series("", xs, ys, colour=BLACK, symbol="ring", size=15, labels=labels)

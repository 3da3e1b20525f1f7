"""Charts as plotly draws them in a browser."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from analysis.report.chart import GREY, Chart, Series

HEIGHT, ROW = 440, 24  # pixels
SYMBOLS = {
    **{"circle": "circle", "ring": "circle-open", "open": "circle-open", "diamond": "diamond", "star": "star"},
    **{"square": "square", "triangle": "triangle-up"},
}
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def plotly_json(chart: Chart) -> str:
    """The chart as JSON for `Plotly.newPlot`: `data` and `layout`. What runs are called is text in it, not HTML."""
    drawing = go.Figure(layout=go.Layout(template="none"))
    for series in chart.series:
        drawing.add_trace(_trace(series, chart))
    drawing.update_layout(**_layout(chart))
    found = drawing.to_json()
    assert found is not None
    return found


def _trace(series: Series, chart: Chart) -> Any:
    named: dict[str, Any] = {"name": _text(series.name), "showlegend": bool(series.name)}
    told = {"hovertext": [_text(each) for each in series.hover], "hoverinfo": "text"} if series.hover else {}
    labels = [_text(each) for each in series.labels]
    if series.kind == "bars":
        how = {"orientation": "h", "width": series.size, "marker": {"color": series.colour}}
        silent = {} if told else {"hoverinfo": "skip"}
        placed = {"text": labels, "textposition": "outside", "cliponaxis": False} if labels else {}
        return go.Bar(x=series.x, y=series.y, **how, **named, **told, **silent, **placed)
    if series.kind == "links":
        ends = [each for pair in zip(series.x, series.x_high, strict=True) for each in (*pair, None)]
        across = [each for y in series.y for each in (y, y, None)]
        line = {"color": series.colour, "width": 1}
        return go.Scatter(x=ends, y=across, mode="lines", line=line, hoverinfo="skip", **named)
    if series.kind == "stairs":
        line = {"color": series.colour, "width": 1.2 if series.thin else 2, "shape": "hv"}
        return go.Scatter(x=series.x, y=series.y, mode="lines", line=line, **named, **(told or {"hoverinfo": "skip"}))
    lengths = {f"error_{axis}": found for axis in "xy" if (found := _lengths(series, axis))}
    placed = {}
    if labels:
        sides = ["top left" if left else "top right" for left in chart.leftwards(series)]
        placed = {"text": labels, "textposition": sides, "textfont": {"size": 12}}
    return go.Scatter(
        x=series.x,
        y=series.y,
        mode="markers+text" if labels else "markers",
        marker=_marker(series, chart),
        **named,
        **(told or {"hoverinfo": "skip"}),
        **placed,
        **lengths,
    )


def _marker(series: Series, chart: Chart) -> dict[str, Any]:
    marker: dict[str, Any] = {"color": series.colour, "size": series.size, "symbol": SYMBOLS[series.symbol]}
    if series.symbol in ("ring", "open"):
        marker["line"] = {"width": 1.5, "color": series.colour}
    if series.colour == GREY:
        marker["opacity"] = 0.6
    if series.values:
        marker["color"] = list(series.values)
        title = {"text": _text(chart.scale), "side": "bottom", "font": {"size": 12}}
        place = {"orientation": "h", "y": -0.2, "yanchor": "top", "thickness": 10, "title": title}
        if chart.scale_log:  # plotly has none of colours: it is given logarithms, and told what to write beside them
            ticks = _ticks(series.values)
            marker["color"] = [math.log10(each) for each in series.values]
            place |= {"tickvals": [math.log10(tick) for tick in ticks], "ticktext": [f"{tick:g}" for tick in ticks]}
        marker |= {"colorscale": "Viridis", "colorbar": place}
    return marker


def _lengths(series: Series, axis: str) -> dict[str, Any] | None:
    low, high = getattr(series, f"{axis}_low"), getattr(series, f"{axis}_high")
    if not low or all(math.isnan(each) for each in low):
        return None
    at = getattr(series, axis)
    below = [_length(a - b) for a, b in zip(at, low, strict=True)]
    above = [_length(b - a) for a, b in zip(at, high, strict=True)]
    return {"type": "data", "array": above, "arrayminus": below, "thickness": 1, "width": 0, "color": series.colour}


def _length(value: float) -> float:
    return 0.0 if math.isnan(value) else max(0.0, value)


def _layout(chart: Chart) -> dict[str, Any]:
    grid = {"gridcolor": "#e6e9ec", "zeroline": False, "automargin": True, "linecolor": "#9aa5b1"}
    x = {**grid, **(_log_ticks(chart, "x") if chart.x_log else {})}  # the page names the axes, where they can wrap
    y = {**grid, **(_log_ticks(chart, "y") if chart.y_log else {})}
    if chart.rows:
        rows = [_text(row) for row in chart.rows]
        y |= {"tickvals": list(range(len(rows))), "ticktext": rows, "range": [len(rows) - 0.5, -0.5], "showgrid": False}
    x["tickangle"] = 0
    if chart.scale:  # which stands between the axis and the page's words
        x["title"] = {"text": _text(chart.x_title), "standoff": 8}
    layout: dict[str, Any] = {
        "xaxis": x,
        "yaxis": y,
        "height": 90 + ROW * len(chart.rows) if chart.rows else HEIGHT + (90 if chart.scale else 0),
        "margin": {
            "l": 8,
            "r": 34 if chart.rows else 12,
            "t": 36 if any(each.name for each in chart.series) else 14,
            "b": 8,
        },
        "font": {"family": FONT, "size": 13, "color": "#1f2933"},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "barmode": "overlay",
        "hovermode": "closest",
        "hoverlabel": {"align": "left", "bgcolor": "white", "font": {"size": 12, "color": "#1f2933", "family": FONT}},
    }
    if chart.line:
        mark = {
            "type": "line",
            "xref": "x",
            "yref": "paper",
            "x0": chart.line[0],
            "x1": chart.line[0],
            "y0": 0,
            "y1": 1,
        }
        layout["shapes"] = [{**mark, "line": {"color": "#555555", "width": 1, "dash": "dash"}}]
    return layout


def _log_ticks(chart: Chart, axis: str) -> dict[str, Any]:
    """A logarithmic axis with ticks at 1, 2 and 5 times the powers of ten, each told in full."""
    given = [each for s in chart.series for end in ("", "_low", "_high") for each in getattr(s, axis + end)]
    ticks = _ticks([each for each in given if each > 0])
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def _ticks(values: Sequence[float]) -> list[float]:
    """1, 2 and 5 times the powers of ten that values lie between."""
    powers = range(math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))) + 1)
    return [times * 10.0**power for power in powers for times in (1, 2, 5)]


def _text(words: str) -> str:
    """Text for plotly, which takes some tags for HTML."""
    return html.escape(words, quote=False).replace("\n", "<br>")

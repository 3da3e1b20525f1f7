"""A report as one HTML file that needs no network: plotly's own script is in it."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from plotly.offline import get_plotlyjs

from analysis.report.chart import Chart
from analysis.report.interactive import plotly_json
from analysis.report.part import Card, Cards, Code, Part, Pictures, Section, Table, Text

STYLE = Path(__file__).with_name("page.css")
# Nothing is loaded from anywhere, whatever a run's files say.
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
# Where a finger scrolls, a picture must not take the touch for a zoom.
SCRIPT = """
const touch = matchMedia("(pointer: coarse)").matches;
for (const plot of document.querySelectorAll(".plot")) {
  const figure = JSON.parse(plot.querySelector("script").textContent);
  const y = figure.layout.yaxis;
  if (plot.clientWidth < 500) {
    figure.layout.xaxis.nticks = 5;
    if (y.ticktext) y.ticktext = y.ticktext.map(t => t.length > 30 ? t.slice(0, 14) + "…" + t.slice(-14) : t);
  }
  if (touch) figure.layout.dragmode = false;
  const bar = touch || plot.clientWidth < 500 ? false : "hover";
  const config = {responsive: true, displaylogo: false, displayModeBar: bar,
    modeBarButtons: [["zoom2d", "pan2d", "resetScale2d"]]};
  Plotly.newPlot(plot, figure.data, figure.layout, config);
}
for (const button of document.querySelectorAll("button.copy")) {
  button.addEventListener("click", () => {
    getSelection().selectAllChildren(button.parentElement.querySelector("pre"));
    button.textContent = document.execCommand("copy") ? "copied" : "selected";
  });
}
"""


def page(title: str, sections: Sequence[Section], charts: Sequence[Chart], pictures: Mapping[str, bytes]) -> str:
    """The page of a document.

    Args:
        title: of it.
        sections: of it.
        charts: that its pictures name.
        pictures: the same as SVG, by stem, which is what is printed.
    """
    drawn = {chart.stem: _figure(chart, pictures[chart.stem]) for chart in charts}
    links = "".join(f'<a href="#{each.key}">{_inline(each.title)}</a>' for each in sections)
    body = "".join(_section(each, drawn) for each in sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE.read_text(encoding='utf-8')}</style></head><body>"
        f"<header><h1>{html.escape(title)}</h1><nav>{links}</nav></header><main>{body}</main>"
        f"<script>{get_plotlyjs()}</script><script>{SCRIPT}</script></body></html>\n"
    )


def _section(section: Section, drawn: Mapping[str, str]) -> str:
    parts = "".join(_part(part, drawn) for part in section.parts)
    return f'<section id="{section.key}"><h2>{_inline(section.title)}</h2>{parts}</section>'


def _part(part: Part, drawn: Mapping[str, str]) -> str:
    if isinstance(part, Text):
        return f"<p>{_inline(part.words)}</p>"
    if isinstance(part, Pictures):
        return f'<div class="pictures">{"".join(drawn[stem] for stem in part.stems)}</div>'
    if isinstance(part, Cards):
        return f'<div class="cards">{"".join(map(_card, part.cards))}</div>'
    if isinstance(part, Code):
        return _folded(part.fold, f'<button class="copy">copy</button><pre>{html.escape(part.words)}</pre>')
    return _folded(part.fold, _table(part))


def _card(card: Card) -> str:
    facts = "".join(f"<dt>{_inline(name)}</dt><dd>{_inline(said)}</dd>" for name, said in card.facts)
    return f"<article><h3>{_inline(card.title)}</h3><dl>{facts}</dl><pre>{html.escape(card.command)}</pre></article>"


def _table(table: Table) -> str:
    head = "".join(f"<th{_side(i, table)}>{_inline(each)}</th>" for i, each in enumerate(table.head))
    rows = "".join(
        "<tr>" + "".join(f"<td{_side(i, table)}>{_inline(cell)}</td>" for i, cell in enumerate(row)) + "</tr>"
        for row in table.rows
    )
    words = ' class="words"' if table.left >= len(table.head) else ""
    return f'<div class="scroll"><table{words}><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _side(column: int, table: Table) -> str:
    return ' class="left"' if column < table.left else ""


def _folded(name: str, inside: str) -> str:
    return f"<details><summary>{_inline(name)}</summary>{inside}</details>" if name else inside


def _figure(chart: Chart, svg: bytes) -> str:
    # In a script element only "<" could end it.
    data = plotly_json(chart).replace("<", "\\u003c")
    printed = base64.b64encode(svg).decode("ascii")
    alt = html.escape(f"{chart.title}. {chart.caption}")
    return (
        f'<figure id="picture-{html.escape(chart.stem)}"><h3>{_inline(chart.title)}</h3>'
        f"{_axis(f'↑ {chart.y_title}' if chart.y_title else '')}"
        f'<div class="plot" role="img" aria-label="{alt}"><script type="application/json">{data}</script></div>'
        f"{_axis('' if chart.scale else f'{chart.x_title} →', ' across')}"
        f'<img class="printed" alt="{alt}" src="data:image/svg+xml;base64,{printed}">'
        f"<figcaption>{_inline(chart.caption)}</figcaption></figure>"
    )


def _axis(words: str, kind: str = "") -> str:
    """The name of an axis, which wraps where a picture is narrow."""
    return f'<div class="axis{kind}">{_inline(words)}</div>' if words else ""


def _inline(words: str) -> str:
    """Text as HTML; what is between backticks is code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(words))

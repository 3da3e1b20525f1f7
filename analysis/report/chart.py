"""A picture as a value: drawn for the page by `interactive`, as a file by `static`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

# Okabe and Ito's colours, which the colour blind can tell apart (Wong, "Points of view: Color blindness", 2011).
GREY, BLACK, RED, BLUE, GREEN = "#8f99a3", "#222222", "#d55e00", "#0072b2", "#009e73"
MANY = (BLUE, GREEN, "#cc79a7", "#e69f00", "#56b4e9", BLACK)

Kind = Literal["points", "stairs", "bars", "links"]
Symbol = Literal["circle", "ring", "open", "diamond", "star", "square", "triangle"]
SYMBOLS: tuple[Symbol, ...] = ("square", "diamond", "triangle", "circle")


@dataclass(frozen=True)
class Series:
    """What is drawn in one way.

    Attributes:
        name: in the legend; empty where it has no place there.
        x: values.
        y: values, or of a chart with rows their places, 0 the topmost.
        kind: points; stairs that keep a value until the next; horizontal bars; links, each from one x to another.
        colour: of all.
        symbol: of points.
        size: of points, in pixels.
        x_low, x_high, y_low, y_high: ends of intervals, NaN where there is none; of links, `x_high` is the other end.
        labels: written beside points and bars.
        hover: lines of text of each point.
        values: by which points are coloured instead, on a scale that the chart names.
        thin: of stairs: beside others.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    kind: Kind = "points"
    colour: str = RED
    symbol: Symbol = "circle"
    size: float = 9
    x_low: tuple[float, ...] = ()
    x_high: tuple[float, ...] = ()
    y_low: tuple[float, ...] = ()
    y_high: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()
    hover: tuple[str, ...] = ()
    values: tuple[float, ...] = ()
    thin: bool = False


@dataclass(frozen=True)
class Chart:
    """A picture.

    Attributes:
        stem: of its files' names.
        title: what it shows.
        x_title: with the unit.
        y_title: with the unit.
        series: drawn in this order.
        caption: how it is to be read.
        x_log: whether the axis is logarithmic.
        y_log: the same of the other one.
        rows: names of the places along y, from the top; none where y is an axis of numbers.
        line: an x that is marked by a line, and its name.
        scale: name of the scale of colours.
        scale_log: whether it is logarithmic.
    """

    stem: str
    title: str
    x_title: str
    y_title: str
    series: tuple[Series, ...]
    caption: str
    x_log: bool = False
    y_log: bool = False
    rows: tuple[str, ...] = ()
    line: tuple[float, str] | None = None
    scale: str = ""
    scale_log: bool = False

    def leftwards(self, series: Series) -> list[bool]:
        """Of each point of a series whether it is so far to the right that its label is written to its left."""
        ends = [each for s in self.series for each in (*s.x, *s.x_low, *s.x_high) if not math.isnan(each)]
        low, high = (min(ends), max(ends)) if ends else (0.0, 0.0)
        middle = math.sqrt(low * high) if self.x_log else (low + high) / 2
        return [x > middle for x in series.x]

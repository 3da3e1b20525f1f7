"""Figures and times as a report writes them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from analysis.report.timing import Timing

NOT_RECORDED = "not recorded"
SHORT_S = 0.1  # what is shorter is not told
SPACE = "\u00a0"  # that no line breaks at
HOVER_WIDTH = 48  # characters of a line: a phone shows as many


def figure(name: str, value: Any) -> str:
    """A value of a column or objective; empty where there is none."""
    if value is None or pd.isna(value):
        return ""
    if name in ("params", "macs", "train_params", "train_macs"):
        return f"{round(value):,}"
    return f"{value:.4f}" if name in ("error", "accuracy", "test_accuracy") else f"{value:.4g}"


def any_known(rows: pd.DataFrame, column: str) -> bool:
    """Whether a column has a value in any row."""
    return not bool(rows[column].isna().to_numpy().all())


def interval(name: str, low: Any, high: Any) -> str:
    """An interval of such values; empty where there is none."""
    return "" if pd.isna(low) or pd.isna(high) else f"{figure(name, low)} to {figure(name, high)}"


def duration(seconds: float | None) -> str:
    """A time in the two units that suit it."""
    if seconds is None or math.isnan(seconds):
        return NOT_RECORDED
    if 0 < seconds < SHORT_S:
        return f"under {SHORT_S:g}{SPACE}s"
    if seconds < 100:
        return f"{seconds:.3g}{SPACE}s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{int(seconds // 60)}{SPACE}min {int(seconds % 60)}{SPACE}s"
    return f"{minutes // 60}{SPACE}h {minutes % 60}{SPACE}min"


def choice_words(choice: str, option: Any) -> str:
    """A choice with its option."""
    return f"{choice} {plain(option)}"


def plain(option: Any) -> str:
    """An option of a choice, whole numbers as such."""
    return f"{option:g}" if isinstance(option, float) else str(option)


def hover_of(row: Mapping[str, Any]) -> str:
    """What is told of a network when it is pointed at, in lines."""
    tested = figure("test_accuracy", row.get("test_accuracy"))
    latency = figure("latency_ms", row.get("latency_ms"))
    within = interval("latency_ms", row.get("latency_low_ms"), row.get("latency_high_ms"))
    lines = [
        f"trial {row['trial']}" + (f", {row['published']}" if row.get("published") else ""),
        f"accuracy {figure('accuracy', row.get('accuracy'))}" + (f", on test images {tested}" if tested else ""),
        f"{latency} ms ({within})" if latency else "",
        f"{figure('params', row.get('params'))} params, {figure('macs', row.get('macs'))} MACs",
        *(part for line in str(row.get("architecture") or "").split("\n") for part in wrapped(line)),
    ]
    return "\n".join(line for line in lines if line)


def wrapped(line: str, width: int = HOVER_WIDTH) -> list[str]:
    """A line in lines of at most so many characters, as far as its words allow."""
    lines = [""]
    for word in line.split(" "):
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("   ")
        lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return [each.rstrip() for each in lines]


def shortened(words: str, most: int) -> str:
    """Words of at most so many characters."""
    return words if len(words) <= most else f"{words[: most - 1]}…"


def time_parts(timing: Timing) -> list[tuple[str, float]]:
    """The parts of the trials' time, in seconds."""
    parts = [
        ("training", timing.training_s),
        ("waiting", timing.waiting_s),
        ("measuring", timing.measuring_s),
        ("preparing", timing.preparing_s),
    ]
    parts += [("between rungs", timing.resting_s)] if timing.resting_s >= SHORT_S else []
    return [*parts, *([("overhead", timing.overhead_s)] if timing.overhead_s is not None else [])]

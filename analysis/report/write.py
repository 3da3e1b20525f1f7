"""A report's files: made beside their place, and moved there when all are complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.report.charts import charts_of
from analysis.report.compared import Comparison, compared
from analysis.report.markdown import markdown
from analysis.report.page import page
from analysis.report.sections import document
from analysis.report.static import save
from analysis.report.values import Values, collect
from nas.config import first_line, user_path
from nas.config_fields import key
from nas.store import RunStore

PAGE, TEXT, PICTURES = "report.html", "report.md", (".png", ".svg")


@dataclass(frozen=True)
class ReportConfig:
    """`python -m analysis.report`: of which run, beside which others, to where."""

    run: str = key("latest", "name or folder of a run")
    compare: list[str] = key([], "other runs of the same objectives and metric, e.g. [first,second]")
    runs_dir: str = key("runs", "folder of all runs")
    out: str | None = key(None, "folder of the report; default: RUN/report")


def write_report(config: ReportConfig) -> Path:
    """Writes the report of a run; an earlier one in its place is replaced.

    Returns:
        The folder: report.html, report.md, and each picture as PNG and SVG.

    Raises:
        ValueError: there is no such run, one is damaged or cannot be compared, or `out` cannot be written or holds
            other files; nothing has been written then.
    """
    runs_dir = user_path("runs_dir", config.runs_dir)
    store = RunStore.find("run", config.run, runs_dir)
    others = [RunStore.find("compare", each, runs_dir) for each in config.compare]
    folder = (user_path("out", config.out) if config.out is not None else store.path / "report").absolute()
    _check_place(folder)
    values = collect(store)
    comparison = compared(store, others) if others else None
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        draft.mkdir(parents=True)
        _write(values, comparison, draft)
        _move(draft, folder)
    except OSError as error:
        raise ValueError(f"out={folder} cannot be written: {first_line(error)}") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def _check_place(folder: Path) -> None:
    """Holds that a report may take this place.

    Raises:
        ValueError: something else is there, or nothing can be written there.
    """
    try:
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"out={folder} is a file; allowed: a folder")
        found = sorted(each.name for each in folder.iterdir()) if folder.is_dir() else []
        home = next(each for each in folder.parents if each.exists())
    except OSError as error:
        raise ValueError(f"out={folder} cannot be written: {first_line(error)}") from None
    if found and PAGE not in found:
        raise ValueError(f"out={folder} holds other files ({found[0]}); allowed: a new or empty folder, or a report's")
    if other := _others(found):
        raise ValueError(f"out={folder} holds other files beside a report ({other[0]}); move them away")
    if not (home.is_dir() and os.access(home, os.W_OK | os.X_OK)):
        raise ValueError(f"out={folder} cannot be written: {home} is not a folder that can be written to")


def _others(names: Sequence[str]) -> list[str]:
    return [name for name in names if name not in (PAGE, TEXT) and Path(name).suffix not in PICTURES]


def _write(values: Values, comparison: Comparison | None, draft: Path) -> None:
    charts = charts_of(values, comparison)
    for chart in charts:
        save(chart, draft)
    sections = document(values, comparison, charts)
    pictures = {chart.stem: (draft / f"{chart.stem}.svg").read_bytes() for chart in charts}
    (draft / PAGE).write_text(page(values.title, sections, charts, pictures), encoding="utf-8")
    (draft / TEXT).write_text(markdown(values.title, sections, charts), encoding="utf-8")


def _move(draft: Path, folder: Path) -> None:
    """Puts a draft in its place; an earlier report is there until then."""
    earlier = draft.with_suffix(".old")
    if folder.exists():
        folder.rename(earlier)
    try:
        draft.rename(folder)
    except OSError:
        if earlier.exists():
            earlier.rename(folder)
        raise
    shutil.rmtree(earlier, ignore_errors=True)

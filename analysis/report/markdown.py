"""A report as Markdown, its pictures beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from analysis.report.chart import Chart
from analysis.report.part import Cards, Code, Part, Pictures, Section, Table, Text

SPECIAL = re.compile(r"([\\<>|*_\[\]])")


def markdown(title: str, sections: Sequence[Section], charts: Sequence[Chart]) -> str:
    """The Markdown text of a document; pictures are those that `static.save` writes."""
    drawn = {chart.stem: chart for chart in charts}
    lines = [f"# {_inline(title)}"]
    for section in sections:
        lines += [f"## {_inline(section.title)}", *(_part(part, drawn) for part in section.parts)]
    return "\n\n".join(lines) + "\n"


def _part(part: Part, drawn: dict[str, Chart]) -> str:
    if isinstance(part, Text):
        return _inline(part.words)
    if isinstance(part, Pictures):
        return "\n\n".join(_picture(drawn[stem]) for stem in part.stems)
    if isinstance(part, Cards):
        return "\n\n".join(
            "\n".join(
                [
                    f"### {_inline(card.title)}",
                    "",
                    *(f"- {_inline(name)}: {_inline(said)}" for name, said in card.facts),
                ]
            )
            + f"\n\n{_code(card.command)}"
            for card in part.cards
        )
    inside = _code(part.words) if isinstance(part, Code) else _table(part)
    return f"{_inline(part.fold)}:\n\n{inside}" if part.fold else inside


def _picture(chart: Chart) -> str:
    return f"![{_inline(chart.title)}]({chart.stem}.png)\n\n{_inline(chart.caption)}"


def _table(table: Table) -> str:
    sides = ["---" if i < table.left else "---:" for i in range(len(table.head))]
    rows = [table.head, sides, *table.rows]
    return "\n".join(f"| {' | '.join(each if row is sides else _inline(each) for each in row)} |" for row in rows)


def _code(words: str) -> str:
    """An indented block: nothing in it can end it."""
    return "\n".join(f"    {line}".rstrip() for line in words.rstrip("\n").split("\n"))


def _inline(words: str) -> str:
    """Text that Markdown leaves as it is, in one line; what is between backticks is code."""
    parts = " ".join(words.split()).split("`")
    return "`".join(part if i % 2 else SPECIAL.sub(r"\\\1", part) for i, part in enumerate(parts))

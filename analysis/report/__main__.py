"""`python -m analysis.report run=latest [compare=[other,...]]`: what a run found, as a page and as Markdown."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from analysis.report.write import ReportConfig, write_report
from nas.command_line import exit_code, make, settings_from_words, table_of_keys

USAGE = """Writes the report of a run: report.html (one file, needs no network), report.md, its pictures as PNG and SVG.

    python -m analysis.report run=latest
    python -m analysis.report run=mobile-0 "compare=[mobile-1,mobile-2]" out=report
    python -m analysis.report run=~/searches/first

Of a run that is still being searched it tells what there is so far. An earlier report makes way for the new one.

"""


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 0, 2 for bad input, 130 for Ctrl-C."""
    words = sys.argv[1:] if words is None else list(words)
    if any(word in ("-h", "--help", "help") for word in words):
        print(USAGE + table_of_keys(ReportConfig()))
        return 0

    def act() -> None:
        folder = write_report(make(settings_from_words(words, ReportConfig), ReportConfig))
        print(f"{folder / 'report.html'}  (report.md, pictures as PNG and SVG)")

    return exit_code("analysis.report", act)


if __name__ == "__main__":
    sys.exit(main())

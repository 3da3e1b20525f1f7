"""The code blocks of the documents, and their commands."""

from __future__ import annotations

import importlib
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

REPOSITORY = Path(__file__).parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{file.name}" for file in (REPOSITORY / "docs").glob("*.md"))]
FENCE, INDENT = "```", "    "
MARK = re.compile(r"<!-- not run in the tests(?: \((?P<part>[^)]*)\))?: (?P<reason>.+) -->")


@dataclass(frozen=True)
class Block:
    """A code block of a page.

    Attributes:
        page: the page.
        line: of its first line, from 1.
        language: python, yaml, or "" for what is typed into a terminal (or printed there).
        text: what is in it.
        file: the name that the sentence before it gives it, if it ends with one and a colon.
        kept_out: what is not run, by the mark before it: nothing, lines with one of these in them, or with "" all.
        reason: why.
    """

    page: str
    line: int
    language: str
    text: str
    file: str = ""
    kept_out: tuple[str, ...] = ()
    reason: str = ""

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return f"{self.page}:{self.line}"

    @property
    def lines(self) -> list[str]:
        """What is typed, line by line; nothing in a block of another language."""
        lines = [] if self.language else self.text.replace("\\\n", " ").splitlines()
        parts = [part.strip() for line in lines for part in line.split(" && ")]
        return [part for part in parts if part and not part.startswith("#")]

    def is_run(self, line: str) -> bool:
        """Whether one of its lines is run."""
        return not any(part in line for part in self.kept_out)


def words_of(line: str) -> list[str] | None:
    """The words after `python -m` of a line, its comment left out; None for any other line."""
    return shlex.split(line, comments=True)[2:] if line.startswith("python -m ") else None


def blocks_of(page: str) -> list[Block]:
    """The code blocks of a page, fenced and indented, in their order."""
    lines = (REPOSITORY / page).read_text(encoding="utf-8").splitlines()
    blocks, i = [], 0
    while i < len(lines):
        begin = i
        if lines[i].startswith(FENCE):
            i = lines.index(FENCE, i + 1)
            blocks.append(_block(page, lines, begin, lines[begin + 1 : i], lines[begin].removeprefix(FENCE)))
        elif lines[i].startswith(INDENT) and (not lines[i - 1] or lines[i - 1].startswith("<!--")):
            while i + 1 < len(lines) and (lines[i + 1].startswith(INDENT) or not lines[i + 1]):
                i += 1
            text = [line.removeprefix(INDENT) for line in lines[begin : i + 1]]
            blocks.append(_block(page, lines, begin, text, ""))
        i += 1
    return blocks


def _block(page: str, lines: list[str], begin: int, text: list[str], language: str) -> Block:
    before = " ".join(lines[max(0, begin - 3) : begin]).rstrip()
    named = re.search(r"`([\w.]+\.(?:py|yaml))`:$", before)
    mark = MARK.fullmatch(lines[begin - 1])
    kept_out = tuple((mark["part"] or "").split("; ")) if mark else ()
    reason = mark["reason"] if mark else ""
    joined = "\n".join(text).rstrip() + "\n"
    return Block(page, begin + 1, language, joined, named[1] if named else "", kept_out, reason)


def module_of(name: str) -> ModuleType:
    """The module that `python -m NAME` runs."""
    module = importlib.import_module(name)
    return importlib.import_module(f"{name}.__main__") if hasattr(module, "__path__") else module

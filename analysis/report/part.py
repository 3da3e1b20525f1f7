"""What a document is made of: a page and a text are written of the same parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Text:
    """A paragraph; what is between backticks is code."""

    words: str


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        head: names of the columns.
        rows: cells.
        left: columns from the left that hold words; the others hold numbers.
        fold: what a folded table is called; empty for one that is always shown.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 1
    fold: str = ""


@dataclass(frozen=True)
class Card:
    """A network that is named first: its title, named figures, a command."""

    title: str
    facts: tuple[tuple[str, str], ...]
    command: str


@dataclass(frozen=True)
class Cards:
    """Several of them, side by side."""

    cards: tuple[Card, ...]


@dataclass(frozen=True)
class Pictures:
    """Charts by their stems, side by side where there is room."""

    stems: tuple[str, ...]


@dataclass(frozen=True)
class Code:
    """Lines to copy or to read as they are; `fold` as in `Table`."""

    words: str
    fold: str = ""


Part: TypeAlias = Text | Table | Cards | Pictures | Code


@dataclass(frozen=True)
class Section:
    """A titled part of a document; `key` is its anchor."""

    key: str
    title: str
    parts: tuple[Part, ...]

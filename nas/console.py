"""Where tables for people are printed."""

from __future__ import annotations

from rich.console import Console

WIDTH_WITHOUT_TERMINAL = 1000  # in a file, no table needs to fold its columns


def table_console() -> Console:
    """The terminal as it is; where there is none, lines as long as they are."""
    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=WIDTH_WITHOUT_TERMINAL)

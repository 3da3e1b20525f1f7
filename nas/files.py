"""Files that readers find whole, whenever they look."""

from __future__ import annotations

from pathlib import Path


def write_at_once(file: Path, text: str) -> None:
    """Writes a file: a reader sees the old text or the new one."""
    draft = file.with_name(f".{file.name}.tmp")
    draft.write_text(text, encoding="utf-8")
    draft.replace(file)

"""Files that readers find whole, whenever they look."""

from __future__ import annotations

import os
from pathlib import Path


def write_at_once(file: Path, text: str) -> None:
    """Writes a file: a reader sees the old text or the new one."""
    draft = file.with_name(f".{file.name}.tmp")
    draft.write_text(text, encoding="utf-8")
    put_in_place(draft, file)


def put_in_place(draft: Path, file: Path) -> None:
    """Gives a draft its file's name once all of it is on disk: after a power cut, too, it is whole or not there."""
    with draft.open("rb") as written:
        os.fsync(written.fileno())
    draft.replace(file)

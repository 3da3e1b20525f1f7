"""Files that readers find whole, whenever they look."""

from __future__ import annotations

import os
from pathlib import Path


def write_at_once(file: Path, content: str | bytes) -> None:
    """Writes a file: a reader sees the old content or the new one."""
    draft = file.with_name(f".{file.name}.tmp")
    draft.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    put_in_place(draft, file)


def put_in_place(draft: Path, file: Path) -> None:
    """Gives a draft its file's name once all of it is on disk: after a power cut, too, it is whole or not there."""
    with draft.open("rb") as written:
        os.fsync(written.fileno())
    draft.replace(file)

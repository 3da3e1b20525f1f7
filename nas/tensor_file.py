"""Writing tensors to a file that is there in full or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from nas.files import put_in_place


def save_tensors(tensors: Mapping[str, Tensor], file: Path, metadata: dict[str, str] | None = None) -> None:
    """Writes tensors as safetensors at once: no reader sees half a file, and what fails leaves the old one."""
    draft = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(held, draft, metadata=metadata)
        draft.chmod(0o644)  # safetensors gives it to its owner alone
        put_in_place(draft, file)
    finally:
        draft.unlink(missing_ok=True)

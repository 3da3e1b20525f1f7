"""The commands of `nas` as a benchmark starts them: as their users do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence


def run_command(module: str, words: Sequence[str]) -> None:
    """Runs `python -m module words...`.

    Raises:
        ValueError: it failed; with the last line that it said.
    """
    done = subprocess.run([sys.executable, "-m", module, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"{module} {' '.join(words)}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")

"""What a run's figures depend on besides its configuration."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

import nas
from nas.latency.machine import device_name

PACKAGES = (
    "torch",
    "torchvision",
    "ray",
    "optuna",
    "numpy",
    "pandas",
    "scikit-learn",
    "moocore",
    "onnx",
    "onnxruntime",
)


def describe_environment(device: str, seed: int) -> dict[str, Any]:
    """Versions, device, threads, git commit and seed, JSON-ready."""
    return {
        "nas": nas.__version__,
        "git_commit": _git_commit(),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "device": device,
        "device_name": device_name(device),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "seed": seed,
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """The commit of this package's own checkout, with `+` where it has changes; None outside of one."""
    root = Path(nas.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        run = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip()

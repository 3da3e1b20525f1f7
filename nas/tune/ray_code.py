"""The code that trials need, for nodes of a cluster that have the dependencies only."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import nas


def shipped_code(plugins: Sequence[str]) -> dict[str, Any]:
    """Ray's runtime environment with this package and the plugins, each with the package that it is in.

    Args:
        plugins: dotted names of modules that are imported here.
    """
    packages = dict.fromkeys(name.split(".")[0] for name in plugins)
    modules: list[ModuleType] = [nas, *(importlib.import_module(name) for name in packages if name != "nas")]
    return {"py_modules": modules, "excludes": ["__pycache__"]}

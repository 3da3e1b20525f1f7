"""The code that trials need, for nodes of a cluster that have the dependencies only."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import nas


def shipped_code(plugins: Sequence[str]) -> dict[str, Any]:
    """Ray's runtime environment with this package and the plugins, each with the whole package that it is in.

    Args:
        plugins: dotted names of modules that can be imported here.
    """
    packages = dict.fromkeys([nas.__name__, *(name.split(".")[0] for name in plugins)])
    # Paths, not the modules themselves, which Ray Client cannot send.
    return {"py_modules": [_path_of(name) for name in packages], "excludes": ["__pycache__"]}


def _path_of(name: str) -> str:
    """The folder of a package, or the file of a single module."""
    spec = find_spec(name)
    assert spec is not None
    folders = list(spec.submodule_search_locations or ())  # of a package, also of one without an __init__.py
    if folders:
        return folders[0]
    assert spec.origin is not None
    return spec.origin

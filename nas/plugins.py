"""Plugins: a user's modules, which add to the registries when they are imported (see docs/blocks.md)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from nas.bounded import said, shown
from nas.config import first_line


def import_plugins(names: Sequence[str], folders: Sequence[str] = ()) -> None:
    """Imports modules by name, in their order; one that is imported already is not imported again.

    Args:
        names: dotted names of modules.
        folders: where they are looked for after this process's own import path, which is extended by them: in a worker
            those of the process that it works for (`import_path`), whose plugins it has to find.

    Raises:
        ValueError: not a module's name, or whatever the import raises; the message names the module.
    """
    if names:
        sys.path.extend(folder for folder in folders if folder not in sys.path)
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(
                f"plugins: {shown(name)} is not allowed; allowed: names of modules, such as mine or my.blocks"
            )
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:  # a user's module may raise anything
            reason = f"{type(error).__name__}: {first_line(error)}"
            if isinstance(error, ModuleNotFoundError) and error.name == name:
                reason += "; it has to be in the folder where the command is started, or installed"
            raise ValueError(f"plugins: module {name!r} cannot be imported: {reason}") from None


def check_said(wanted: object, given: object, where: str) -> None:
    """Holds that modules which a file names are named by the person too: a file alone imports no code.

    Args:
        wanted: what the file names.
        given: what the command names.
        where: the file, or the run that it is of.

    Raises:
        ValueError: one is not; the message says how.
    """
    named, of_person = (each if isinstance(each, list | tuple) else [] for each in (wanted, given))
    if unsaid := [name for name in named if name not in of_person]:
        raise ValueError(
            f"{where} asks for the plugins {', '.join(map(said, unsaid))}, and a file alone imports no code; "
            f"allowed: plugins=[{','.join(map(said, named))}] in the command, if you trust these modules"
        )


def import_path() -> list[str]:
    """This process's import path, for one with another working directory."""
    return [str(Path(folder).absolute()) for folder in sys.path]

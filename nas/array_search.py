"""A search on arrays of images, which stay beside its run, and which settings of it may be given."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nas.command_line import given_keys
from nas.results import Run
from nas.tune.run import run_search

# Keys of a search that the estimator decides, and the parameter that is there for it instead.
NOT_SETTINGS = {
    "space": "space",
    "budget": "budget",
    "constraints.latency_ms": "latency_ms",
    "train.epochs": "epochs",
    "trials.executor": "executor",
    "runs_dir": "runs_dir",
    "seed": "random_state",
    "data": "fit(X, y)",
    "run": None,
    "resume": None,
    "config": None,
    "verbose": "verbose",
}


def check_settings(given: Any) -> None:
    """Holds that settings are further keys of a search, and none that NASClassifier decides.

    Raises:
        ValueError: they are not.
    """
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise ValueError(f"settings={given!r} is not allowed; allowed: a dict of a search's keys and their values")
    for key in sorted(given_keys(given)):
        if key in NOT_SETTINGS:
            instead = NOT_SETTINGS[key]
            hint = f"; give {instead} instead" if instead else ": every fit is a run of its own"
            raise ValueError(f"settings: {key} is not allowed{hint}")


def search_arrays(images: np.ndarray, y: np.ndarray, home: Path, settings: Mapping[str, Any], verbose: bool) -> Run:
    """A search on images (N, C, H, W) and labels (N,), numbers or words; none of them are split off as a test set.

    Args:
        images: any numbers.
        y: labels.
        home: folder of the run and, beside it, of the images.
        settings: of the search, but for `data`, `run` and `runs_dir`.
        verbose: print progress and the front.

    Raises:
        ValueError: bad input; nothing is left in `home` then.
        KeyboardInterrupt: the search was interrupted.
    """
    name = f"classifier-{time.strftime('%Y-%m-%d_%H-%M-%S')}-{secrets.token_hex(4)}"
    file = home / f"{name}.npz"
    try:
        home.mkdir(parents=True, exist_ok=True)
        np.savez(file, x=images.transpose(0, 2, 3, 1), y=y, untested=True)
    except OSError as error:
        raise ValueError(f"runs_dir={home} cannot be written to: {error.strerror}") from None
    try:
        run = run_search(verbose=verbose, **{**settings, "data": str(file), "run": name, "runs_dir": str(home)})
    except BaseException as error:
        if not (home / name).exists():
            file.unlink()
        if isinstance(error, ValueError):  # who gave arrays knows of no file
            raise ValueError(str(error).replace(f"data={file}", "X, y")) from None
        raise
    if run.reason == "interrupted":
        raise KeyboardInterrupt
    return run

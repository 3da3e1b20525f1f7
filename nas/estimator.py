"""NASClassifier: a search behind scikit-learn's `fit` and `predict`."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils import Tags, check_array, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from nas.array_search import check_settings, search_arrays
from nas.command_line import make_config
from nas.config import user_path
from nas.data import load_data_of
from nas.exporting.export_run import export_run
from nas.exporting.settings import ExportConfig
from nas.fitted import FittedNetwork, fitted_network
from nas.image_layout import layout_of
from nas.store import RunStore

# Of no use in `pareto_`: all its rows are on the front, and nothing was tested.
NOT_OF_THE_FRONT = ["state", "reason", "on_front", "test_accuracy"]
# How scikit-learn reads arrays: whole numbers, bytes above all, stay what they are; all else becomes float32.
AS_IMAGES: dict[str, Any] = {"dtype": [np.dtype(kind) for kind in "f?bBhHiIlLqQ"], "allow_nd": True}


class NASClassifier(ClassifierMixin, BaseEstimator):
    """Searches for networks that classify images accurately and run fast; predicts with one of them.

    `fit` runs a search (`nas.run_search`) on the images that it is given. A share of them (a quarter, stratified;
    `settings={"val_share": ...}`) is held out to judge the networks, which learn from the others. No test images are
    split off: yours are yours. The accuracies in `pareto_` are those by which networks were chosen, so the best of
    them is too high; `score` on images that `fit` has not seen tells what it is worth.

    X is (N, H, W), or (N, H, W, C) with up to four channels, bytes or floats in any units: they are scaled. With
    `image_shape`, (H, W) or (C, H, W), it is (N, *image_shape) or that laid flat, (N, features). Flat vectors without
    an `image_shape` are taken as images of one pixel, with as many channels: each feature is scaled by itself, and
    convolutions are dense layers. y may be any classes.

    Args:
        space: search space: a shipped one's name or the path of a YAML file.
        budget: networks that are trained.
        latency_ms: highest latency of a network as it ships, milliseconds; None: any.
        epochs: of each training; None: as the kind of data and the space say.
        image_shape: (H, W) or (C, H, W) of the images in X.
        executor: "ray", trials side by side in processes, or "inline", one by one in this process, as suits the
            `n_jobs` of a grid search.
        settings: further keys of a search, nested or dotted (`python -m nas.search --help`).
        runs_dir: folder of runs, which are kept; None: a temporary one that goes when the estimator does.
        random_state: seed of sampling, splitting and training, a RandomState, or None for another one each time.
            Measured latency is noise that reaches the search; with objectives that are counted
            (`settings={"objectives": ["error", "macs"]}`), no `latency_ms` and the inline executor, a seed repeats it.
        verbose: print progress and the front.

    Attributes:
        classes_: the classes, sorted.
        pareto_: the front, by its last objective (latency, by default): one row a network.
        best_network_: the network that predicts, a torch module: fused, in eval mode, on the CPU; normalized images
            (N, C, H, W) to logits. The most accurate one of the front, or what `select` has chosen. With
            `latency.dtype=int8`, whose accuracies are those of quantized networks, what that was quantized from.
        best_trial_: its number in the run.
        run_path_: folder of the run. `select` and `export` need it, predictions do not: the network is pickled with
            the estimator.
        n_features_in_: length of X's second axis.
    """

    def __init__(
        self,
        space: str = "mobile",
        budget: int = 50,
        latency_ms: float | None = None,
        *,
        epochs: int | None = None,
        image_shape: tuple[int, ...] | None = None,
        executor: str = "ray",
        settings: Mapping[str, Any] | None = None,
        runs_dir: str | Path | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.space = space
        self.budget = budget
        self.latency_ms = latency_ms
        self.epochs = epochs
        self.image_shape = image_shape
        self.executor = executor
        self.settings = settings
        self.runs_dir = runs_dir
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> Self:
        """Searches networks for images X and classes y (N,).

        Raises:
            ValueError: bad input, or no network was found.
        """
        given = X
        # On a clone: what was fitted before stays as it was until this fit has succeeded.
        X, y = validate_data(clone(self), X, y, ensure_min_samples=2, **AS_IMAGES)
        layout = layout_of(X.shape, self.image_shape)
        classes, labels, names = _classes_of(y)
        with contextlib.ExitStack() as on_failure:
            if self.runs_dir is None:
                home = tempfile.mkdtemp(prefix="nas-classifier-")
                folder = weakref.finalize(self, shutil.rmtree, home, ignore_errors=True)
                on_failure.callback(folder)
            else:
                home, folder = self.runs_dir, None
            place, settings = user_path("runs_dir", home).resolve(), self._search_settings()
            run = search_arrays(layout.images(X), names[labels], place, settings, self.verbose)
            front = run.front
            if front.empty:
                why = next((reason for reason in run.trials["reason"] if reason), "none was trained")
                raise ValueError(f"no network was found: {why}")
            fitted = _fitted(RunStore.open(run.path), front)
            on_failure.pop_all()
        validate_data(self, given, skip_check_array=True)  # sets the number and names of features
        self.classes_, self._layout, self.run_path_ = classes, layout, run.path
        self.pareto_ = front.drop(columns=NOT_OF_THE_FRONT)
        self._use(fitted)
        earlier, self._folder = getattr(self, "_folder", None), folder
        if earlier is not None:
            earlier()
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The class of each image, (N,).

        Raises:
            ValueError: X is not of the shape of `fit`'s.
        """
        best = self.predict_proba(X).argmax(1)
        return self.classes_[best]

    def predict_proba(self, X: Any) -> np.ndarray:
        """The softmax of the logits, (N, classes), in the order of `classes_`.

        Raises:
            ValueError: see `predict`.
        """
        check_is_fitted(self)
        pixels = check_array(X, estimator=self, **AS_IMAGES)
        if pixels.ndim > 2 or len(self._layout.given) > 1:  # scikit-learn would call the height a number of features
            self._layout.check(pixels.shape)
        validate_data(self, X, reset=False, skip_check_array=True)
        return self._fitted.probabilities(self.best_network_, self._layout.images(pixels))

    def select(
        self,
        *,
        latency_ms: float | None = None,
        params: float | None = None,
        macs: float | None = None,
        peak_memory_mb: float | None = None,
    ) -> Self:
        """Makes the most accurate network of the front that keeps these limits the one that predicts.

        Returns:
            The estimator itself.

        Raises:
            ValueError: no network of the front keeps them, or the run's folder is gone.
        """
        check_is_fitted(self)
        named = {"latency_ms": latency_ms, "params": params, "macs": macs, "peak_memory_mb": peak_memory_mb}
        limits = {name: limit for name, limit in named.items() if limit is not None}
        kept = self.pareto_
        for name, limit in limits.items():
            kept = kept.loc[kept[name] <= limit]
        if kept.empty:
            said = ", ".join(f"{name}={limit}" for name, limit in limits.items())
            least = ", ".join(f"{name} from {self.pareto_[name].min():.4g}" for name in limits)
            raise ValueError(f"{said}: none of the front's {len(self.pareto_)} networks keeps that; they have {least}")
        self._use(_fitted(self._store(), kept))
        return self

    def export(self, out: str | Path, formats: Sequence[str] = ("onnx", "pt2", "safetensors")) -> Path:
        """Writes the network that predicts as verified files with a model card, see `python -m nas.export`.

        Args:
            out: a folder that is new or empty.
            formats: of the files.

        Returns:
            The folder.

        Raises:
            ValueError: bad input, or the run's folder is gone; nothing has been written then.
            nas.deploy.ExportFailed: a file is not the network, and was left out.
        """
        check_is_fitted(self)
        run, trial = str(self._store().path), str(self.best_trial_)
        names = [formats] if isinstance(formats, str) else list(formats)
        searched = make_config({} if self.settings is None else dict(self.settings))
        plugins, limits = searched.plugins, searched.limits
        config = ExportConfig(run=run, trial=trial, out=str(out), formats=names, plugins=plugins, limits=limits)
        return export_run(config, print if self.verbose else lambda line: None)[0]

    def _search_settings(self) -> dict[str, Any]:
        given = {} if self.settings is None else self.settings
        check_settings(given)
        own = {
            "space": str(self.space),
            "budget": self.budget,
            "seed": int(check_random_state(self.random_state).randint(2**31 - 1)),
            "trials.executor": self.executor,
        }
        limits = {"constraints.latency_ms": self.latency_ms, "train.epochs": self.epochs}
        return {**given, **own, **{key: value for key, value in limits.items() if value is not None}}

    def _use(self, fitted: FittedNetwork) -> None:
        self._fitted = fitted
        self.best_network_: nn.Module = fitted.build()
        self.best_trial_ = fitted.trial

    def _store(self) -> RunStore:
        try:
            return RunStore.open(self.run_path_)
        except ValueError:
            raise ValueError(
                f"the run's folder {self.run_path_} is gone; give runs_dir=FOLDER to keep the runs of fit"
            ) from None

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = dict(super().__getstate__())  # pyright: ignore
        # The folder is this object's alone, and the network is built of what is beside it.
        state.pop("_folder", None)
        state.pop("best_network_", None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_fitted" in state:
            self.best_network_ = self._fitted.build()

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        given = self.settings if isinstance(self.settings, Mapping) else {}
        objectives = given.get("objectives", ["latency_ms"])
        tags.non_deterministic = self.latency_ms is not None or "latency_ms" in objectives
        return tags


def _fitted(store: RunStore, front: pd.DataFrame) -> FittedNetwork:
    """The most accurate network of a front."""
    config = store.config()
    best = int(front.nlargest(1, "accuracy")["trial"].iloc[0])
    return fitted_network(store, best, load_data_of(config), config.plugins)


def _classes_of(y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The classes, sorted; their number of each label (N,); and what the search calls them, sorted alike.

    Raises:
        ValueError: they cannot be sorted, or there is nothing to be told apart, learned from or judged by.
    """
    try:
        check_classification_targets(y)
        classes, labels = np.unique(y, return_inverse=True)
    except TypeError:
        kinds = ", ".join(sorted({type(label).__name__ for label in y}))
        raise ValueError(f"y holds labels of kinds that cannot be sorted: {kinds}; allowed: all of one kind") from None
    if len(classes) < 2:
        raise ValueError(f"y has only one class ({classes[0]}); allowed: two or more")
    counts = np.bincount(labels)
    if counts.min() < 2:
        raise ValueError(f"y: class {classes[counts.argmin()]} has one image; allowed: two or more of each class")
    names = classes if classes.dtype.kind in "buifUS" else classes.astype(str)
    if not (names[:-1] < names[1:]).all():
        raise ValueError(f"y: classes of {classes.dtype} such as {classes[0]} are not allowed; allowed: words, numbers")
    return classes, labels, names

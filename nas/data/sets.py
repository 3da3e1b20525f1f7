"""Data sets by name, among them those that plug-ins register."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from nas.config import first_line


@dataclass(frozen=True)
class Source:
    """A data set as arrays.

    Attributes:
        x: training images (N, C, H, W), uint8 or float32.
        y: their class numbers (N,), int64.
        x_test: test images, likewise.
        y_test: their class numbers.
        classes: names of the classes.
        shift: how far a training image may be shifted and still be of its class, pixels.
        flip: whether a mirror image is of the same class.
    """

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: tuple[str, ...]
    shift: int
    flip: bool


@dataclass(frozen=True)
class DatasetSource:
    """A data set as torch datasets whose items are (image, label).

    An image is a PIL image, a tensor (C, H, W) or an array (H, W) or (H, W, C), of bytes or floats, without changes
    at random: those are a matter of training. A label is a class number. Sizes may differ; what all are brought to is
    said at `nas.data.folder.scan_folder`, and grey images among others get as many channels as those. The datasets
    must be picklable and hold no file open: other processes read them.

    Attributes:
        train: the training images.
        test: the test images; without them a fifth of the training images is split off.
        classes: names of the classes.
        shift: how far a training image, as resized, may be shifted and still be of its class, pixels.
        flip: whether a mirror image is of the same class.
    """

    train: Dataset[Any]
    test: Dataset[Any] | None
    classes: tuple[str, ...]
    shift: int = 0
    flip: bool = False


def _digits(root: Path) -> Source:
    """Scikit-learn's 8x8 digits; the test set is the last 450 in file order, whose writers are others."""
    from sklearn.datasets import load_digits

    flat, target = load_digits(return_X_y=True)
    x = np.asarray(flat).astype(np.uint8).reshape(-1, 1, 8, 8)
    y = np.asarray(target).astype(np.int64)
    return Source(x[:-450], y[:-450], x[-450:], y[-450:], tuple("0123456789"), shift=1, flip=False)


def _torchvision(class_name: str, shift: int, flip: bool) -> Callable[[Path], Source]:
    """A reader of a torchvision data set; it downloads what is missing where that is possible."""

    def read(root: Path) -> Source:
        from torchvision import datasets

        kind = getattr(datasets, class_name)
        train, test = _open_or_download(kind, root, True), _open_or_download(kind, root, False)
        classes = tuple(str(name) for name in train.classes)
        return Source(
            _channels_first(train.data),
            np.asarray(train.targets, dtype=np.int64),
            _channels_first(test.data),
            np.asarray(test.targets, dtype=np.int64),
            classes,
            shift,
            flip,
        )

    return read


DATASETS: dict[str, Callable[[Path], Source | DatasetSource]] = {
    "digits": _digits,
    "mnist": _torchvision("MNIST", shift=2, flip=False),
    "fashion_mnist": _torchvision("FashionMNIST", shift=2, flip=True),
    "cifar10": _torchvision("CIFAR10", shift=4, flip=True),
    "cifar100": _torchvision("CIFAR100", shift=4, flip=True),
}


def _open_or_download(kind: Any, root: Path, train: bool) -> Any:
    try:
        return kind(root=str(root), train=train, download=False)
    except RuntimeError:
        pass  # what torchvision raises for files that are not there
    except Exception as error:  # what damaged files raise is whatever their parser stumbles over
        raise ValueError(f"data_root={root}: {_wanted_files(kind)} cannot be read: {first_line(error)}") from None
    try:
        return kind(root=str(root), train=train, download=True)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"data_root={root} lacks {_wanted_files(kind)}, and they cannot be downloaded ({first_line(error)}); "
            "put them there, or point data_root to them"
        ) from None


def _wanted_files(kind: Any) -> str:
    if hasattr(kind, "resources"):
        names = [f"{kind.__name__}/raw/{name}" for name, _ in kind.resources]
    else:
        listed = [name for name, _ in [*kind.train_list, *kind.test_list]] + [kind.meta["filename"]]
        names = [f"{kind.base_folder}/{name}" for name in listed]
    return ", ".join(names)


def _channels_first(images: Tensor | np.ndarray) -> np.ndarray:
    array = np.asarray(images)
    return np.ascontiguousarray(array[:, None] if array.ndim == 3 else array.transpose(0, 3, 1, 2))

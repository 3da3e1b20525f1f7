"""Data sets by name or path, split and held in memory as one tensor of images each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

from nas.config import first_line, user_path
from nas.data_files import RawImages, read_folder, read_npz
from nas.recipes import kind_of_data

TEST_SHARE = 0.2  # of data that comes without a test set
TEST_SEED = 0  # the test set must not change with the seed of a search


@dataclass(frozen=True)
class Images:
    """Images with labels.

    Attributes:
        x: (N, C, H, W), uint8 or float32, in the units that they came in.
        y: (N,), class numbers.
    """

    x: Tensor
    y: Tensor

    def to(self, device: str) -> Images:
        """The same on another device."""
        return Images(self.x.to(device), self.y.to(device))


@dataclass(frozen=True)
class Augmentation:
    """What a training image may undergo and still be of its class.

    Attributes:
        shift: largest shift in pixels, each way.
        flip: whether a mirror image is of the same class.
    """

    shift: int
    flip: bool


@dataclass(frozen=True)
class ImageData:
    """A data set, split in three.

    Attributes:
        name: what it was asked for as.
        train: what networks learn from.
        validation: what they are chosen by.
        test: touched once, for the networks of a final front.
        classes: names of the classes.
        mean: of the training images by channel, in their units.
        std: likewise.
        augmentation: what suits the data.
    """

    name: str
    train: Images
    validation: Images
    test: Images
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augmentation

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, channels, height, width = self.train.x.shape
        return channels, height, width

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def kind(self) -> str:
        """The kind of data, which decides the default recipe; see `nas.recipes`."""
        return kind_of_data(len(self.train.y), min(self.input_shape[1:]))

    def normalize(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) as float32 of mean 0 and standard deviation 1 by channel."""
        shape = (1, -1, 1, 1)
        mean = torch.tensor(self.mean, device=x.device).reshape(shape)
        std = torch.tensor(self.std, device=x.device).reshape(shape)
        return (x.float() - mean) / std


def load_data(data: str, root: str, val_share: float, seed: int) -> ImageData:
    """A data set by name, or from a folder with one folder a class, or from an `.npz` with `x` and `y`.

    The validation set is split off the training images, stratified by class, with `seed`. Folders and
    `.npz` files have no test set of their own: a fifth of them, stratified, with a seed that is always 0.

    Raises:
        ValueError: an unknown name, a path that does not exist, files that cannot be read, one class only,
            or classes with too few images to split.
    """
    path = user_path("data", data)
    if data in DATASETS:
        raw = DATASETS[data](user_path("data_root", root).resolve())
    elif path.suffix == ".npz" or path.is_dir():
        raw = _split_off_test(read_folder(path) if path.is_dir() else read_npz(path), data)
    else:
        known = ", ".join(DATASETS)
        raise ValueError(f"data={data} is neither a known data set nor an existing folder or .npz; known: {known}")
    train, validation = _stratified(raw.x, raw.y, raw.classes, val_share, seed, f"data={data}, val_share={val_share}")
    mean, std = _mean_and_std(train.x)
    return ImageData(
        name=data,
        train=train,
        validation=validation,
        test=Images(torch.from_numpy(raw.x_test), torch.from_numpy(raw.y_test)),
        classes=raw.classes,
        mean=mean,
        std=std,
        augmentation=Augmentation(raw.shift, raw.flip),
    )


@dataclass(frozen=True)
class Source:
    """A data set as its origin gives it: training and test images, (N, C, H, W)."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: tuple[str, ...]
    shift: int
    flip: bool


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


DATASETS: dict[str, Callable[[Path], Source]] = {
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


def _mean_and_std(x: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation (1 where it is 0) by channel, in pieces: a copy in float64 may not fit."""
    pixels = x[:, 0].numel()
    mean = sum(part.sum(dim=(0, 2, 3), dtype=torch.float64) for part in x.split(1000)) / pixels
    assert isinstance(mean, Tensor)
    centred = mean.reshape(1, -1, 1, 1)
    variance = sum(((part - centred) ** 2).sum(dim=(0, 2, 3)) for part in x.split(1000)) / max(1, pixels - 1)
    assert isinstance(variance, Tensor)
    std = torch.where(variance > 0, variance.sqrt(), torch.ones_like(variance))
    return tuple(mean.tolist()), tuple(std.tolist())


def _split_off_test(raw: RawImages, data: str) -> Source:
    train, test = _stratified(raw.x, raw.y, raw.classes, TEST_SHARE, TEST_SEED, f"data={data}")
    shift = max(1, min(raw.x.shape[2:]) // 8)
    return Source(
        train.x.numpy(), train.y.numpy(), test.x.numpy(), test.y.numpy(), raw.classes, shift=shift, flip=False
    )


def _stratified(
    x: np.ndarray, y: np.ndarray, classes: tuple[str, ...], share: float, seed: int, what: str
) -> tuple[Images, Images]:
    if len(classes) < 2:
        raise ValueError(f"{what}: there is only one class ({', '.join(classes)}); allowed: two or more")
    counts = [int((y == label).sum()) for label in range(len(classes))]
    if min(counts) < 2:
        raise _too_few(what, classes, counts)
    try:
        kept, held_out = train_test_split(np.arange(len(y)), test_size=share, random_state=seed, stratify=y)
    except ValueError as error:
        raise ValueError(f"{what}: cannot be split: {first_line(error)}") from None
    for part in (kept, held_out):
        if len(np.unique(y[part])) < len(classes):
            raise _too_few(what, classes, counts)
    return _subset(x, y, np.sort(kept)), _subset(x, y, np.sort(held_out))


def _too_few(what: str, classes: tuple[str, ...], counts: list[int]) -> ValueError:
    least = counts.index(min(counts))
    return ValueError(f"{what}: class {classes[least]!r} has too few images to split: {counts[least]}")


def _subset(x: np.ndarray, y: np.ndarray, index: np.ndarray) -> Images:
    return Images(torch.from_numpy(x[index]), torch.from_numpy(y[index]))

"""Data sets by name or path, split in three, in memory or streamed from disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from nas.config import DataConfig, JobConfig, first_line, user_path
from nas.data.dataset import survey_datasets
from nas.data.files import RawImages, read_npz
from nas.data.folder import scan_folder
from nas.data.images import Images, resized
from nas.data.sets import DATASETS, DatasetSource, Source
from nas.data.split import check_classes, stratified
from nas.data.stream import Pictures, StreamedImages
from nas.recipes import kind_of_data

TEST_SHARE = 0.2  # of data that comes without a test set
STATISTICS_CHUNK = 64  # images at a time that become float64
TEST_SEED = 0  # the test set must not change with the seed of a search
SAMPLE = 2000  # images that tell mean and standard deviation of streamed ones

ImageSet: TypeAlias = Images | StreamedImages


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
        train: what networks learn from; in memory or streamed from disk, as the other parts.
        validation: what they are chosen by.
        test: touched once, for the networks of a final front; empty where they are kept elsewhere.
        classes: names of the classes.
        mean: of the training images by channel, in their units.
        std: likewise.
        augmentation: what suits the data.
    """

    name: str
    train: ImageSet
    validation: ImageSet
    test: ImageSet
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augmentation

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.train.shape

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def unseen(self) -> ImageSet:
        """Images that no network has learned from: the test images, or those of validation where there are none."""
        return self.test if len(self.test) else self.validation

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Training images of each class."""
        return tuple(torch.bincount(self.train.y, minlength=self.num_classes).tolist())

    @property
    def kind(self) -> str:
        """The kind of data, which decides the default recipe; see `nas.recipes`."""
        return kind_of_data(len(self.train), min(self.input_shape[1:]))

    def summary(self) -> str:
        """A line for people: classes, shape, and how many images there are."""
        counts = ", ".join(f"{len(getattr(self, part)):,} {part}" for part in ("train", "validation", "test"))
        shape = "x".join(map(str, self.input_shape))
        return f"data {self.name}: {self.num_classes} classes, {shape}; {counts} images"

    def normalize(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) as float32 of mean 0 and standard deviation 1 by channel."""
        return self.normalizer(x.device)(x)

    def normalizer(self, device: torch.device) -> Callable[[Tensor], Tensor]:
        """`normalize` for images on a device, with what it needs there already: nobody waits for a copy."""
        mean, std = (torch.tensor(each, device=device).reshape(1, -1, 1, 1) for each in (self.mean, self.std))
        return lambda x: (x.float() - mean) / std


def load_data(
    data: str,
    root: str,
    val_share: float,
    seed: int,
    options: DataConfig = DataConfig(),  # noqa: B008 (it is frozen)
) -> ImageData:
    """A data set by name, or from a folder of pictures, or from an `.npz` with `x` and `y`.

    A folder has one folder a class, or those in train/, val/ and test/; see `nas.data.folder.scan_folder`, also for
    what mixed sizes and grey pictures become. A data set without validation images has `val_share` of its training
    images split off, stratified by class, with `seed`; one without test images a fifth, with a seed that is always 0
    (an `.npz` may say that it is `untested`: then there are none).

    Folders, and the datasets of a `DatasetSource`, that take more than `options.resident_gb` as they are used are
    streamed from disk. Other named data sets and `.npz` files are read whole in any case, and stay in memory.

    Args:
        data: name, folder or `.npz`; a name goes before a folder of that name.
        root: where the files of named data sets are.
        val_share: share of the training images, in (0, 1).
        seed: of the validation set.
        options: size of the images, and how they are read.

    Raises:
        ValueError: an unknown name, a path that does not exist, files that cannot be read, a plug-in's data set that
            fails, one class only, or classes with too few images to split.
    """
    path = user_path("data", data)
    if data in DATASETS:
        found = _named(data, user_path("data_root", root).resolve())
        if isinstance(found, DatasetSource):
            found = survey_datasets(data, found, options)
    elif path.is_dir():
        found = scan_folder(path, options)
    elif path.suffix == ".npz":
        found = _split_off_test(read_npz(path), data)
    else:
        known = ", ".join(DATASETS)
        raise ValueError(f"data={data} is neither a known data set nor an existing folder or .npz; known: {known}")
    check_classes(found.classes, f"data={data}")
    if isinstance(found, Pictures):
        parts = _of_pictures(found, data, val_share, seed, options)
    else:
        found = _as_asked(found, options.image_size)
        parts = _of_arrays(found, data, val_share, seed)
    train, validation, test = parts
    mean, std = _mean_and_std(train.x if isinstance(train, Images) else train.spread(SAMPLE))
    augmentation = Augmentation(found.shift, found.flip)
    return ImageData(data, train, validation, test, found.classes, mean, std, augmentation)


def load_data_of(config: JobConfig) -> ImageData:
    """The data set that a configuration names, read and split as it says; see `load_data`."""
    return load_data(config.data, config.data_root, config.val_share, config.seed, config.data_options)


def _named(data: str, root: Path) -> Source | DatasetSource:
    """A registered data set, of which a plug-in may have made anything."""
    try:
        source = DATASETS[data](root)
    except ValueError as error:
        raise ValueError(f"data={data}: {first_line(error)}") from error
    except Exception as error:  # a person's code may raise anything
        raise ValueError(f"data={data}: {type(error).__name__}: {first_line(error)}") from error
    if isinstance(source, DatasetSource):
        return source
    if not isinstance(source, Source):
        given = type(source).__name__
        raise ValueError(f"data={data}: its function gives a {given}; allowed: Source or DatasetSource")
    for name, x, y in (("x", source.x, source.y), ("x_test", source.x_test, source.y_test)):
        if x.ndim != 4 or 0 in x.shape or x.dtype not in (np.uint8, np.float32) or y.shape != (len(x),):
            got = f"{name} {x.dtype} {x.shape} with labels {y.shape}"
            raise ValueError(f"data={data}: {got} is not allowed; allowed: uint8 or float32 (N, C, H, W) and (N,)")
        if y.dtype != np.int64 or y.min() < 0 or y.max() >= len(source.classes):
            got = f"labels {y.dtype} from {y.min()} to {y.max()}"
            raise ValueError(f"data={data}: {got}; allowed: int64 from 0 to {len(source.classes) - 1}")
    return source


def _as_asked(source: Source, image_size: int | None) -> Source:
    """A data set with images of the size that was asked for, which are shifted as far in proportion."""
    if image_size is None:
        return source
    size, side = (image_size, image_size), min(source.x.shape[2:])
    x, x_test = (resized(torch.from_numpy(each), size).numpy() for each in (source.x, source.x_test))
    return replace(source, x=x, x_test=x_test, shift=round(source.shift * image_size / side))


def _of_arrays(source: Source, data: str, val_share: float, seed: int) -> tuple[ImageSet, ImageSet, ImageSet]:
    """Training, validation and test images of arrays."""
    what = f"data={data}, val_share={val_share}"
    kept, held_out = stratified(source.y, source.classes, val_share, seed, what)
    train, validation = (_subset(source.x, source.y, index) for index in (kept, held_out))
    return train, validation, Images(torch.from_numpy(source.x_test), torch.from_numpy(source.y_test))


def _of_pictures(
    pictures: Pictures, data: str, val_share: float, seed: int, options: DataConfig
) -> tuple[ImageSet, ImageSet, ImageSet]:
    """Training, validation and test images of what is read one by one: in memory if all of them fit."""
    train, y = pictures.given["train"], pictures.y
    validation, test = pictures.given.get("validation"), pictures.given.get("test")
    if test is None:
        kept, held_out = stratified(y[train], pictures.classes, TEST_SHARE, TEST_SEED, f"data={data}")
        train, test = train[kept], train[held_out]
    if validation is None:
        what = f"data={data}, val_share={val_share}"
        kept, held_out = stratified(y[train], pictures.classes, val_share, seed, what)
        train, validation = train[kept], train[held_out]
    streamed = [pictures.part(numbers, options.workers) for numbers in (train, validation, test)]
    fits = pictures.gigabytes <= options.resident_gb
    first, second, third = [part.resident() for part in streamed] if fits else streamed
    return first, second, third


def _mean_and_std(x: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation (1 where it is 0) by channel, in pieces: a copy in float64 may not fit."""
    pixels = x[:, 0].numel()
    mean = sum(part.sum(dim=(0, 2, 3), dtype=torch.float64) for part in x.split(STATISTICS_CHUNK)) / pixels
    assert isinstance(mean, Tensor)
    centred = mean.reshape(1, -1, 1, 1)
    variance = sum(((part - centred) ** 2).sum(dim=(0, 2, 3)) for part in x.split(STATISTICS_CHUNK)) / max(
        1, pixels - 1
    )
    assert isinstance(variance, Tensor)
    std = torch.where(variance > 0, variance.sqrt(), torch.ones_like(variance))
    return tuple(mean.tolist()), tuple(std.tolist())


def _split_off_test(raw: RawImages, data: str) -> Source:
    shift = max(1, min(raw.x.shape[2:]) // 8)
    if raw.untested:
        return Source(raw.x, raw.y, raw.x[:0], raw.y[:0], raw.classes, shift=shift, flip=False)
    kept, held_out = stratified(raw.y, raw.classes, TEST_SHARE, TEST_SEED, f"data={data}")
    return Source(raw.x[kept], raw.y[kept], raw.x[held_out], raw.y[held_out], raw.classes, shift=shift, flip=False)


def _subset(x: np.ndarray, y: np.ndarray, index: np.ndarray) -> Images:
    return Images(torch.from_numpy(x[index]), torch.from_numpy(y[index]))

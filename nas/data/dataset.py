"""Reading the torch datasets of a plug-in, and what is known of their images before any is used."""

from __future__ import annotations

import operator
from collections.abc import Sized
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from nas.config import DataConfig, first_line
from nas.data.files import common_size, is_grey, pixels
from nas.data.sets import DatasetSource
from nas.data.stream import Pictures
from nas.data.workers import read_batches

ITEMS_TOGETHER = 64  # that a worker looks at


@dataclass(frozen=True)
class DatasetReader:
    """Reads the images of a `DatasetSource`, the test images after the training images.

    Attributes:
        name: of the data set, for messages.
        source: the datasets.
        train: number of training images.
        channels: that grey images are given as many of; 0: they are left as they are.
    """

    name: str
    source: DatasetSource
    train: int
    channels: int = 0

    def read(self, number: int) -> Tensor:
        """Image `number`, (C, H, W), uint8 or float32, in its own size.

        Raises:
            ValueError: the dataset fails, or its item is none that is allowed.
        """
        image, _ = self.item(number)
        if len(image) != self.channels > 0:
            if len(image) != 1:
                raise ValueError(f"{self._which(number)}: {len(image)} channels; allowed: 1 or {self.channels}")
            return image.expand(self.channels, -1, -1)
        return image

    def item(self, number: int) -> tuple[Tensor, int]:
        """Image (C, H, W), uint8 or float32, and label of item `number`.

        Raises:
            ValueError: see `read`.
        """
        part, index = self._place(number)
        dataset = cast(Any, self.source.train if part == "train" else self.source.test)
        try:
            image, label = dataset[index]
            tensor, label = _image(image), operator.index(label)
        except Exception as error:  # a person's code may raise anything
            raise ValueError(f"{self._which(number)}: {_said(error)}") from error
        if not 0 <= label < len(self.source.classes):
            allowed = f"0 to {len(self.source.classes) - 1}, one for each class"
            raise ValueError(f"{self._which(number)}: label {label} is not allowed; allowed: {allowed}")
        return tensor, label

    def _place(self, number: int) -> tuple[str, int]:
        return ("train", number) if number < self.train else ("test", number - self.train)

    def _which(self, number: int) -> str:
        part, index = self._place(number)
        return f"data={self.name}: {part}[{index}]"


def survey_datasets(name: str, source: DatasetSource, options: DataConfig) -> Pictures:
    """What images a plug-in's datasets hold; all are read for it once.

    Raises:
        ValueError: a dataset without length or items, one that fails, or items that are not allowed.
    """
    train = _length(name, "train", source.train)
    test = 0 if source.test is None else _length(name, "test", source.test)
    reader = DatasetReader(name, source, train)
    numbers = torch.arange(train + test).split(ITEMS_TOGETHER)
    found = torch.cat([*read_batches(_Look(reader), [each.tolist() for each in numbers], options.workers)])
    channels, floats = found[:, 0], found[:, 3]
    several = sorted(set(channels.tolist()) - {1})
    if len(several) > 1:
        raise ValueError(f"data={name}: images of {several} channels; allowed: one number, and grey ones among them")
    if floats.any() and not floats.all():
        raise ValueError(f"data={name}: some images are bytes, others floats; allowed: all of one kind")
    most = several[0] if several else 1
    given = {"train": np.arange(train)} | ({"test": np.arange(train, train + test)} if test else {})
    return Pictures(
        reader=replace(reader, channels=most),
        y=found[:, 4].numpy().copy(),
        given=given,
        classes=tuple(source.classes),
        shape=(most, *common_size(((h, w) for _, h, w, *_ in found.tolist()), options.image_size)),
        dtype=torch.float32 if floats.any() else torch.uint8,
        shift=source.shift,
        flip=source.flip,
    )


@dataclass(frozen=True)
class _Look:
    """Reads items in a worker: (n, 5), channels, height, width, 1 where its values are floats, and label."""

    reader: DatasetReader

    def __call__(self, numbers: list[int]) -> Tensor:
        items = [self.reader.item(number) for number in numbers]
        return torch.tensor([[*image.shape, image.is_floating_point(), label] for image, label in items])


def _length(name: str, part: str, dataset: Dataset[Any]) -> int:
    try:
        length = len(cast(Sized, dataset))
    except Exception as error:  # a person's code may raise anything
        raise ValueError(f"data={name}: {part} has no length: {_said(error)}") from error
    if length == 0:
        raise ValueError(f"data={name}: {part} has no items; allowed: one or more")
    return length


def _image(image: Any) -> Tensor:
    """(C, H, W), uint8 or float32, of an item's image."""
    if isinstance(image, Image.Image):
        return pixels(image, "L" if is_grey(image) else "RGB")
    if isinstance(image, np.ndarray):
        array = np.ascontiguousarray(image[:, :, None] if image.ndim == 2 else image)
        tensor = torch.from_numpy(array).movedim(-1, 0)
    elif isinstance(image, Tensor):
        tensor = image.as_subclass(Tensor)
    else:
        raise ValueError(f"an image of type {type(image).__name__}; allowed: PIL image, tensor, array")
    if tensor.ndim != 3 or 0 in tensor.shape or tensor.shape[0] > 64:
        raise ValueError(
            f"an image of shape {tuple(image.shape)}; allowed: tensor (C, H, W), array (H, W) or (H, W, C)"
        )
    if tensor.dtype == torch.uint8:
        return tensor.contiguous()
    if not tensor.is_floating_point() or not torch.isfinite(tensor).all():
        raise ValueError(f"an image of {tensor.dtype}; allowed: uint8, or floats without NaN and infinity")
    return tensor.float().contiguous()


def _said(error: Exception) -> str:
    """An error in one line; the type of a ValueError says nothing more."""
    text = first_line(error)
    return text if isinstance(error, ValueError) or text == type(error).__name__ else f"{type(error).__name__}: {text}"

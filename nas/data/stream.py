"""Images that do not fit into memory: they are read from disk anew whenever they are needed."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from nas.cores import cores
from nas.data.images import Images, resized, shuffled_batches, spread_over
from nas.data.workers import read_batches

CROP_SCALE = (0.5, 1.0)  # share of a training image's area that a random crop keeps
CUDA_WORKERS = 4  # the training itself needs one core
READ_TOGETHER = 64  # images that are read at a time where no batch size is asked for


class Reader(Protocol):
    """Reads images one by one. It is sent to other processes, so it holds nothing open."""

    def read(self, number: int) -> Tensor:
        """Image `number`, (C, H, W) of any height and width, uint8 or float32.

        Raises:
            ValueError: it cannot be read; one line that names it.
        """
        ...


@dataclass(frozen=True)
class StreamedImages:
    """Images with labels, read by other processes; the methods are those of `Images`.

    Attributes:
        reader: reads the images.
        numbers: (N,), which of the reader's images these are.
        y: (N,), class numbers; batches go to the device that they are on.
        shape: (C, H, W) that all are brought to.
        dtype: torch.uint8 or torch.float32, as the reader gives them.
        workers: processes that read; 0: the process that asks for the images; None: 0, for a GPU 4.
    """

    reader: Reader
    numbers: np.ndarray
    y: Tensor
    shape: tuple[int, int, int]
    dtype: torch.dtype
    workers: int | None

    def __len__(self) -> int:
        return len(self.y)

    def to(self, device: str) -> StreamedImages:
        """The same, whose batches go to another device."""
        return replace(self, y=self.y.to(device))

    def batches(self, batch_size: int) -> Iterator[Images]:
        """All images in their order; the last batch may be smaller.

        Raises:
            ValueError: an image cannot be read; its file is named.
        """
        order = torch.arange(len(self), device=self.y.device)
        return self._read(list(order.split(batch_size)), seed=0, crop=False)

    def shuffled(self, batch_size: int, seed: int, augment: bool) -> Iterator[Images]:
        """An epoch in an order that `seed` decides, the same as that of `Images.shuffled`.

        Args:
            batch_size: see `nas.data.images.shuffled_batches`.
            seed: of the order and of the crops, whatever the number of workers.
            augment: instead of whole images take random crops of at least half of their area, at most a third
                wider or higher than square.

        Raises:
            ValueError: an image cannot be read; its file is named.
        """
        return self._read(shuffled_batches(len(self), batch_size, seed, self.y.device), seed, crop=augment)

    def spread(self, count: int) -> Tensor:
        """At most `count` images (n, C, H, W), evenly from all over."""
        positions = spread_over(len(self), count).to(self.y.device)
        return torch.cat([part.x for part in self._read(list(positions.split(READ_TOGETHER)), seed=0, crop=False)])

    def resident(self) -> Images:
        """The same images in memory, read by all cores: nothing is trained yet."""
        reading = replace(self, workers=cores() if self.workers is None else self.workers)
        x = torch.empty((len(self), *self.shape), dtype=self.dtype, device=self.y.device)
        for target, part in zip(x.split(READ_TOGETHER), reading.batches(READ_TOGETHER), strict=True):
            target.copy_(part.x)
        return Images(x, self.y)

    def _read(self, batches: list[Tensor], seed: int, crop: bool) -> Iterator[Images]:
        """Images at the positions of each batch; only their numbers go to the workers, no labels, no device."""
        importlib.import_module("torchvision.transforms.v2")  # takes a second: here, not once in every worker
        on_cuda = self.y.device.type == "cuda"
        workers = (CUDA_WORKERS if on_cuda else 0) if self.workers is None else self.workers
        read = _Read(self.reader, self.numbers, self.shape, seed, crop)
        read_ones = read_batches(read, [batch.tolist() for batch in batches], workers, pinned=on_cuda)
        for batch, x in zip(batches, read_ones, strict=True):
            yield Images(x.to(self.y.device, non_blocking=True), self.y.index_select(0, batch))


@dataclass(frozen=True)
class _Read:
    """Reads a batch in a worker: images at some positions, all of one shape."""

    reader: Reader
    numbers: np.ndarray
    shape: tuple[int, int, int]
    seed: int
    crop: bool

    def __call__(self, positions: list[int]) -> Tensor:
        return torch.stack([self._image(position) for position in positions])

    def _image(self, position: int) -> Tensor:
        # A seed for each image makes crops, and a data set's own random changes, the same in whatever process it is
        # read. Not torch.manual_seed: without workers that would seed CUDA too.
        mixed = np.random.SeedSequence((self.seed, position)).generate_state(1, np.uint64)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(mixed[0] >> np.uint64(1)))
            image = self.reader.read(int(self.numbers[position]))
            return self._crop(image) if self.crop else resized(image, self.shape[1:])

    def _crop(self, image: Tensor) -> Tensor:
        from torchvision.transforms import v2  # not above: most data are in memory, and need none of it

        return v2.RandomResizedCrop(list(self.shape[1:]), scale=CROP_SCALE, antialias=True)(image)


@dataclass(frozen=True)
class Pictures:
    """A data set whose images are read one by one.

    Attributes:
        reader: reads the images.
        y: (N,), class numbers.
        given: numbers of the images of each part that it comes with: "train", and perhaps "validation" and "test".
        classes: names of the classes.
        shape: (C, H, W) that all images are brought to.
        dtype: torch.uint8 or torch.float32.
        shift: see `nas.data.sets.Source`; of images of `shape`.
        flip: likewise.
    """

    reader: Reader
    y: np.ndarray
    given: Mapping[str, np.ndarray]
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    dtype: torch.dtype
    shift: int
    flip: bool

    @property
    def gigabytes(self) -> float:
        """What all images take in memory, GB."""
        return len(self.y) * int(np.prod(self.shape)) * self.dtype.itemsize / 1e9

    def part(self, numbers: Sequence[int] | np.ndarray, workers: int | None) -> StreamedImages:
        """Some of the images."""
        chosen = np.asarray(numbers, dtype=np.int64)
        labels = torch.from_numpy(self.y[chosen])
        return StreamedImages(self.reader, chosen, labels, self.shape, self.dtype, workers)

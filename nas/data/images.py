"""Images in memory, and what they have in common with those that are read from disk: order, choice and resizing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = 1000  # images that are resized at a time
# Values and images of a batch that is only looked at, not learned from, by device type. A wide network at full
# resolution makes a hundred times as many numbers of them, and some runtimes hold all of these at once.
MOST_VALUES, MOST_IMAGES = {"cpu": 2**17, "cuda": 2**24}, {"cpu": 250, "cuda": 4000}


@dataclass(frozen=True)
class Images:
    """Images with labels, in memory.

    Attributes:
        x: (N, C, H, W), uint8 or float32, in the units that they came in.
        y: (N,), class numbers, on the same device.
    """

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, channels, height, width = self.x.shape
        return channels, height, width

    @property
    def dtype(self) -> torch.dtype:
        """torch.uint8 or torch.float32."""
        return self.x.dtype

    def to(self, device: str) -> Images:
        """The same on another device."""
        return Images(self.x.to(device), self.y.to(device))

    def batches(self, batch_size: int) -> Iterator[Images]:
        """All images in their order; the last batch may be smaller."""
        for x, y in zip(self.x.split(batch_size), self.y.split(batch_size), strict=True):
            yield Images(x, y)

    def shuffled(self, batch_size: int, seed: int, augment: bool) -> Iterator[Images]:
        """An epoch in an order that `seed` decides; see `shuffled_batches`.

        `augment` changes nothing: images in memory are augmented batch by batch on their device.
        """
        for batch in shuffled_batches(len(self), batch_size, seed, self.y.device):
            yield Images(self.x.index_select(0, batch), self.y.index_select(0, batch))

    def spread(self, count: int) -> Tensor:
        """At most `count` images (n, C, H, W), evenly from all over: they may be in the order of their classes."""
        return self.x.index_select(0, spread_over(len(self), count).to(self.x.device))


def shuffled_batches(images: int, batch_size: int, seed: int, device: torch.device) -> list[Tensor]:
    """Numbers of the images of each batch of an epoch, on `device`, whose random generator decides their order.

    Batches are full, as BatchNorm needs them, and the rest is left out; where there are fewer images than
    `batch_size`, all of them are one batch.
    """
    order = torch.randperm(images, generator=torch.Generator(device).manual_seed(seed), device=device)
    size = min(batch_size, images)
    return list(order.split(size)[: images // size])


def fitting_batch_size(shape: tuple[int, int, int], device: torch.device) -> int:
    """Images (C, H, W) that go through a network at a time: they keep a device busy and do not fill its memory."""
    return min(max(1, MOST_VALUES[device.type] // math.prod(shape)), MOST_IMAGES[device.type])


def spread_over(images: int, count: int) -> Tensor:
    """Numbers of at most `count` images, rising, evenly spaced from the first on."""
    count = min(images, count)
    return torch.arange(count) * images // count


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (..., C, H, W), uint8 or float32, brought to `size` (height, width).

    Bilinear, antialiased; the ratio of the sides is not kept.
    """
    if tuple(x.shape[-2:]) == size:
        return x
    from torchvision.transforms.v2 import functional  # takes a second, and is seldom needed

    if x.ndim == 3:
        return functional.resize(x, list(size), antialias=True)
    return torch.cat([functional.resize(part, list(size), antialias=True) for part in x.split(CHUNK)])

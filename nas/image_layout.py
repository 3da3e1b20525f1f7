"""How arrays that a person gives are read as images. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

MOST_COLOURS = 4  # channels of images whose channels come last: grey, RGB, RGBA


@dataclass(frozen=True)
class ImageLayout:
    """What one item of an array is, and which image that makes.

    Attributes:
        given: shape of an item.
        shape: (C, H, W) of its image.
        channels_last: whether the item is (H, W, C).
    """

    given: tuple[int, ...]
    shape: tuple[int, int, int]
    channels_last: bool = False

    def check(self, array_shape: tuple[int, ...]) -> None:
        """Holds that an array is of such items.

        Raises:
            ValueError: it is not.
        """
        if array_shape[1:] != self.given:
            raise ValueError(f"X of shape {array_shape} is not allowed; allowed: {_items(self.given)}, as in fit")

    def images(self, x: np.ndarray) -> np.ndarray:
        """Images (N, C, H, W) of an array of such items; a view where that can be."""
        return x.transpose(0, 3, 1, 2) if self.channels_last else x.reshape(len(x), *self.shape)


def layout_of(array_shape: tuple[int, ...], image_shape: tuple[int, ...] | None) -> ImageLayout:
    """How an array of shape (N, ...) is read.

    Without `image_shape`, (N, H, W) are grey images, (N, H, W, C) images of up to four channels, and the features of
    (N, features) are the channels of images of one pixel: each is scaled by itself, and none is another's neighbour.
    With an `image_shape`, (H, W) or (C, H, W), the items are of that shape, or are it laid flat.

    Raises:
        ValueError: neither of these.
    """
    item = array_shape[1:]
    if image_shape is not None:
        return _asked(array_shape, image_shape)
    if len(item) == 1:
        return ImageLayout(item, (item[0], 1, 1))
    if len(item) == 2:
        return ImageLayout(item, (1, *item))
    if len(item) == 3 and item[2] <= MOST_COLOURS:
        return ImageLayout(item, (item[2], item[0], item[1]), channels_last=True)
    raise ValueError(
        f"X of shape {array_shape} is not allowed; allowed: (N, H, W), (N, H, W, C) with C up to {MOST_COLOURS}, "
        "(N, features), or with image_shape=(C, H, W) also (N, C, H, W)"
    )


def _asked(array_shape: tuple[int, ...], image_shape: tuple[int, ...]) -> ImageLayout:
    sides = tuple(image_shape) if isinstance(image_shape, tuple | list) else ()
    if len(sides) not in (2, 3) or not all(isinstance(side, int | np.integer) and side > 0 for side in sides):
        raise ValueError(f"image_shape={image_shape!r} is not allowed; allowed: (H, W) or (C, H, W), or None")
    channels, height, width = map(int, sides if len(sides) == 3 else (1, *sides))
    if len(sides) == 3 and width <= MOST_COLOURS < min(channels, height):
        raise ValueError(
            f"image_shape={image_shape} is not allowed: it looks like (H, W, C); allowed: (C, H, W), or None with X of "
            f"shape (N, {', '.join(map(str, sides))})"
        )
    flat = (math.prod(sides),)
    if array_shape[1:] not in (flat, sides):
        raise ValueError(
            f"X of shape {array_shape} is not allowed with image_shape={image_shape}; "
            f"allowed: {_items(flat)} or {_items(sides)}"
        )
    return ImageLayout(array_shape[1:], (channels, height, width))


def _items(shape: tuple[int, ...]) -> str:
    return f"(N, {', '.join(map(str, shape))})"

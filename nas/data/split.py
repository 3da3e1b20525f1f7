"""Splitting images in two, so that each class has its share of both."""

from __future__ import annotations

import numpy as np
from sklearn.model_selection import train_test_split

from nas.config import first_line


def check_classes(classes: tuple[str, ...], what: str) -> None:
    """Raises ValueError where there is only one class."""
    if len(classes) < 2:
        raise ValueError(f"{what}: there is only one class ({', '.join(classes)}); allowed: two or more")


def stratified(
    y: np.ndarray, classes: tuple[str, ...], share: float, seed: int, what: str
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the images that stay, and of the share that is held out, both rising.

    Each class has about its share in both, and at least one image.

    Args:
        y: (N,), class numbers.
        classes: their names.
        share: of the images that is held out.
        seed: decides which.
        what: what is split, for messages.

    Raises:
        ValueError: a class has fewer than two images, or a part would have fewer images than there are classes.
    """
    check_classes(classes, what)
    counts = np.bincount(y, minlength=len(classes)).tolist()
    if min(counts) < 2:
        least = counts.index(min(counts))
        raise ValueError(f"{what}: class {classes[least]!r} has too few images to split: {counts[least]}")
    try:
        parts = train_test_split(np.arange(len(y)), test_size=share, random_state=seed, stratify=y)
    except ValueError as error:
        raise ValueError(f"{what}: cannot be split: {first_line(error)}") from None
    # The share of a rare class may round to none, or to all.
    kept, held_out = (np.asarray(part) for part in parts)
    held_out, kept = _with_every_class(held_out, kept, y, len(classes))
    kept, held_out = _with_every_class(kept, held_out, y, len(classes))
    return np.sort(kept), np.sort(held_out)


def _with_every_class(
    part: np.ndarray, other: np.ndarray, y: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Both parts, after an image of each class that the first one lacks has moved there.

    The second one keeps an image of that class, which has two at least.
    """
    lacking = np.setdiff1d(np.arange(classes), y[part])
    moved = np.array([other[y[other] == label][0] for label in lacking], dtype=part.dtype)
    return np.concatenate([part, moved]), np.setdiff1d(other, moved)

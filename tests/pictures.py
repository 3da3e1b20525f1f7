"""Pictures that tests write, and torch datasets of them."""

from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.data import Dataset


def write_image(file: Path, array: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(file)


def noise(seed: int, *shape: int) -> np.ndarray:
    """Bytes at random, the same for the same seed."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_noise(root: Path, counts: dict[str, int], *shape: int, first: int = 0) -> Path:
    """A folder with so many pictures of each class, no two alike."""
    for name, count in counts.items():
        for _ in range(count):
            write_image(root / name / f"{first:04}.png", noise(first, *shape))
            first += 1
    return root


class Items(Dataset):
    """A torch dataset of given items; those that are exceptions are raised."""

    def __init__(self, items: list) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> object:
        item = self.items[index]
        if isinstance(item, Exception):
            raise item
        return item

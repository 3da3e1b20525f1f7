"""Finding a user's own pictures: a folder with one folder a class, or with such folders in train/, val/ and test/."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nas.config import DataConfig
from nas.data.files import PictureFiles, common_size, header
from nas.data.stream import Pictures
from nas.data.workers import read_batches

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
PART_FOLDERS = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
HEADERS_TOGETHER = 2000  # files whose headers a worker reads at a time


def scan_folder(path: Path, options: DataConfig) -> Pictures:
    """What pictures a folder holds; of each file the header is read, and no pixels.

    The folder has one folder of pictures a class, or folders `train`, `val` (or `valid`, `validation`) and `test` that
    have one each; `val` and `test` may be missing, or lack a class. Class folders may have folders of their own.
    Hidden files, and files of other suffixes, are passed over.

    All pictures are brought to `options.image_size` x `options.image_size`, or where that is not given to the most
    common size of all, no side of it longer than 224: bilinear, antialiased, the ratio of the sides not kept. They
    become grey where all are grey, else RGB.

    Raises:
        ValueError: no class folders, a class without training images, a class that is not in `train`, or a file that
            cannot be read.
    """
    where = f"data={path}"
    files, labels, given, classes = [], [], {}, None
    for part, folder in _parts(path, where).items():
        found = _class_files(folder)
        classes = _checked(found, classes, part, folder, where)
        first = len(files)
        for label, name in enumerate(classes):
            files += found.get(name, [])
            labels += [label] * len(found.get(name, []))
        given[part] = np.arange(first, len(files))
    assert classes is not None
    headers = torch.cat(
        [
            *read_batches(
                _Headers(tuple(files)),
                [each.tolist() for each in torch.arange(len(files)).split(HEADERS_TOGETHER)],
                options.workers,
            )
        ]
    )
    height, width = common_size(((h, w) for h, w, _ in headers.tolist()), options.image_size)
    mode = "L" if bool(headers[:, 2].all()) else "RGB"
    return Pictures(
        reader=PictureFiles(tuple(files), mode),
        y=np.array(labels, dtype=np.int64),
        given=given,
        classes=classes,
        shape=(len(mode), height, width),
        dtype=torch.uint8,
        shift=max(1, min(height, width) // 8),
        flip=False,
    )


@dataclass(frozen=True)
class _Headers:
    """Reads headers of files in a worker: (n, 3), height, width, and 1 where it is grey."""

    files: tuple[str, ...]

    def __call__(self, numbers: list[int]) -> Tensor:
        return torch.tensor([header(self.files[number]) for number in numbers], dtype=torch.int64)


def _parts(path: Path, where: str) -> dict[str, Path]:
    """The folders of class folders by part of the data, "train" first; of one level all is "train".

    A class may be called "train", too: it holds pictures, where a part holds folders only.
    """
    folders = _folders(path)
    if not folders:
        raise ValueError(
            f"{where}: has no folders; allowed: one folder of images a class, or train/ val/ test/ of those"
        )
    named = {folder: PART_FOLDERS[folder.name.lower()] for folder in folders if folder.name.lower() in PART_FOLDERS}
    named = {folder: part for folder, part in named.items() if _folders(folder) and not _pictures(folder, "*")}
    if not named:
        return {"train": path}
    others = [folder.name for folder in folders if folder not in named and _pictures(folder, "**/*")]
    if "train" not in named.values() or others:
        wrong = f"pictures in {others[0]}/ beside" if others else "no train/ beside"
        raise ValueError(f"{where}: {wrong} {next(iter(named)).name}/; allowed: folders train, val and test")
    parts = {part: folder for folder, part in sorted(named.items(), key=lambda each: each[1] != "train")}
    if len(parts) < len(named):
        names = ", ".join(f"{folder.name}/" for folder in named)
        raise ValueError(f"{where}: several folders of one part: {names}; allowed: one of val, valid, validation")
    return parts


def _checked(
    found: Mapping[str, list[str]], classes: tuple[str, ...] | None, part: str, folder: Path, where: str
) -> tuple[str, ...]:
    """The classes: those of the training pictures, which are found first (`classes` is None then)."""
    if classes is None:
        empty = next((name for name, files in found.items() if not files), None)
        if empty is not None:
            raise ValueError(f"{where}: class {empty!r} has no images ({', '.join(sorted(SUFFIXES))})")
        return tuple(found)
    unknown = next((name for name in found if name not in classes), None)
    if unknown is not None:
        raise ValueError(
            f"{where}: class {unknown!r} of {folder.name}/ is not in train/; allowed: {', '.join(classes)}"
        )
    if not any(found.values()):
        raise ValueError(f"{where}: {folder.name}/ has no images ({', '.join(sorted(SUFFIXES))})")
    return classes


def _class_files(folder: Path) -> dict[str, list[str]]:
    """Picture files by class."""
    return {child.name: [str(file) for file in _pictures(child, "**/*")] for child in _folders(folder)}


def _folders(path: Path) -> list[Path]:
    return sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))


def _pictures(folder: Path, pattern: str) -> list[Path]:
    return sorted(f for f in folder.glob(pattern) if f.suffix.lower() in SUFFIXES and not f.name.startswith("."))

"""Reading a user's own images: a folder with one folder a class, or an `.npz` file."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from nas.config import first_line

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
LARGEST_SIDE = 224
MOST_BYTES = 4 * 2**30


@dataclass(frozen=True)
class RawImages:
    """Images that have not been split: x (N, C, H, W) uint8 or float32, y (N,) class numbers."""

    x: np.ndarray
    y: np.ndarray
    classes: tuple[str, ...]


def read_npz(path: Path) -> RawImages:
    """The images of an `.npz` with `x` (N, H, W[, C]) and `y` (N,).

    Whole numbers that fit into a byte stay bytes; everything else becomes float32. Labels may be any
    numbers or words.

    Raises:
        ValueError: the file, its names, shapes or values are not these.
    """
    where = f"data={path}"
    try:
        with np.load(path, allow_pickle=False) as file:
            x, y = file["x"], file["y"]
    except KeyError as error:
        raise ValueError(f"{where}: {error.args[0]}; allowed: arrays named x and y") from None
    except Exception as error:  # a damaged archive raises whatever its parts raise: zlib, zipfile, numpy
        raise ValueError(f"{where}: cannot be read as .npz: {first_line(error)}") from None
    if x.ndim not in (3, 4) or 0 in x.shape or (x.ndim == 4 and x.shape[3] > 64):
        raise ValueError(f"{where}: x of shape {x.shape} is not allowed; allowed: (N, H, W) or (N, H, W, C)")
    if y.shape != (len(x),):
        raise ValueError(f"{where}: y of shape {y.shape} is not allowed; allowed: ({len(x)},), one label an image")
    if x.dtype.kind not in "buif" or y.dtype.kind not in "buifUS":
        raise ValueError(f"{where}: x is {x.dtype}, y is {y.dtype}; allowed: numbers (y: or words)")
    names, labels = np.unique(y, return_inverse=True)
    byte = x.dtype.kind in "bui" and x.min() >= 0 and x.max() <= 255
    with np.errstate(over="ignore"):
        x = x.astype(np.uint8 if byte else np.float32)
    if not np.isfinite(x).all() or (y.dtype.kind == "f" and not np.isfinite(y).all()):
        raise ValueError(f"{where}: NaN, infinite or larger than float32 values are not allowed")
    x = x[:, None] if x.ndim == 3 else x.transpose(0, 3, 1, 2)
    return RawImages(np.ascontiguousarray(x), labels.astype(np.int64), tuple(str(name) for name in names.tolist()))


def read_folder(path: Path) -> RawImages:
    """The images of a folder with one folder a class.

    All are brought to one size: the most common one, or 224x224 where its shorter side is larger. They
    become grey where all are grey, else RGB.

    Raises:
        ValueError: no class folders, a class without images, or an image that cannot be read.
    """
    where = f"data={path}"
    folders = sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))
    if not folders:
        raise ValueError(f"{where}: has no folders; allowed: one folder of images a class")
    files = [(file, label) for label, folder in enumerate(folders) for file in _image_files(folder)]
    labels = np.array([label for _, label in files], dtype=np.int64)
    for label, folder in enumerate(folders):
        if not (labels == label).any():
            raise ValueError(f"{where}: class {folder.name!r} has no images ({', '.join(sorted(SUFFIXES))})")
    headers = [_header(file) for file, _ in files]
    (width, height), _ = Counter(size for size, _ in headers).most_common(1)[0]
    if min(width, height) > LARGEST_SIDE:
        width = height = LARGEST_SIDE
    mode = "L" if all(grey for _, grey in headers) else "RGB"
    channels = len(mode)
    if len(files) * channels * height * width > MOST_BYTES:
        raise ValueError(f"{where}: {len(files)} images of {width}x{height} take over {MOST_BYTES >> 30} GiB of memory")
    x = np.empty((len(files), channels, height, width), dtype=np.uint8)
    for i, (file, _) in enumerate(files):
        x[i] = _pixels(file, mode, (width, height))
    return RawImages(x, labels, tuple(folder.name for folder in folders))


def _image_files(folder: Path) -> list[Path]:
    return sorted(f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES and not f.name.startswith("."))


def _header(file: Path) -> tuple[tuple[int, int], bool]:
    """((width, height), is it grey) of an image file."""
    try:
        with Image.open(file) as image:
            if image.mode == "F":
                raise ValueError("floating-point pixels have no known range; allowed: 8 or 16 bits")
            return image.size, image.mode in ("1", "L", "LA") or image.mode.startswith("I")
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"data: image {file} cannot be read: {error}") from None


def _pixels(file: Path, mode: str, size: tuple[int, int]) -> np.ndarray:
    """(C, H, W) bytes of an image file."""
    try:
        with Image.open(file) as image:
            if image.mode.startswith("I"):  # 16-bit grey: Pillow would clip it to a byte
                image = Image.fromarray((np.asarray(image) / 257).astype(np.uint8))
            image = image.convert(mode)
            if image.size != size:
                image = image.resize(size, Image.Resampling.BILINEAR)
            array = np.asarray(image)
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"data: image {file} cannot be read: {error}") from None
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)

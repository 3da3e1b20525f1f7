"""Reading a user's own files: an `.npz`, or pictures one by one."""

from __future__ import annotations

import os
import zipfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nas.config import first_line

LARGEST_SIDE = 224  # of images whose size nobody asked for

# Of what is in a picture file: others are read by programs of their own (EPS by Ghostscript).
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")


@dataclass(frozen=True)
class RawImages:
    """Images that have not been split: x (N, C, H, W) uint8 or float32, y (N,) class numbers.

    `untested` where no test images are to be split off.
    """

    x: np.ndarray
    y: np.ndarray
    classes: tuple[str, ...]
    untested: bool = False


def read_npz(path: Path) -> RawImages:
    """The images of an `.npz` with `x` (N, H, W[, C]) and `y` (N,).

    Whole numbers that fit into a byte stay bytes; everything else becomes float32. Labels may be any
    numbers or words. Images of one pixel, which are vectors, may have any number of channels. An array `untested` that
    says true (any shape, one value) keeps all images for training and validation.

    Raises:
        ValueError: the file, its names, shapes or values are not these.
    """
    where = f"data={path}"
    try:
        _check_fits(path)
        with np.load(path, allow_pickle=False) as file:
            x, y = file["x"], file["y"]
            untested = "untested" in file and bool(np.all(file["untested"]))
    except KeyError as error:
        raise ValueError(f"{where}: {error.args[0]}; allowed: arrays named x and y") from None
    except Exception as error:  # a damaged archive raises whatever its parts raise: zlib, zipfile, numpy
        raise ValueError(f"{where}: cannot be read as .npz: {first_line(error)}") from None
    if x.ndim not in (3, 4) or 0 in x.shape or (x.ndim == 4 and x.shape[3] > 64 and x.shape[1:3] != (1, 1)):
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
    classes = tuple(str(name) for name in names.tolist())
    return RawImages(np.ascontiguousarray(x), labels.astype(np.int64), classes, untested)


def _check_fits(path: Path) -> None:
    """Holds that an archive's arrays fit into memory, since a few bytes can be unpacked to very many.

    Raises:
        ValueError: they do not.
    """
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(each.file_size for each in archive.infolist())
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if unpacked > there:
        raise ValueError(f"its arrays take {unpacked / 1e9:,.1f} GB, and this machine has {there / 1e9:,.1f} GB")


@dataclass(frozen=True)
class PictureFiles:
    """Reads picture files, one by one.

    Attributes:
        files: their paths.
        mode: "L" or "RGB", which all are turned into.
    """

    files: tuple[str, ...]
    mode: str

    def read(self, number: int) -> Tensor:
        """A picture (C, H, W), uint8, in its own size.

        Raises:
            ValueError: the file cannot be read.
        """
        try:
            with Image.open(self.files[number], formats=FORMATS) as image:
                return pixels(image, self.mode)
        except Exception as error:  # what a damaged file raises is whatever its format's decoder stumbles over
            raise _unreadable(self.files[number], error) from None


def header(file: str) -> tuple[int, int, bool]:
    """(Height, width, is it grey) of a picture file, whose pixels are not read.

    Raises:
        ValueError: the file cannot be read, or its pixels have no known range.
    """
    try:
        with Image.open(file, formats=FORMATS) as image:
            return image.height, image.width, is_grey(image)
    except Exception as error:  # see PictureFiles.read
        raise _unreadable(file, error) from None


def is_grey(image: Image.Image) -> bool:
    """Whether a picture has no colours.

    Raises:
        ValueError: its pixels are floats.
    """
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range; allowed: 8 or 16 bits")
    return image.mode in ("1", "L", "LA") or image.mode.startswith("I")


def pixels(image: Image.Image, mode: str) -> Tensor:
    """(C, H, W) bytes of a picture, turned into mode "L" or "RGB"."""
    if image.mode.startswith("I"):  # 16-bit grey: Pillow would clip it to a byte
        image = Image.fromarray((np.asarray(image) / 257).astype(np.uint8))
    array = torch.from_numpy(np.array(image.convert(mode)))
    return array[None] if array.ndim == 2 else array.permute(2, 0, 1).contiguous()


def common_size(sizes: Iterable[tuple[int, int]], image_size: int | None) -> tuple[int, int]:
    """Height and width that pictures of several sizes are brought to.

    `image_size` both, where it is given; else the most common size (of several the first), no side of it longer than
    224 pixels.
    """
    if image_size is not None:
        return image_size, image_size
    (height, width), _ = Counter(sizes).most_common(1)[0]
    return min(height, LARGEST_SIDE), min(width, LARGEST_SIDE)


def _unreadable(file: str, error: Exception) -> ValueError:
    return ValueError(f"data: image {file} cannot be read: {first_line(error)}")

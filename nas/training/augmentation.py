"""Changing training images at random, a batch at a time, on the device that trains.

All of it draws from the generator that it is given, or (torchvision's RandAugment) from torch's global one, which the
training seeds anew for every epoch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms import v2

from nas.data import Augmentation
from nas.recipes import TrainConfig

RANDAUGMENT_GROUP = 8  # images that share RandAugment's draw of operations: torchvision draws once a call


def augment(x: Tensor, recipe: TrainConfig, suits: Augmentation, generator: torch.Generator) -> Tensor:
    """Images (N, C, H, W), uint8 or float32, changed as the recipe says; the argument stays as it was.

    Args:
        x: images in the units that they came in.
        recipe: how.
        suits: what suits the data, where the recipe leaves it open.
        generator: on the images' device.
    """
    moves = movement(recipe, suits)
    x = shifted(x, moves.shift, moves.flip, generator)
    if recipe.randaugment:
        x = randaugmented(x, recipe.randaugment)
    return cut_out(x, recipe.cutout, generator) if recipe.cutout else x


def movement(recipe: TrainConfig, suits: Augmentation) -> Augmentation:
    """How images are moved: as the recipe says, else as suits the data."""
    return Augmentation(
        shift=suits.shift if recipe.shift is None else recipe.shift,
        flip=suits.flip if recipe.flip is None else recipe.flip,
    )


def shifted(x: Tensor, shift: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Each image shifted by up to `shift` pixels, its edges reflected, and mirrored or not."""
    n, channels, height, width = x.shape
    rows = _places(n, height, shift, generator)
    columns = _places(n, width, shift, generator)
    if flip:
        mirrored = torch.rand(n, 1, generator=generator, device=x.device) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    if shift:
        x = x.gather(2, rows[:, None, :, None].expand(n, channels, height, width))
    return x.gather(3, columns[:, None, None, :].expand(n, channels, height, width)) if shift or flip else x


def _places(n: int, side: int, shift: int, generator: torch.Generator) -> Tensor:
    """For each of `n` images (N, side), from where its rows are taken; beyond the edges from their reflection."""
    shift = min(shift, side - 1)
    places = torch.arange(side, device=generator.device).expand(n, side)
    if shift:
        places = places + torch.randint(-shift, shift + 1, (n, 1), generator=generator, device=generator.device)
        places = places.abs()
        places = torch.where(places > side - 1, 2 * (side - 1) - places, places)
    return places


def cut_out(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Each image with a square blanked whose side is `share` of the image's (arXiv:1708.04552), around any pixel.

    What is blanked becomes the batch's mean by channel.
    """
    n, _, height, width = x.shape
    inside = _near(n, height, share, generator)[:, None, :, None] & _near(n, width, share, generator)[:, None, None, :]
    return torch.where(inside, x.float().mean((0, 2, 3), keepdim=True).to(x.dtype), x)


def _near(n: int, side: int, share: float, generator: torch.Generator) -> Tensor:
    """(N, side): which places are within half a square of a random centre."""
    centre = torch.randint(0, side, (n, 1), generator=generator, device=generator.device)
    # A quarter: squares of an even side have no pixel in their middle.
    distance = (torch.arange(side, device=generator.device) - centre + 0.25).abs()
    return distance < share * side / 2


def randaugmented(x: Tensor, magnitude: int) -> Tensor:
    """RandAugment (arXiv:1909.13719) of grey or RGB images of bytes, as torchvision has it.

    Some of its operations count on values from 0 to 255. Images that do not use them all, such as digits from 0 to 16,
    are stretched for it, and brought back.
    """
    transform = v2.RandAugment(num_ops=2, magnitude=magnitude, fill=None)
    stretch = 255 / x.amax().clamp(min=1)
    stretched = (x * stretch).round().to(torch.uint8)
    changed = torch.cat([transform(group) for group in stretched.split(RANDAUGMENT_GROUP)])
    return (changed / stretch).round().to(torch.uint8)


def mixed(x: Tensor, alpha: float, generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """Mixup (arXiv:1710.09412): float images blended with others of the batch.

    Returns:
        The images, each one's partner as (N,) places in the batch, and the share that each keeps of itself.
    """
    share = float(torch.distributions.Beta(alpha, alpha).sample())  # takes no generator
    partner = torch.randperm(len(x), generator=generator, device=x.device)
    return share * x + (1 - share) * x[partner], partner, share

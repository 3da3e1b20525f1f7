"""A problem that tiny networks learn in moments: stripes across, stripes down, a chequerboard."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from nas.architecture import architecture_from_dict
from nas.blocks import Reduce
from nas.config import LatencyConfig
from nas.data import Augmentation, ImageData, Images
from nas.job import Job
from nas.networks.builder import build
from nas.recipes import TrainConfig, TrainOverrides
from nas.training.loop import Epoch, Training

TINY = architecture_from_dict(
    {
        "schema": 1,
        "stem": [{"block": "conv", "out_channels": 8}],
        "stages": [[{"block": "reduce", "out_channels": 8, "bottleneck_width": 2.0}]],
        "head": [{"block": "classifier"}],
    }
)
# Residual branches that can be skipped, and an activation that fades.
DEEP = architecture_from_dict(
    {
        "schema": 1,
        "stem": [{"block": "conv", "out_channels": 4}],
        "stages": [
            [{"block": "basic", "out_channels": 4}, {"block": "reduce", "out_channels": 4}],
            [{"block": "basic", "out_channels": 4}],
        ],
        "head": [{"block": "classifier"}],
    }
)


def stripes(n: int, seed: int) -> Images:
    """Noisy images of three classes: stripes across, stripes down, a chequerboard."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 3
    rows, columns = torch.arange(8)[:, None] // 2, torch.arange(8)[None, :] // 2
    across, down = (rows % 2).expand(8, 8).float(), (columns % 2).expand(8, 8).float()
    patterns = torch.stack([across, down, ((rows + columns) % 2).float()])
    x = patterns[y][:, None] + 0.3 * torch.randn(n, 1, 8, 8, generator=generator)
    return Images(x, y)


def stripe_data(n: int = 96, augmentation: Augmentation = Augmentation(0, False)) -> ImageData:  # noqa: B008
    """`n` of them to learn from."""
    return ImageData(
        name="stripes",
        train=stripes(n, 0),
        validation=stripes(99, 1),
        test=stripes(30, 2),
        classes=("across", "down", "chequers"),
        mean=(0.5,),
        std=(0.6,),
        augmentation=augmentation,
    )


def stripe_bytes(n: int = 96, augmentation: Augmentation = Augmentation(0, False)) -> ImageData:  # noqa: B008
    """The same as bytes."""
    data = stripe_data(n, augmentation)

    def of_bytes(images: Images) -> Images:
        return Images(((images.x + 1) * 85).clamp(0, 255).to(torch.uint8), images.y)

    parts = {name: of_bytes(getattr(data, name)) for name in ("train", "validation", "test")}
    return dataclasses.replace(data, **parts, mean=(127.5,), std=(51.0,))


def stripe_job(data: ImageData, seed: int = 0, **recipe: Any) -> Job:
    """A job on the CPU with what is given of the recipe."""
    return Job(data, TrainOverrides(**recipe), LatencyConfig(), (), "cpu", seed, "macs")


def network(seed: int = 0, fade_share: float = 0.7) -> nn.Module:
    """The train form of `TINY`."""
    torch.manual_seed(seed)
    blocks = [dataclasses.replace(b, fade_share=fade_share) if isinstance(b, Reduce) else b for b in TINY.stages[0]]
    return build(dataclasses.replace(TINY, stages=(tuple(blocks),)), num_classes=3, input_shape=(1, 8, 8), form="train")


def linear(seed: int = 0) -> nn.Module:
    """One layer from pixels to logits."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))


def never() -> None:
    """Between steps: nothing."""


def run(
    model: nn.Module, data: ImageData, config: TrainConfig, seed: int = 0, between: Callable[[], None] = never
) -> list[Epoch]:
    """All epochs of a training."""
    return list(Training(model, data, config, seed, between).epochs())


def equal_states(first: nn.Module, second: nn.Module) -> bool:
    """Whether two networks are equal bit by bit."""
    a, b = first.state_dict(), second.state_dict()
    assert a.keys() == b.keys()
    return all(torch.equal(a[key], b[key]) for key in a)

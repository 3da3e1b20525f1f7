"""Who is timed by `analysis.bench_train`: our loop, the tutorial's, and bare steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from nas.data import Augmentation, ImageData, Images
from nas.networks.builder import build
from nas.recipes import TrainConfig, TrainOverrides, make_recipe
from nas.trained import architecture_named
from nas.training.loop import WORTH_A_GRAPH, Training
from nas.training.optimizer import make_optimizer
from nas.training.precision import autocast, layout, training_dtype

CLASSES = 10
MEAN, STD = (127.5, 127.5, 127.5), (73.9, 73.9, 73.9)  # of uniformly random bytes


@dataclass(frozen=True)
class Settings:
    """What the command line may say.

    Attributes:
        networks: a small and a middle one; zoo/NAME, a space (its sample 0), or files.
        side: of the pictures, pixels.
        batch_size: pictures of a step.
        steps: of a round.
        rounds: of each contestant.
        workers: of the tutorial's DataLoader.
        concurrent: trainings at a time; [] for none.
        device: "cpu" or "cuda".
        precision: of `ours` and `bare`, as train.precision.
        out: CSV, a line for each round; must not exist.
    """

    networks: tuple[str, ...] = ("zoo/resnet20", "zoo/resnet56")
    side: int = 32
    batch_size: int = 128
    steps: int = 8
    rounds: int = 7
    workers: int = 2
    concurrent: tuple[int, ...] = (1, 2, 4, 8)
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    precision: str = "auto"
    out: str = "train.csv"


class Pictures(Dataset[tuple[Tensor, int]]):
    """Random pictures as torchvision's data sets hold them, with the tutorial's transforms."""

    def __init__(self, count: int, side: int) -> None:
        self._pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
        normalize = transforms.Normalize([each / 255 for each in MEAN], [each / 255 for each in STD])
        steps = [transforms.RandomCrop(side, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        self._transform = transforms.Compose([*steps, normalize])

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture = self._transform(Image.fromarray(self._pixels[index]))
        assert isinstance(picture, Tensor)
        return picture, index % CLASSES


def random_data(count: int, side: int, device: str) -> ImageData:
    """Random pictures as our loop has them."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
    images = Images(x, torch.arange(count) % CLASSES).to(device)
    classes = tuple(map(str, range(CLASSES)))
    return ImageData("random", images, images, images, classes, MEAN, STD, Augmentation(shift=4, flip=True))


def recipe_of(settings: Settings, epochs: int) -> TrainConfig:
    """The recipe of small pictures."""
    given = TrainOverrides(epochs=epochs, batch_size=settings.batch_size, precision=settings.precision)
    return make_recipe("small", {}, given)


def network_of(name: str, settings: Settings) -> nn.Module:
    """A fresh network on the device."""
    torch.manual_seed(0)
    network = build(architecture_named(name, 0), num_classes=CLASSES, input_shape=(3, settings.side, settings.side))
    return network.to(settings.device)


def ours(name: str, settings: Settings) -> Iterator[None]:
    """Our loop; each turn is an epoch of `steps` steps."""
    data = random_data(settings.steps * settings.batch_size, settings.side, settings.device)
    # More epochs than are trained: a trial that is short does not try CUDA graphs.
    recipe = recipe_of(settings, max(settings.rounds + 1, WORTH_A_GRAPH // settings.steps + 1))
    for _ in Training(network_of(name, settings), data, recipe, 0, lambda: None).epochs():
        yield


def tutorial(name: str, settings: Settings) -> Iterator[None]:
    """The tutorial's loop; each turn is an epoch of `steps` steps."""
    network = network_of(name, settings).train()
    loader = DataLoader(
        Pictures(settings.steps * settings.batch_size, settings.side),
        batch_size=settings.batch_size,
        shuffle=True,
        num_workers=settings.workers,
        persistent_workers=settings.workers > 0,
        pin_memory=settings.device == "cuda",
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.001)
    while True:
        running_loss = 0.0
        for inputs, labels in loader:
            x, y = inputs.to(settings.device), labels.to(settings.device)
            optimizer.zero_grad()
            loss = cross_entropy(network(x), y)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
        yield


def bare(name: str, settings: Settings) -> Iterator[None]:
    """The limit: steps on one batch that lies ready."""
    recipe = recipe_of(settings, 1)
    network = network_of(name, settings).train()
    network = network.to(memory_format=layout(recipe))  # pyright: ignore[reportCallIssue]  # torch's overload
    data = random_data(settings.batch_size, settings.side, settings.device)
    x, y = data.normalize(data.train.spread(settings.batch_size)).contiguous(memory_format=layout(recipe)), data.train.y
    optimizer, dtype = make_optimizer(network, recipe), training_dtype(recipe.precision, settings.device, network)
    while True:
        for _ in range(settings.steps):
            with autocast(settings.device, dtype):
                loss = cross_entropy(network(x).float(), y, label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        yield


CONTESTANTS: dict[str, Callable[[str, Settings], Iterator[None]]] = {"ours": ours, "tutorial": tutorial, "bare": bare}

"""How fast networks are trained here: our loop, a plain PyTorch loop, and what no loop can beat, in turn.

    python -m analysis.bench_train out=train.csv

`ours` is `nas.training` as trials run it: shuffling, augmentation, schedule and all. `tutorial` is the loop of
PyTorch's own tutorials: a Dataset of pictures, torchvision's transforms (crop with padding, flip, to tensor,
normalize), a DataLoader with workers and pinned memory, float32, the loss read in every step; its workers are kept
from epoch to epoch, which is kinder to it. `bare` is forward, backward and step on one normalized batch that never
changes, without augmentation, in the precision and layout of `ours`: the limit. The three take turns, one round each,
each in its own process, and ratios are medians of the rounds' ratios. Pictures are random: speed does not depend on them.

Then 1, 2, 4 and 8 trainings at a time, each in a process of its own with its share of the cores or of the GPU's memory:
images a second of all together.
"""

from __future__ import annotations

import csv
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, fields
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from analysis.settings import from_words
from nas.config import first_line
from nas.data import Augmentation, ImageData, Images
from nas.networks.builder import build
from nas.recipes import TrainConfig, TrainOverrides, make_recipe
from nas.trained import architecture_named
from nas.training.allocator import keep_freed_memory
from nas.training.loop import Training
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

    networks: tuple[str, ...] = ("zoo/resnet20", "zoo/mobilenet_v2")
    side: int = 32
    batch_size: int = 128
    steps: int = 8
    rounds: int = 7
    workers: int = 2
    concurrent: tuple[int, ...] = (1, 2, 4, 8)
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    precision: str = "auto"
    out: str = "train.csv"


@dataclass(frozen=True)
class Row:
    """One round of one contestant; `concurrent` trainings at a time."""

    network: str
    contestant: str
    concurrent: int
    round: int
    images_per_s: float


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
    recipe = recipe_of(settings, settings.rounds + 1)
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


def in_turn(name: str, settings: Settings) -> Iterator[Row]:
    """The contestants round by round, each in a process of its own: the allocator of `ours` must not help others."""
    running = {contestant: Started(_take_turns, contestant, name, settings) for contestant in CONTESTANTS}
    for each in running.values():
        each.pipe.recv()  # its first turn, which does not count
    for number in range(settings.rounds):
        for contestant, each in running.items():
            each.pipe.send("go")
            yield Row(name, contestant, 1, number, settings.steps * settings.batch_size / each.pipe.recv())
    for each in running.values():
        each.process.terminate()


class Started:
    """A process with a pipe to it."""

    def __init__(self, target: Callable[..., None], *args: object) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=target, args=(*args, theirs))
        self.process.start()


def _take_turns(contestant: str, name: str, settings: Settings, pipe: Connection) -> None:
    """One contestant: takes a turn whenever it is told to, and says how many seconds it took."""
    if contestant != "tutorial":
        keep_freed_memory()
    turn = CONTESTANTS[contestant](name, settings)
    while True:
        pipe.send(_timed(lambda: next(turn), settings.device))
        pipe.recv()


def together(name: str, count: int, settings: Settings) -> Row:
    """So many trainings at a time, each in its process: images a second of all of them."""
    trainings = [Started(_train, name, count, settings) for _ in range(count)]
    for each in trainings:
        each.pipe.recv()  # it is warm
    for each in trainings:
        each.pipe.send("go")
    rates = [each.pipe.recv() for each in trainings]
    for each in trainings:
        each.process.join()
    return Row(name, "ours", count, 0, sum(rates))


def _train(name: str, count: int, settings: Settings, pipe: Connection) -> None:
    """One of several trainings: says when it is warm, and its images a second from then on."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // count))
    keep_freed_memory()
    if settings.device == "cuda":
        torch.cuda.set_per_process_memory_fraction(1 / count)
    turn = ours(name, settings)
    next(turn)
    pipe.send("warm")
    pipe.recv()
    rounds = settings.rounds
    seconds = _timed(lambda: [next(turn) for _ in range(rounds)], settings.device)
    pipe.send(rounds * settings.steps * settings.batch_size / seconds)


def _timed(act: Callable[[], object], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    act()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def report(rows: list[Row]) -> list[str]:
    """Lines for people: medians, and medians of the rounds' ratios."""
    lines = []
    for name in dict.fromkeys(row.network for row in rows):
        rates = {
            each: [row.images_per_s for row in rows if (row.network, row.contestant, row.concurrent) == (name, each, 1)]
            for each in CONTESTANTS
        }
        medians = ", ".join(f"{each} {statistics.median(found):,.0f}" for each, found in rates.items())
        lines.append(f"{name}: images/s {medians}")
        for other in ("bare", "tutorial"):
            ratios = [a / b for a, b in zip(rates["ours"], rates[other], strict=True)]
            low, high = min(ratios), max(ratios)
            lines.append(f"    ours / {other}: {statistics.median(ratios):.2f}  ({low:.2f} to {high:.2f})")
    return lines


def main() -> int:
    """Runs the benchmark of the command line and prints its ratios; 2 for bad input."""
    try:
        settings = from_words(sys.argv[1:], Settings)
        for name in settings.networks:
            network_of(name, settings)
        Path(settings.out).touch(exist_ok=False)
    except (ValueError, OSError) as error:
        print(f"analysis.bench_train: {first_line(error)}", file=sys.stderr)
        return 2
    rows: list[Row] = []
    with Path(settings.out).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([field.name for field in fields(Row)])
        for name in settings.networks:
            for row in in_turn(name, settings):
                rows.append(row)
                writer.writerow(astuple(row))
                file.flush()
        print("\n".join(report(rows)), flush=True)
        for name in settings.networks:
            alone = None
            for count in settings.concurrent:
                row = together(name, count, settings)
                writer.writerow(astuple(row))
                alone = alone or row.images_per_s
                rate = f"{row.images_per_s:,.0f} images/s together, {row.images_per_s / alone:.2f} of the first"
                print(f"{name}, {count} at a time: {rate}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What train-time structure buys: one deployed network of 3x3 convolutions, trained in several forms.

    python -m analysis.bench_train_forms data=cifar10 data_root=DIR seeds=3 out=forms.csv

Every form but the last has the same deploy form, hence the same latency; the last keeps its activations in the
wide middle and cannot be folded: it is the ceiling that better training of the others might reach. `linear` rows
have no surviving activation at all; ridge regression on the pixels is their yardstick. Accuracy is that of the
fused network on the test set (of the train form where nothing can be fused), once, after the last epoch: nothing
is selected. Forms are interleaved: each seed trains all of them, on the same images.
"""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pandas as pd
import torch
from omegaconf import OmegaConf
from sklearn.linear_model import RidgeClassifier
from torch.nn.functional import avg_pool2d

from nas.architecture import Architecture
from nas.blocks import Block, Classifier, Conv, Reduce
from nas.config import TrainConfig
from nas.cost import count
from nas.data import ImageData, Images, load_data
from nas.networks.builder import build
from nas.networks.fading import FadingActivation
from nas.networks.fusing import fuse
from nas.training import evaluate, train

NEVER = math.inf  # a fading activation with this share keeps lam 1


@dataclass(frozen=True)
class Settings:
    """What the command line may say.

    Attributes:
        data: data set by name.
        data_root: where its files are.
        images: training images, the first of each seed's shuffle.
        shrink: average pooling of the images by this factor.
        epochs: of each training.
        seeds: trainings of each form.
        forms: names of forms; all by default.
        out: CSV that each training is appended to.
    """

    data: str = "cifar10"
    data_root: str = "data"
    images: int = 10_000
    shrink: int = 2
    epochs: int = 6
    seeds: int = 3
    forms: tuple[str, ...] = ("plain", "linear_x4", "fading_x4", "repvgg", "no_survivor_x4", "ridge", "kept_x4")
    out: str = "forms.csv"


@dataclass(frozen=True)
class Row:
    """One training."""

    form: str
    seed: int
    test_accuracy: float
    deploy_params: int
    deploy_macs: int
    train_macs: int
    train_s: float


def architecture(form: str) -> Architecture:
    """The network of a form: a stem, then two 3x3 convolutions at each of 16, 32 and 64 channels.

    Raises:
        ValueError: an unknown form.
    """

    def block(channels: int, stride: int) -> Block:
        wide = Reduce(out_channels=channels, stride=stride, bottleneck_width=4)
        known: dict[str, Block] = {
            "plain": Conv(out_channels=channels, stride=stride),
            "repvgg": Conv(out_channels=channels, stride=stride, branches="repvgg"),
            "linear_x4": replace(wide, fading_activation="none"),
            "fading_x4": wide,
            "kept_x4": wide,
            "no_survivor_x4": replace(wide, activation="none"),
        }
        if form not in known:
            raise ValueError(f"forms: {form!r} is unknown; known: {', '.join(known)}, ridge")
        return known[form]

    stages = [(block(16, 1), block(16, 1)), (block(32, 2), block(32, 1)), (block(64, 2), block(64, 1))]
    stem = Conv(out_channels=16, activation="none" if form == "no_survivor_x4" else "relu")
    return Architecture(stem=(stem,), stages=tuple(stages), head=(Classifier(),))


def trained(form: str, data: ImageData, epochs: int, seed: int) -> Row:
    """Trains one form with one seed and evaluates it."""
    arch, shape = architecture(form), data.input_shape
    torch.manual_seed(seed)
    network = build(arch, num_classes=data.num_classes, input_shape=shape)
    if form == "kept_x4":
        for module in network.modules():
            if isinstance(module, FadingActivation):
                module.fade_share = NEVER
    start = time.perf_counter()
    for _ in train(network, data, TrainConfig(epochs=epochs), seed, lambda: None):
        pass
    seconds = time.perf_counter() - start
    shipped = network if form == "kept_x4" else fuse(network)
    params, macs = count(shipped, shape)
    return Row(form, seed, evaluate(shipped, data, data.test), params, macs, count(network, shape)[1], seconds)


def ridge(data: ImageData, seed: int) -> Row:
    """Ridge regression on the normalized pixels: what a linear map of the image can do."""
    start = time.perf_counter()
    train_x, test_x = (data.normalize(images.x).flatten(1).numpy() for images in (data.train, data.test))
    fitted = RidgeClassifier(alpha=train_x.shape[1]).fit(train_x, data.train.y.numpy())
    accuracy = float(fitted.score(test_x, data.test.y.numpy()))
    size = train_x.shape[1] * data.num_classes
    return Row("ridge", seed, accuracy, size + data.num_classes, size, size, time.perf_counter() - start)


def shrunk(data: ImageData, images: int, factor: int, seed: int) -> ImageData:
    """The data with smaller and fewer training images."""

    def pooled(given: Images) -> Images:
        return Images(avg_pool2d(given.x.float(), factor) if factor > 1 else given.x, given.y)

    order = torch.randperm(len(data.train.y), generator=torch.Generator().manual_seed(seed))[:images]
    part = Images(data.train.x[order], data.train.y[order])
    augmentation = replace(data.augmentation, shift=data.augmentation.shift // factor)
    return replace(data, train=pooled(part), test=pooled(data.test), augmentation=augmentation)


def rows(settings: Settings) -> Iterator[Row]:
    """Every training, seed by seed."""
    for seed in range(settings.seeds):
        data = load_data(settings.data, settings.data_root, 0.1, seed)
        data = shrunk(data, settings.images, settings.shrink, seed)
        for form in settings.forms:
            yield ridge(data, seed) if form == "ridge" else trained(form, data, settings.epochs, seed)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation of accuracy by form, with costs."""
    grouped = table.groupby("form", sort=False)
    accuracy = grouped.test_accuracy.agg(["mean", "std", "count"]).mul([100, 100, 1])
    costs = grouped[["deploy_params", "deploy_macs", "train_macs", "train_s"]].median()
    return accuracy.join(costs).round(2)


def main() -> None:
    """Runs the benchmark of the command line and prints its table."""
    merged = OmegaConf.merge(OmegaConf.structured(Settings), OmegaConf.from_cli())
    given = OmegaConf.to_object(merged)
    assert isinstance(given, Settings)
    out = Path(given.out)
    done: list[Row] = []
    with out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([field.name for field in fields(Row)])
        for row in rows(given):
            done.append(row)
            writer.writerow([getattr(row, field.name) for field in fields(Row)])
            file.flush()
            print(f"{row.form:16} seed {row.seed}  {100 * row.test_accuracy:6.2f} %  {row.train_s:6.0f} s", flush=True)
    print(summary(pd.DataFrame(done)).to_string())


if __name__ == "__main__":
    main()

"""What train-time structure buys: one deployed network of 3x3 convolutions, trained in several forms.

    python -m analysis.bench_train_forms data=cifar10 data_root=DIR seeds=3 out=forms.csv
    python -m analysis.bench_train_forms network=zoo/reducenet_20 shrink=1 images=45000 epochs=100 \
        "forms=[kept_x4,plain,fading_x4,plain_distilled,fading_x4_distilled]"

`plain`, `linear_x4`, `fading_x4` and `repvgg` have the same deploy form, hence the same latency. `kept_x4` keeps its
activations in the wide middle and cannot be folded: the ceiling that better training of the others might reach.
`..._distilled` learn from the `kept_x4` of their seed and learning rate, which has to come before them.
`no_survivor_x4` has no activation left at all; ridge regression on the pixels is its yardstick. Each form is trained
at several learning rates, and that of the best mean validation accuracy is reported, with its test accuracy: that of
the fused network (of the train form where nothing can be fused) after the last epoch. Forms are interleaved: each
seed trains all of them, on the same images.
"""

from __future__ import annotations

import csv
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pandas as pd
import torch
from sklearn.linear_model import RidgeClassifier
from torch import nn
from torch.nn.functional import avg_pool2d

from analysis.settings import from_words, new_file
from nas.architecture import Architecture
from nas.blocks import Block, Classifier, Conv, Reduce
from nas.config import first_line
from nas.cost import count
from nas.data import ImageData, Images, load_data
from nas.networks.builder import build
from nas.networks.fading import FadingActivation
from nas.networks.fusing import fuse
from nas.recipes import TrainConfig
from nas.space_file import load_architecture
from nas.training.evaluation import evaluate
from nas.training.loop import Training

DISTILLED = "_distilled"
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
        seeds: trainings of each form at each learning rate.
        batch_size: images of a step.
        learning_rates: peak learning rates.
        forms: names of forms; without distillation by default.
        network: of the zoo, with `reduce` blocks, instead of six of them in three stages.
        device: "cpu" or "cuda".
        out: CSV, a line for each training as it ends; must not exist.
    """

    data: str = "cifar10"
    data_root: str = "data"
    images: int = 10_000
    shrink: int = 2
    epochs: int = 6
    seeds: int = 3
    batch_size: int = 64
    learning_rates: tuple[float, ...] = (0.01, 0.003, 0.001)
    forms: tuple[str, ...] = ("plain", "linear_x4", "fading_x4", "repvgg", "no_survivor_x4", "ridge", "kept_x4")
    network: str = ""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    out: str = "forms.csv"


@dataclass(frozen=True)
class Row:
    """One training."""

    form: str
    learning_rate: float
    seed: int
    val_accuracy: float
    test_accuracy: float
    deploy_params: int
    deploy_macs: int
    train_macs: int
    train_s: float


def six_blocks() -> Architecture:
    """A stem, then two `reduce` blocks at each of 16, 32 and 64 channels."""

    def block(channels: int, stride: int) -> Block:
        return Reduce(out_channels=channels, stride=stride, bottleneck_width=4)

    stages = [(block(16, 1), block(16, 1)), (block(32, 2), block(32, 1)), (block(64, 2), block(64, 1))]
    return Architecture(stem=(Conv(out_channels=16),), stages=tuple(stages), head=(Classifier(),))


def architecture(form: str, network: str = "") -> Architecture:
    """The network of a form.

    Raises:
        ValueError: an unknown form or network, or a network without `reduce` blocks.
    """
    form = form.removesuffix(DISTILLED)

    def changed(block: Block) -> Block:
        if not isinstance(block, Reduce):
            linear = form == "no_survivor_x4" and isinstance(block, Conv)
            return replace(block, activation="none") if linear else block
        plain = Conv(out_channels=block.out_channels, stride=block.stride, activation=block.activation)
        known: dict[str, Block] = {
            "plain": plain,
            "repvgg": replace(plain, branches="repvgg"),
            "linear_x4": replace(block, fading_activation="none"),
            "fading_x4": block,
            "kept_x4": block,
            "no_survivor_x4": replace(block, activation="none"),
        }
        if form not in known:
            raise ValueError(f"forms: {form!r} is unknown; known: {', '.join(known)}, ridge; {DISTILLED} after a form")
        return known[form]

    base = load_architecture(network) if network else six_blocks()
    if not any(isinstance(block, Reduce) for block in base.blocks):
        raise ValueError(f"network={network} has no reduce blocks, so it has only one form")
    return base.with_blocks(changed)


def trained(
    form: str, data: ImageData, recipe: TrainConfig, seed: int, network: str = "", teacher: nn.Module | None = None
) -> tuple[Row, nn.Module]:
    """Trains one form with one seed and evaluates it: its row, and what was evaluated."""
    arch, shape = architecture(form, network), data.input_shape
    torch.manual_seed(seed)
    made = build(arch, num_classes=data.num_classes, input_shape=shape).to(data.train.y.device)
    if form == "kept_x4":
        for module in made.modules():
            if isinstance(module, FadingActivation):
                module.fade_share = NEVER
    start = time.perf_counter()
    for _ in Training(made, data, recipe, seed, lambda: None, teacher).epochs():
        pass
    seconds = time.perf_counter() - start
    shipped = made if form == "kept_x4" else fuse(made)
    accuracies = evaluate(shipped, data, data.validation), evaluate(shipped, data, data.test)
    costs = (*count(shipped, shape), count(made, shape)[1])
    return Row(form, recipe.learning_rate, seed, *accuracies, *costs, seconds), shipped


def ridge(data: ImageData, seed: int) -> Row:
    """Ridge regression on the normalized pixels: what a linear map of the image can do."""
    start = time.perf_counter()
    parts = data.train, data.validation, data.test
    train_x, val_x, test_x = (data.normalize(part.spread(len(part))).flatten(1).cpu().numpy() for part in parts)
    fitted = RidgeClassifier(alpha=train_x.shape[1]).fit(train_x, data.train.y.cpu().numpy())
    validation = float(fitted.score(val_x, data.validation.y.cpu().numpy()))
    test = float(fitted.score(test_x, data.test.y.cpu().numpy()))
    size = train_x.shape[1] * data.num_classes
    seconds = time.perf_counter() - start
    return Row("ridge", math.nan, seed, validation, test, size + data.num_classes, size, size, seconds)


def shrunk(data: ImageData, images: int, factor: int, seed: int) -> ImageData:
    """The data with smaller and fewer training images."""

    def pooled(given: Images) -> Images:
        return Images(avg_pool2d(given.x.float(), factor) if factor > 1 else given.x, given.y)

    order = torch.randperm(len(data.train.y), generator=torch.Generator().manual_seed(seed))[:images]
    assert isinstance(data.train, Images)
    part = Images(data.train.x[order], data.train.y[order])
    augmentation = replace(data.augmentation, shift=data.augmentation.shift // factor)
    assert isinstance(data.validation, Images) and isinstance(data.test, Images)
    validation, test = pooled(data.validation), pooled(data.test)
    return replace(data, train=pooled(part), validation=validation, test=test, augmentation=augmentation)


def rows(settings: Settings) -> Iterator[Row]:
    """Every training, seed by seed."""
    for seed in range(settings.seeds):
        data = load_data(settings.data, settings.data_root, 0.1, seed)
        data = shrunk(data, settings.images, settings.shrink, seed)
        data = replace(
            data, **{part: getattr(data, part).to(settings.device) for part in ("train", "validation", "test")}
        )
        teachers: dict[float, nn.Module] = {}
        for form in settings.forms:
            if form == "ridge":
                yield ridge(data, seed)
                continue
            for rate in settings.learning_rates:
                recipe = TrainConfig(epochs=settings.epochs, learning_rate=rate, batch_size=settings.batch_size)
                teacher = teachers[rate] if form.endswith(DISTILLED) else None
                row, network = trained(form, data, recipe, seed, settings.network, teacher)
                if form == "kept_x4":
                    teachers[rate] = network.eval().requires_grad_(False)
                yield row


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Test accuracy of each form in percent at its learning rate of the best mean validation accuracy, with costs."""
    grouped = table.groupby(["form", "learning_rate"], sort=False, dropna=False)
    test = grouped.test_accuracy.agg(["mean", "std", "count"]).mul([100, 100, 1])
    costs = grouped[["val_accuracy", "deploy_params", "deploy_macs", "train_macs", "train_s"]].mean()
    every = test.join(costs).reset_index()
    best = every.loc[every.groupby("form", sort=False).val_accuracy.idxmax()]
    return best.drop(columns="val_accuracy").round(4)


def check(given: Settings) -> None:
    """Holds that settings can be followed.

    Raises:
        ValueError: they cannot.
    """
    for form in set(given.forms) - {"ridge"}:
        architecture(form, given.network)
    distilled = [i for i, form in enumerate(given.forms) if form.endswith(DISTILLED)]
    if distilled and "kept_x4" not in given.forms[: distilled[0]]:
        raise ValueError(f"forms: {given.forms[distilled[0]]} needs kept_x4 before it")
    load_data(given.data, given.data_root, 0.1, 0)


def main() -> int:
    """Runs the benchmark of the command line and prints its table; 2 for bad input."""
    try:
        given = from_words(sys.argv[1:], Settings)
        check(given)
        done = written(given, new_file(given.out))
    except (ValueError, OSError) as error:
        print(f"analysis.bench_train_forms: {first_line(error)}", file=sys.stderr)
        return 2
    print(summary(pd.DataFrame(done)).to_string(index=False))
    return 0


def written(given: Settings, out: Path) -> list[Row]:
    """All rows, each in the file `out` as soon as it is there."""
    done: list[Row] = []
    with out.open("x", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([field.name for field in fields(Row)])
        for row in rows(given):
            done.append(row)
            writer.writerow([getattr(row, field.name) for field in fields(Row)])
            file.flush()
            print(f"{row.form:16} lr {row.learning_rate:<6g} seed {row.seed}  {row.train_s:6.0f} s", flush=True)
    return done


if __name__ == "__main__":
    sys.exit(main())

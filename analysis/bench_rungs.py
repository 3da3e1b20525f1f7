"""How well a short training tells which networks a full one will favour, and for how many epochs.

    python -m analysis.bench_rungs space=reducenet data=digits networks=24 "epochs=[3,6,12]" out=rungs.csv

Two ways to judge a network before it is trained in full, and both are complete trainings, since a network can only be
fused when its activations have faded. `scratch`: a training of fewer epochs from the beginning, with the schedule of a
full one. `cooled`: a warm-up, stable, decay training, of which a copy cools down over a fifth of the epochs so far;
what goes on is the trunk, so that nothing is trained twice. A copy is exactly a `train.schedule=wsd` training that ends
there, and is trained as one here.

Printed, and written as CSV: for each way and rung Kendall's rank correlation of the validation accuracies with those
of full trainings of the same way and of `scratch`, and the epochs that a network costs that goes to this rung, and that
goes to the end over it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context

import pandas as pd
import torch
from omegaconf import MISSING
from scipy.stats import kendalltau

from analysis.settings import from_words, new_file
from nas.architecture import Architecture
from nas.config import JobConfig, first_line
from nas.cores import cores
from nas.job import Job, make_job, training_seed
from nas.latency.calibrate import distinct
from nas.networks.fusing import fuse
from nas.space_file import load_space
from nas.training.allocator import keep_freed_memory
from nas.training.loop import Training

SCHEDULES = {"scratch": "cosine", "cooled": "wsd"}
COOLING = 0.2  # of the trunk's epochs


@dataclass(frozen=True)
class Settings:
    """What the command line may say.

    Attributes:
        space: whose samples are trained.
        data: data set, see nas.search.
        data_root: where its files are.
        val_share: share of the training images that judges.
        networks: samples.
        epochs: of the rungs, rising; the last one is a full training.
        seed: of samples and trainings.
        out: CSV of all accuracies; must not exist.
    """

    space: str = "reducenet"
    data: str = "digits"
    data_root: str = "~/.cache/nas-data/images"
    val_share: float = 0.25
    networks: int = 24
    epochs: tuple[int, ...] = (3, 6, 12)
    seed: int = 0
    out: str = MISSING


def accuracy(job: Job, arch: Architecture, way: str, epochs: int) -> float:
    """Validation accuracy of the fused network after a training."""
    recipe = replace(job.recipe(arch), epochs=trained_epochs(way, epochs), schedule=SCHEDULES[way])
    training = Training(job.build(arch), job.data, recipe, training_seed(job.seed, arch), lambda: None)
    for _ in training.epochs():
        pass
    return job.judged(fuse(training.shipped), job.data.validation)


def trained_epochs(way: str, epochs: int) -> int:
    """Epochs of a trunk of so many and its cooling copy."""
    return epochs if way == "scratch" else max(epochs + 1, round(epochs * (1 + COOLING)))


def trainings(settings: Settings, job: Job) -> Iterator[dict[str, object]]:
    """A row for each training."""
    archs = distinct(load_space(settings.space), settings.networks, settings.seed)
    with ProcessPoolExecutor(cores(), get_context("spawn"), _prepare) as pool:
        asked = [
            (way, epochs, number, pool.submit(accuracy, job, arch, way, epochs))
            for number, arch in enumerate(archs)
            for way in SCHEDULES
            for epochs in settings.epochs
        ]
        for way, epochs, number, answer in asked:
            yield {"way": way, "epochs": epochs, "network": number, "val_accuracy": answer.result()}


def _prepare() -> None:
    torch.set_num_threads(1)
    keep_freed_memory()


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each way and rung."""
    by = table.pivot(index="network", columns=["way", "epochs"], values="val_accuracy")
    epochs = sorted(set(table["epochs"]))
    rows = []
    for way in SCHEDULES:
        spent = 0
        for rung in epochs:
            here = by[(way, rung)]
            spent = (
                spent + rung
                if way == "scratch"
                else trained_epochs(way, rung) + sum(trained_epochs(way, each) - each for each in epochs if each < rung)
            )
            rows.append(
                {
                    "way": way,
                    "epochs": rung,
                    "mean_accuracy": here.mean(),
                    "tau_own_full": kendalltau(here, by[(way, epochs[-1])])[0],
                    "tau_scratch_full": kendalltau(here, by[("scratch", epochs[-1])])[0],
                    "epochs_to_here": spent,
                }
            )
    return pd.DataFrame(rows)


def main() -> int:
    """Runs the benchmark of the command line and prints its table; 2 for bad input."""
    try:
        settings = from_words(sys.argv[1:], Settings)
        out = new_file(settings.out)
        if len(settings.epochs) < 2 or list(settings.epochs) != sorted(set(settings.epochs)) or settings.epochs[0] < 1:
            raise ValueError(f"epochs={list(settings.epochs)} is not allowed; allowed: two or more, rising from 1 on")
        config = JobConfig(
            data=settings.data, data_root=settings.data_root, val_share=settings.val_share, seed=settings.seed
        )
        table = pd.DataFrame(trainings(settings, make_job(config)))
    except (ValueError, OSError) as error:
        print(f"analysis.bench_rungs: {first_line(error)}", file=sys.stderr)
        return 2
    table.to_csv(out, index=False)
    print(summary(table).round(4).to_string(index=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())

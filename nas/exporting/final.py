"""A longer training of what a search has chosen, several times, on training and validation images together.

The best of a hundred noisy trials is lucky, so its accuracy is told too high; that of trainings that nobody has chosen
among is not. Nothing is selected by them: mean and spread on the test images are what is told, and the first one ships.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nas.data import ImageData, Images, StreamedImages
from nas.deploy import ExportFailed
from nas.exporting.formats import Product
from nas.exporting.settings import FinalConfig
from nas.job import Job
from nas.networks.merging import MergePlan
from nas.pipeline import Known, judge
from nas.recipes import TrainOverrides
from nas.store import RunStore
from nas.training.checkpoint import Checkpoint
from nas.trial import Ended, EpochEnded, TrialRecord, TrialState

Networks = tuple[nn.Module, nn.Module, MergePlan]
Say = Callable[[str], None]


def retrained(record: TrialRecord, job: Job, store: RunStore, final: FinalConfig, say: Say) -> Product:
    """A trial's architecture, trained anew `final.seeds` times, and the test accuracy of each.

    Raises:
        ExportFailed: a training failed.
    """
    accuracies, networks = [], None
    for number in range(final.seeds):
        kept, accuracy = _trained(record, _final_job(job, record, final, number), store, say)
        say(f"trial {record.trial}: final training {number + 1} of {final.seeds}: test {job.metric} {accuracy:.4f}")
        accuracies.append(accuracy)
        networks = networks or kept
    assert networks is not None
    trained, deployed, merges = networks
    return Product(record, deployed.cpu().eval(), merges, trained.cpu().eval(), job, tuple(accuracies))


def with_validation(data: ImageData) -> ImageData:
    """The same data, to be trained on validation images too; what trainings are judged by are the test images."""
    train, validation = data.train, data.validation
    y = torch.cat([train.y, validation.y])
    if isinstance(train, Images):
        assert isinstance(validation, Images)
        both = Images(torch.cat([train.x, validation.x]), y)
    else:
        assert isinstance(validation, StreamedImages)
        both = replace(train, numbers=np.concatenate([train.numbers, validation.numbers]), y=y)
    return replace(data, train=both, validation=data.test.to(str(y.device)))


def forget(record: TrialRecord, job: Job, store: RunStore, final: FinalConfig) -> None:
    """Lets go of what final trainings have written down: until then the same command goes on where they were."""
    for number in range(final.seeds):
        Checkpoint(_checkpoint_file(store, record, job.seed + 1 + number)).discard()


def _checkpoint_file(store: RunStore, record: TrialRecord, seed: int) -> Path:
    return store.path / "checkpoints" / f"final-{record.trial}-{seed}.safetensors"


def check_tested(data: ImageData, final: FinalConfig) -> None:
    """Holds that there is something to judge final trainings by.

    Raises:
        ValueError: there is not.
    """
    if final.epochs is not None and not len(data.test):
        raise ValueError(f"final.epochs={final.epochs} is not allowed: data={data.name} comes without test images")


def _final_job(job: Job, record: TrialRecord, final: FinalConfig, number: int) -> Job:
    """The run's job with more epochs and images, its recipe otherwise, and another seed than that of its trials."""
    recipe: dict[str, Any] = asdict(job.recipe(record.architecture)) | {"epochs": final.epochs}
    train, seed = TrainOverrides(**recipe), job.seed + 1 + number
    return replace(job, data=with_validation(job.data), train=train, seed=seed, constraints=())


def _trained(record: TrialRecord, job: Job, store: RunStore, say: Say) -> tuple[Networks, float]:
    kept: list[Networks] = []
    checkpoint = Checkpoint(_checkpoint_file(store, record, job.seed), lambda epochs: range(1, epochs + 1))
    assert record.cost is not None
    known, arch = Known(record.cost.latency), record.architecture
    last = None
    for last in judge(record.trial, arch, job, known, lambda *each: kept.append(each), job.meter(), checkpoint):
        if isinstance(last, EpochEnded):
            say(f"trial {record.trial}: epoch {last.epochs} of {job.recipe(arch).epochs}: loss {last.loss:.4f}")
    assert isinstance(last, Ended)
    if last.state is not TrialState.COMPLETED:
        raise ExportFailed(f"trial {record.trial}: its final training {last.state.value}: {last.reason}")
    assert last.accuracy is not None
    return kept[0], last.accuracy

"""What exported files are worth: compared with the network, judged on test data and timed, each from the file alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from nas.config import first_line
from nas.data import fitting_batch_size
from nas.data.images import spread_over
from nas.deploy import VERIFIED_IMAGES, Agreement, agreement, outputs, outputs_to_compare
from nas.exporting.formats import FORMATS, Product
from nas.latency.measure import Variant, measure_interleaved
from nas.latency.measurement import LatencyMeasurement
from nas.training.evaluation import METRICS

TRAIN_FORM, FUSED = "train form", "fused network"
MOST_APART = 1e-3  # largest difference of the two forms' outputs over the largest output: rounding is far below it


@dataclass(frozen=True)
class FileFigures:
    """What was found of one file.

    Attributes:
        file: its name.
        megabytes: its size and that of what belongs to it, 10^6 bytes.
        test_accuracy: the search's metric on all test images; None where there are none.
        compared_with: the network's train form, or where that is not kept the fused network.
        images: that were compared.
        difference: largest difference of outputs, over the largest output.
        equal_predictions: share of images for which both say the same class.
        latency_ms: of one batch, median.
        latency_low_ms: low end of its 95 % interval; None where there were too few rounds for one.
        latency_high_ms: high end, likewise.
        latency_doubt: why it cannot be relied on, if so.
        latency_device: where it was measured.
    """

    file: str
    megabytes: float
    test_accuracy: float | None
    compared_with: str
    images: int
    difference: float
    equal_predictions: float
    latency_ms: float
    latency_low_ms: float | None
    latency_high_ms: float | None
    latency_doubt: str
    latency_device: str


@dataclass(frozen=True)
class Expected:
    """Logits (n, classes) that files are compared with, of at most `VERIFIED_IMAGES` unseen images from all over.

    Attributes:
        fused: of the network that is written.
        trained: of its train form, where that is kept.
    """

    fused: Tensor
    trained: Tensor | None


@dataclass(frozen=True)
class Verified:
    """A format's file that is the network.

    Attributes:
        network: what a runtime has read from it.
        megabytes: see `FileFigures`, as for the next one.
        test_accuracy: the metric.
        agreement: with the train form, or where that is not kept with the fused network.
    """

    network: nn.Module
    megabytes: float
    test_accuracy: float | None
    agreement: Agreement


def expected_of(product: Product) -> Expected:
    """What a network's files are compared with.

    Raises:
        ValueError: its two forms are not of one network.
    """
    data = product.data
    fused = outputs_to_compare(product.network, data)
    trained = None if product.trained is None else outputs_to_compare(product.trained, data)
    if trained is not None and not (apart := agreement(fused, trained).difference) <= MOST_APART:
        raise ValueError(
            f"trial {product.record.trial}: its weights are damaged: the outputs of its fused network differ from "
            f"those of its train form by {apart:.2g} of the largest one"
        )
    return Expected(fused, trained)


def verified(name: str, product: Product, folder: Path, expected: Expected) -> Verified | str:
    """A format's file, if it is the network within rounding; else why not, in one line."""
    kind, data = FORMATS[name], product.data
    try:
        network = kind.read(product, folder)
        batches = data.unseen.batches(fitting_batch_size(data.input_shape, torch.device("cpu")))
        logits = outputs(network, (each.x for each in batches), data)
    except Exception as error:  # whatever a runtime raises of a file that it cannot read or run
        return f"{kind.file} cannot be run: {first_line(error)}"
    compared = logits[spread_over(len(logits), VERIFIED_IMAGES)]
    found = agreement(compared, expected.fused)
    same = found.equal_predictions >= kind.least_equal and found.difference <= kind.most_different
    if not (same and torch.isfinite(logits).all()):
        return (
            f"{kind.file} is not the network: its outputs differ by {found.difference:.2g} of the largest one, and "
            f"{found.equal_predictions:.2%} of its predictions on {found.images} unseen images are the same"
        )
    accuracy = None
    if len(data.test):
        accuracy = METRICS[product.job.metric](data.test.y.cpu().numpy(), logits.argmax(1).numpy())
    if expected.trained is not None:
        found = agreement(compared, expected.trained)
    return Verified(network, sum(each.stat().st_size for each in folder.iterdir()) / 1e6, accuracy, found)


def figures_of(product: Product, files: Mapping[str, Verified]) -> dict[str, FileFigures]:
    """The figures of verified files, by format; they are timed in turn."""
    measured = _measured(product, files)
    return {
        name: FileFigures(
            FORMATS[name].file,
            file.megabytes,
            file.test_accuracy,
            FUSED if product.trained is None else TRAIN_FORM,
            *file.agreement,
            measured[name].median_ms,
            *_interval(measured[name]),
            measured[name].doubt,
            measured[name].device,
        )
        for name, file in files.items()
    }


def _interval(measured: LatencyMeasurement) -> tuple[float, float] | tuple[None, None]:
    low, high = measured.interval_ms
    return (low, high) if math.isfinite(high) else (None, None)  # JSON knows no infinity


def _measured(product: Product, files: Mapping[str, Verified]) -> dict[str, LatencyMeasurement]:
    """Latencies on the CPU, in turn, so that the files can be compared with one another."""
    here = replace(product.job.latency, device="cpu", dtype="float32")
    variants = [
        Variant(file.network, replace(here, backend=FORMATS[name].timed_by), product.data.input_shape)
        for name, file in files.items()
    ]
    return dict(zip(files, measure_interleaved(variants, device="cpu"), strict=True))

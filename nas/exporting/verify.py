"""What exported files are worth: compared with the network, judged on test data and timed, each from the file alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from nas.config import first_line
from nas.deploy import agreement
from nas.exporting.formats import FORMATS, Product
from nas.latency.measure import Variant, measure_interleaved
from nas.latency.measurement import LatencyMeasurement
from nas.training.evaluation import evaluate

TRAIN_FORM, FUSED = "train form", "fused network"


@dataclass(frozen=True)
class FileFigures:
    """What was found of one file.

    Attributes:
        file: its name.
        megabytes: its size, 10^6 bytes.
        test_accuracy: the search's metric on all test images; None where there are none.
        compared_with: the network's train form, or where that is not kept the fused network.
        images: that were compared.
        difference: largest difference of outputs, over the largest output.
        equal_predictions: share of images for which both say the same class.
        latency_ms: of one batch, median.
        latency_low_ms: low end of its 95 % interval.
        latency_high_ms: high end.
        latency_doubt: why it cannot be relied on, if so.
    """

    file: str
    megabytes: float
    test_accuracy: float | None
    compared_with: str
    images: int
    difference: float
    equal_predictions: float
    latency_ms: float
    latency_low_ms: float
    latency_high_ms: float
    latency_doubt: str


def failure_of(name: str, product: Product, folder: Path) -> str | None:
    """Why a format's file is not the network, in one line; None if it is, within rounding."""
    kind = FORMATS[name]
    try:
        found = agreement(kind.read(product, folder), product.network, product.data)
    except Exception as error:  # whatever a runtime raises of a file that it cannot read or run
        return f"{kind.file} cannot be run: {first_line(error)}"
    if found.equal_predictions >= kind.least_equal and found.difference <= kind.most_different:
        return None
    return (
        f"{kind.file} is not the network: its outputs differ by {found.difference:.2g} of the largest one, and "
        f"{found.equal_predictions:.2%} of its predictions on {found.images} unseen images are the same"
    )


def figures_of(product: Product, names: Sequence[str], folder: Path) -> dict[str, FileFigures]:
    """The figures of the files of some formats in a folder, by format."""
    data, job = product.data, product.job
    networks = {name: FORMATS[name].read(product, folder) for name in names}
    reference = product.network if product.trained is None else product.trained
    measured = _measured(product, networks)
    return {
        name: FileFigures(
            FORMATS[name].file,
            (folder / FORMATS[name].file).stat().st_size / 1e6,
            evaluate(network, data, data.test, job.metric) if len(data.test) else None,
            FUSED if product.trained is None else TRAIN_FORM,
            *agreement(network, reference, data),
            measured[name].median_ms,
            *measured[name].interval_ms,
            measured[name].doubt,
        )
        for name, network in networks.items()
    }


def _measured(product: Product, networks: Mapping[str, nn.Module]) -> dict[str, LatencyMeasurement]:
    """Latencies on the CPU, in turn, so that the files can be compared with one another."""
    here = replace(product.job.latency, device="cpu", dtype="float32")
    variants = [
        Variant(network, replace(here, backend=FORMATS[name].timed_by), product.data.input_shape)
        for name, network in networks.items()
    ]
    return dict(zip(networks, measure_interleaved(variants, device="cpu"), strict=True))

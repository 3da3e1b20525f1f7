"""One network's latency in its three forms, on each runtime."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from torch import nn

from nas.architecture import Architecture
from nas.config import LatencyConfig
from nas.latency.backends import LATENCY_BACKENDS, backend_for
from nas.latency.measure import Variant, measure_interleaved
from nas.latency.measurement import LatencyMeasurement, Shape
from nas.latency.meter import Meter
from nas.latency.prepared import NotSupported
from nas.networks.builder import build
from nas.networks.folding import faded, fold_norms
from nas.networks.fusing import fuse

FORMS = ("train", "folded", "fused")


@dataclass(frozen=True)
class Row:
    """A form of a network on a runtime.

    Attributes:
        form: "train", "folded" (BatchNorm alone) or "fused".
        backend: the runtime.
        measured: its latency; None where the runtime cannot run it.
        problem: why not.
    """

    form: str
    backend: str
    measured: LatencyMeasurement | None
    problem: str = ""


def forms_of(arch: Architecture, num_classes: int, meter: Meter, merge: str) -> dict[str, nn.Module]:
    """An untrained network in its train form (eval mode, activations faded), merely folded, and as it ships."""
    train = faded(build(arch, num_classes=num_classes, input_shape=meter.input_shape, form="train"))
    return {"train": train, "folded": fold_norms(train), "fused": meter.merged(fuse(train), merge).network}


def side_by_side(
    forms: dict[str, nn.Module], config: LatencyConfig, backends: Sequence[str], input_shape: Shape, device: str
) -> Iterator[Row]:
    """The forms' latencies on each runtime, those of a runtime measured in turn."""
    for name in backends:
        on = replace(config, backend=name)
        variants = [Variant(network, on, input_shape) for network in forms.values()]
        try:
            measured = measure_interleaved(variants, device=device)
        except NotSupported:  # one of them: which, and what about the others?
            yield from (_alone(form, variant, device) for form, variant in zip(forms, variants, strict=True))
            continue
        yield from (Row(form, name, each) for form, each in zip(forms, measured, strict=True))


def _alone(form: str, variant: Variant, device: str) -> Row:
    name = variant.config.backend
    try:
        return Row(form, name, measure_interleaved([variant], device=device)[0])
    except NotSupported as error:
        return Row(form, name, None, str(error))


def installed_backends(config: LatencyConfig, device: str) -> list[str]:
    """The runtimes that can measure here as configured; a table, if one is given."""
    able = []
    for name in LATENCY_BACKENDS:
        with contextlib.suppress(ValueError):
            backend_for(replace(config, backend=name), device)
            able += [name] if name != "table" or config.table else []
    return able

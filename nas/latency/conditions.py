"""Everything but the network that decides a latency: where calibrations and remembered latencies hold."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from nas.bounded import said
from nas.config import LatencyConfig
from nas.latency.backends import backend_for
from nas.latency.machine import check_threads, device_named, fingerprint
from nas.latency.measurement import Shape
from nas.latency.table import table_of


@dataclass(frozen=True)
class Instrument:
    """What latencies are measured with.

    Attributes:
        device: its `fingerprint`, or the name of a table of another device.
        backend: the runtime with its version, and on a GPU how it is used.
    """

    device: str
    backend: str


@dataclass(frozen=True)
class Conditions:
    """Conditions of measurements.

    Attributes:
        device: see `Instrument`.
        backend: see `Instrument`.
        dtype: of weights and activations.
        batch_size: images of a batch.
        threads: CPU threads.
        memory_format: of torch.
        input_shape: (C, H, W).
        num_classes: number of logits.
        merge: how runs of linear convolutions are merged.
    """

    device: str
    backend: str
    dtype: str
    batch_size: int
    threads: int
    memory_format: str
    input_shape: Shape
    num_classes: int
    merge: str


def instrument(config: LatencyConfig, device: str) -> Instrument:
    """What a configuration measures with on a device ("cpu", "cuda", "cuda:0") of this machine.

    Raises:
        ValueError: a device that is not there, a runtime that is not installed or does not run there, more threads
            than cores, a bad table.
    """
    where = device_named(device)
    name, backend = backend_for(config, where)
    check_threads(config.threads)
    return Instrument(timed_device(config, where), f"{name} {backend.version}{backend.options(config, where)}")


def conditions(
    config: LatencyConfig, using: Instrument, input_shape: Shape, num_classes: int, merge: str
) -> Conditions:
    """The conditions of measurements by a configuration with an instrument."""
    return Conditions(
        device=using.device,
        backend=using.backend,
        dtype=config.dtype,
        batch_size=config.batch_size,
        threads=config.threads,
        memory_format=config.memory_format,
        input_shape=input_shape,
        num_classes=num_classes,
        merge=merge,
    )


def conditions_from_dict(words: dict[str, Any]) -> Conditions:
    """What JSON left of `dataclasses.asdict`.

    Raises:
        ValueError: other words, or none that could be conditions.
    """
    try:
        channels, height, width = words["input_shape"]
        return Conditions(**{**words, "input_shape": (channels, height, width)})
    except (TypeError, KeyError) as error:
        lacking = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"not the conditions of measured latencies: {lacking}") from None


def differences(stored: Conditions, here: Conditions) -> str:
    """What differs, in words; nothing where all is the same."""
    told, now = asdict(stored), asdict(here)
    names = [each.name for each in fields(Conditions) if told[each.name] != now[each.name]]
    return "; ".join(f"{name} {said(told[name])}, here {said(now[name])}" for name in names)


def timed_device(config: LatencyConfig, device: str) -> str:
    """What tells devices apart that are timed: the fingerprint of one here, the name of a table of another."""
    if config.backend != "table":
        return fingerprint(device)
    told = json.dumps(table_of(config), sort_keys=True)
    return f"table {hashlib.sha256(told.encode()).hexdigest()[:12]}"

"""A device that is elsewhere, as a table: latencies of single layers, measured there once, that a network's sum up.

`python -m nas.latency layers` writes such a table on the device; any other way to fill it will do. Sums of layers know
nothing of what a runtime does between them: where the device is at hand, measure.
"""

from __future__ import annotations

import contextlib
import csv
import io
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nas.bounded import one_line, read_text, said, shown
from nas.config import LatencyConfig, first_line, user_path
from nas.cost import entering_shapes
from nas.files import write_at_once
from nas.latency.measurement import Shape
from nas.latency.prepared import TABLE, NotSupported, Prepared

MOST_TABLE_BYTES = 64_000_000
COLUMNS = ("layer", "latency_ms")
NETWORK = "network"  # the row of what a network takes beside its layers


def layers_of(network: nn.Module, input_shape: Shape) -> dict[str, tuple[nn.Module, Shape, int]]:
    """The convolutions and linear layers that run, by name: one of each, the (C, H, W) that enters it, how many."""
    found: dict[str, tuple[nn.Module, Shape]] = {}
    times: Counter[str] = Counter()
    timed = [path for path, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for path, entering in entering_shapes(network, input_shape, timed):
        module = network.get_submodule(path)
        name = layer_name(module, entering)
        times[name] += 1
        found.setdefault(name, (module, entering))
    return {name: (*found[name], times[name]) for name in found}


def layer_name(module: nn.Module, input_shape: Shape) -> str:
    """What a layer is called in a table: `conv 16-32 3x3 stride 1x1 padding 1x1 groups 1 on 32x32`."""
    if isinstance(module, nn.Linear):
        return f"linear {module.in_features}-{module.out_features}"
    assert isinstance(module, nn.Conv2d)

    def pair(values: object) -> str:
        return "x".join(map(str, values)) if isinstance(values, tuple) else str(values)

    dilation = "" if module.dilation == (1, 1) else f" dilation {pair(module.dilation)}"
    return (
        f"conv {module.in_channels}-{module.out_channels} {pair(module.kernel_size)} stride {pair(module.stride)} "
        f"padding {pair(module.padding)}{dilation} groups {module.groups} on {pair(input_shape[1:])}"
    )


def look_up(network: nn.Module, input_shape: Shape, table: Mapping[str, float]) -> float:
    """The latency of a network in ms: of its layers, and what it takes beside them.

    Raises:
        ValueError: a layer that is not in the table.
    """
    layers = layers_of(network, input_shape)
    if missing := [name for name in (NETWORK, *layers) if name not in table]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ValueError(f"latency.table has no row {missing[0]!r}{more}")
    return table[NETWORK] + sum(times * table[name] for name, (_, _, times) in layers.items())


def read_table(file: Path) -> dict[str, float]:
    """A table's latencies in ms, by layer.

    Raises:
        ValueError: not such a table.
    """
    try:
        text = read_text(file, MOST_TABLE_BYTES)
    except ValueError as error:
        raise ValueError(f"latency.table={file} {error}") from None
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        columns, rows = reader.fieldnames or (), list(reader)
        if not set(COLUMNS) <= set(columns):
            raise ValueError(f"its columns are {said(', '.join(columns)) or 'none'}")
        table = {row["layer"]: float(row["latency_ms"]) for row in rows}
    except (csv.Error, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"latency.table={file} is not a CSV with columns layer, latency_ms: {one_line(str(error), 300)}"
        ) from None
    if NETWORK not in table:
        raise ValueError(f"latency.table={file} lacks the row {NETWORK!r}: what a network takes beside its layers")
    if len(table) < len(rows):
        raise ValueError(f"latency.table={file} has a layer twice")
    if bad := next((name for name, value in table.items() if not (math.isfinite(value) and value >= 0)), None):
        raise ValueError(f"latency.table={file}: {shown(bad)}: {table[bad]} ms is not allowed; allowed: 0 and more")
    return table


def table_of(config: LatencyConfig) -> dict[str, float]:
    """The table of a configuration.

    Raises:
        ValueError: none is named, or it cannot be read.
    """
    if config.table is None:
        raise ValueError("latency.backend=table needs latency.table=FILE, as python -m nas.latency layers writes it")
    return read_table(user_path("latency.table", config.table))


def write_table(file: Path, table: Mapping[str, float]) -> None:
    """Writes what `read_table` reads; a file of that name is replaced."""
    rows = io.StringIO()
    writer = csv.writer(rows)
    writer.writerow(COLUMNS)
    writer.writerows((name, f"{value:.6g}") for name, value in table.items())
    file.parent.mkdir(parents=True, exist_ok=True)
    write_at_once(file, rows.getvalue())


@contextlib.contextmanager
def looked_up(network: nn.Module, batch: Tensor, config: LatencyConfig) -> Iterator[Prepared]:
    """The network in PyTorch, with a clock that reads the table.

    Raises:
        ValueError: `latency.table` is missing, cannot be read, or lacks a layer (`NotSupported`).
    """
    _, channels, height, width = batch.shape
    table = table_of(config)
    try:
        latency_ms = look_up(network, (channels, height, width), table)
    except (ValueError, RuntimeError) as error:  # a layer without a row, or images that do not fit
        raise NotSupported(first_line(error)) from None

    def logits() -> np.ndarray:
        with torch.inference_mode():
            return network(batch).cpu().numpy()

    yield Prepared(logits, lambda: latency_ms, clock=TABLE)

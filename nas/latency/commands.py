"""What `python -m nas.latency` does."""

from __future__ import annotations

import shlex
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from rich.table import Table
from torch import nn

from nas.architecture import Architecture
from nas.config import SearchConfig, image_shape
from nas.config_fields import leaves
from nas.console import table_console
from nas.data import load_data
from nas.latency.calibrate import calibrate, distinct, report
from nas.latency.conditions import conditions, instrument
from nas.latency.machine import device_named, fingerprint
from nas.latency.measurement import Shape
from nas.latency.meter import Meter
from nas.latency.settings import CalibrateConfig, LayersConfig, MeasureConfig, TargetConfig
from nas.latency.side_by_side import Row, forms_of, installed_backends, side_by_side
from nas.latency.table import NETWORK, layers_of, write_table
from nas.networks.bounds import check_limits
from nas.networks.builder import build
from nas.space_file import load_architecture, load_space, space_names


def run_measure(config: MeasureConfig) -> None:
    """Prints a network's latency in train form, folded and fused, on each runtime.

    Raises:
        ValueError: see `nas.latency.measure.measure`; or an architecture that is none.
    """
    if not config.arch:
        raise ValueError("arch is missing; allowed: architecture.json, a space's YAML or name, a network of zoo/")
    device = _device(config)
    one = [] if config.latency.backend == "auto" else [config.latency.backend]
    backends = config.backends or one or installed_backends(config.latency, device)
    for name in backends:
        instrument(replace(config.latency, backend=name), device)
    arch = _architecture(config.arch, config.seed)
    shape, classes = _images(config)
    check_limits(arch, classes, shape, config.limits)
    meter = Meter(config.latency, shape, device)
    forms = forms_of(arch, classes, meter, config.merge)
    rows = list(side_by_side(forms, config.latency, backends, shape, device))
    console = table_console()
    how = f"{config.latency.threads} threads, batch of {config.latency.batch_size}, {'x'.join(map(str, shape))}"
    console.print(f"{fingerprint(device)}: {how}", highlight=False)
    console.print(_table(rows))
    for problem in dict.fromkeys(row.problem for row in rows if row.problem):
        console.print(problem, highlight=False, markup=False, soft_wrap=True)


def run_calibrate(config: CalibrateConfig, out: Path) -> None:
    """Measures networks of a space, writes a calibration file and prints how good it is.

    Raises:
        ValueError: see `nas.latency.calibrate.calibrate`; or a space or data set that is none.
    """
    device = _device(config)
    using = instrument(config.latency, device)
    space = load_space(config.space)
    check_writable(out)
    shape, classes = _images(config)
    where = conditions(config.latency, using, shape, classes, config.merge)
    meter = Meter(config.latency, shape, device)
    found = calibrate(space, where, meter, (config.networks, config.held_out), config.seed, print, config.limits)
    found.predictor.save(out)
    print("\n".join(report(found)))
    print(f"Calibration: {out}")
    print(_next(config, "latency.calibration", out))


def run_layers(config: LayersConfig, out: Path) -> None:
    """Measures the layers of a space's networks one by one and writes them as a table for `latency.backend=table`.

    Raises:
        ValueError: see `run_calibrate`.
    """
    device = _device(config)
    instrument(config.latency, device)
    space = load_space(config.space)
    check_writable(out)
    shape, classes = _images(config)
    meter = Meter(config.latency, shape, device)
    layers: dict[str, tuple[nn.Module, Shape, int]] = {}
    archs = distinct(space, config.networks, config.seed)
    for arch in archs:
        check_limits(arch, classes, shape, config.limits)
        deployed = build(arch, num_classes=classes, input_shape=shape, form="deploy")
        layers |= layers_of(meter.merged(deployed, config.merge).network, shape)
    print(f"measuring {len(layers)} layers of {len(archs)} networks of space {space.name}")
    table = {NETWORK: meter.nothing_ms()}
    table |= {name: meter.layer_ms(module, entering) for name, (module, entering, _) in layers.items()}
    write_table(out, table)
    print(f"Table: {out}")
    print(_next(replace(config, latency=replace(config.latency, backend="table")), "latency.table", out))


def _next(config: CalibrateConfig | LayersConfig, key: str, out: Path) -> str:
    """The search that `out` was made for: with every setting that a search has too and that is not its default."""
    usual = leaves(SearchConfig())
    settings = {name: value for name, (_, value) in leaves(config).items() if name in usual and name != "seed"}
    changed = {name: value for name, value in settings.items() if value != usual[name][1] or name == "space"}
    given = [f"{name}={_word(value)}" for name, value in changed.items()]
    if config.input is not None:
        given.append("data=YOURS")  # of images of that shape
    return "Next: " + shlex.join(["python", "-m", "nas.search", *given, f"{key}={out}"])


def _word(value: object) -> str:
    """A setting's value as it is written on a command line."""
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)


def check_writable(out: Path) -> None:
    """Holds a file's name against the file system, before minutes of measuring.

    Raises:
        ValueError: it cannot be written.
    """
    try:
        if out.is_dir():
            raise IsADirectoryError("it is a folder")
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise ValueError(f"out={out} cannot be written: {error}") from None


def _device(config: TargetConfig) -> str:
    kind = config.latency.device
    return device_named(kind if kind != "auto" else "cuda" if torch.cuda.is_available() else "cpu")


def _architecture(source: str, seed: int) -> Architecture:
    """A network by itself, or of a space of many a sample."""
    if source in space_names():
        return load_space(source).sample(seed)
    return load_architecture(source)


def _images(config: TargetConfig) -> tuple[Shape, int]:
    """Shape (C, H, W) of the images, and how many classes there are."""
    if config.input is None:
        data = load_data(config.data, config.data_root, 0.25, 0, config.data_options)
        return data.input_shape, data.num_classes
    return image_shape(config.input), config.classes


def _table(rows: list[Row]) -> Table:
    table = Table(title="Latency, ms", title_justify="left")
    for name in ("runtime", "form", "median", "95 % interval", "over fused", "note"):
        table.add_column(name, justify="left" if name in ("runtime", "form", "note") else "right")
    fused = {row.backend: row.measured for row in rows if row.form == "fused"}
    for row in rows:
        base = fused[row.backend]
        if row.measured is None or base is None:
            table.add_row(row.backend, row.form, "-", "-", "-", "cannot run it")
            continue
        low, high = row.measured.interval_ms
        table.add_row(
            row.backend,
            row.form,
            f"{row.measured.median_ms:.4f}",
            f"{low:.4f} to {high:.4f}",
            f"{row.measured.median_ms / base.median_ms:.2f}",
            row.measured.doubt,
        )
    return table

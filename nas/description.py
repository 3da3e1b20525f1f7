"""What `python -m nas.describe` shows: which network, for which images, as a table and a few lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from nas.architecture import Architecture
from nas.both_forms import BothForms, Shape, both_forms, last_map, strides_dropped
from nas.bounded import parse_json, read_text, said
from nas.config import DescribeConfig, first_line, image_shape, user_path
from nas.data import load_data_of
from nas.files import write_at_once
from nas.forms_table import LEGEND, as_table, lines_of, short, side_of, text_of
from nas.latency.table import read_table
from nas.networks.bounds import check_limits
from nas.networks.merging import MergePlan
from nas.plugins import check_said, import_plugins
from nas.space_file import load_space, space_names, zoo_names
from nas.store import RunStore, run_and_trial
from nas.trained import architecture_named, trial_of
from nas.trial import TrialRecord

USUAL_SHAPE, USUAL_CLASSES = (3, 224, 224), 1000  # ImageNet's
Trial = tuple[RunStore, TrialRecord]


@dataclass(frozen=True)
class Stated:
    """What is known of a network where it is from: the images that it is for, its logits, how it was merged."""

    input_shape: Shape
    num_classes: int
    plan: MergePlan = MergePlan(())


@dataclass(frozen=True)
class Described:
    """A network that is shown.

    Attributes:
        arch: its architecture.
        input_shape: (C, H, W) of the images.
        num_classes: number of logits.
        forms: its layers.
        trial: where it is a run's: what is known of it.
    """

    arch: Architecture
    input_shape: Shape
    num_classes: int
    forms: BothForms
    trial: TrialRecord | None


def show(config: DescribeConfig) -> None:
    """Prints both forms of a network, and writes the table where a file is named.

    Raises:
        ValueError: there is no such network, or it cannot take such images; a table of latencies that is none, or
            lacks a layer; a file that cannot be written.
    """
    described = describe(config)
    if config.csv is not None:
        file = user_path("csv", config.csv)
        try:
            write_at_once(file, as_table(described.forms).to_csv(index=False))
        except OSError as error:
            raise ValueError(f"csv={file} cannot be written: {first_line(error)}") from None
    table = lines_of(described.forms)
    terminal = Console()
    # Cut off or wrapped figures are none: lines may be longer than a terminal is wide.
    width = terminal.measure(table, options=terminal.options.update(max_width=1000)).maximum
    Console(width=max(width, terminal.width), soft_wrap=True).print(table)
    for line in summary(described):
        terminal.print(line, highlight=False, markup=False, soft_wrap=True)
    if terminal.is_terminal and width > terminal.width:
        terminal.print(
            f"The table is {width} columns wide: widen the window, or add  | less -S", highlight=False, soft_wrap=True
        )


def describe(config: DescribeConfig) -> Described:
    """The network of a configuration in both forms.

    Raises:
        ValueError: see `show`.
    """
    if config.arch is None:
        raise ValueError(
            "arch is missing; allowed: architecture.json, a folder with one, a network of zoo/, RUN:TRIAL, a space"
        )
    import_plugins(config.plugins)
    table = None if config.latency.table is None else read_table(user_path("latency.table", config.latency.table))
    if (named := run_and_trial(config.arch)) is not None:  # whose architectures may have blocks of its plugins
        check_said(RunStore.open(named[0]).config().plugins, config.plugins, f"arch={config.arch}")
    trial = trial_of(config.arch)
    try:
        arch = architecture_named(config.arch, config.seed) if trial is None else trial[1].architecture
    except OSError as error:  # a name that no file can have
        raise ValueError(f"arch={config.arch} cannot be read: {first_line(error)}") from None
    stated = _stated(config, config.arch, trial)
    check_limits(arch, stated.num_classes, stated.input_shape, config.limits)
    forms = both_forms(arch, stated.num_classes, stated.input_shape, config.merge or stated.plan, table)
    return Described(arch, stated.input_shape, stated.num_classes, forms, None if trial is None else trial[1])


def summary(described: Described) -> list[str]:
    """What the two forms are and cost in all, in a few lines."""
    forms, shape = described.forms, described.input_shape
    lines = [*LEGEND, "", f"input         {text_of(shape)}, {described.num_classes:,} classes"]
    for name, layers in (("train form", forms.train), ("deploy form", forms.deploy)):
        params, macs = sum(each.params for each in layers), sum(each.macs for each in layers)
        lines.append(f"{name:12}  {params:,} params, {macs:,} MACs, {len(layers)} layers")
    lines[-1] += f", at most {forms.footprint.peak_mb(1, 'float32'):.4g} MB of memory at once (float32, one image)"
    if (end := last_map(forms.deploy)) is not None:
        seen, jump = side_of(end.field.size), side_of(end.field.jump)
        lines.append(f"last map      {text_of(end.out_shape)}: receptive field {seen}, effective stride {jump}")
    if dropped := strides_dropped(described.arch, shape):
        places = ", ".join(map(str, dropped))
        lines.append(f"strides       of blocks {places} are dropped on images of {text_of(shape[1:])}")
    lines += [f"merged        {', '.join(map(short, segment))}" for segment in forms.plan.segments]
    if forms.latency_ms is not None:
        lines.append(f"latency       {forms.latency_ms:.4f} ms by the table, {forms.beside_ms:.4f} beside the layers")
    if described.trial is not None:
        lines += _judged(described.trial)
    return lines


def _judged(record: TrialRecord) -> list[str]:
    """What is known of a run's trial."""
    lines = [f"trial {record.trial:<7} {record.state.value}{f': {record.reason}' if record.reason else ''}"]
    if record.accuracy is not None:
        lines[0] += f", accuracy {record.accuracy:.4f} (validation)"
    if record.cost is not None:
        latency = record.cost.latency
        told = f"{latency.low_ms:.4f} to {latency.high_ms:.4f}; {latency.source}"
        lines.append(
            f"latency       {latency.median_ms:.4f} ms ({told}{f'; {latency.doubt}' if latency.doubt else ''})"
        )
    return lines


def _stated(config: DescribeConfig, source: str, trial: Trial | None) -> Stated:
    """The images and logits: as given, else as stated where the network is from; merged as it was for its images."""
    given = None if config.input is None else image_shape(config.input)
    if given is not None and config.classes is not None:
        return Stated(given, config.classes)
    found = _of_source(source) if trial is None else _of_trial(*trial)
    plan = found.plan if given in (None, found.input_shape) else MergePlan(())
    return Stated(given or found.input_shape, config.classes or found.num_classes, plan)


def _of_trial(store: RunStore, record: TrialRecord) -> Stated:
    of = store.config()
    try:
        data = load_data_of(of)
    except ValueError as error:
        raise ValueError(f"{first_line(error)} (input=CxHxW classes=N describe it without the run's data)") from None
    merges = () if record.cost is None else record.cost.latency.merges
    return Stated(data.input_shape, data.num_classes, MergePlan(merges))


def _of_source(source: str) -> Stated:
    """What the figures of a space's file are for, or what an exported model says; else the usual."""
    path, name = Path(source), source.removeprefix("zoo/")
    beside = (path.parent if path.name == "architecture.json" else path) / "metrics.json"
    if beside.is_file():
        return _of_model(beside)
    stated: Mapping[str, Any] = {}
    if name in zoo_names():
        stated = load_space(f"zoo/{name}").published
    elif source in space_names() or path.suffix in (".yaml", ".yml"):
        stated = load_space(source).published
    return Stated(stated.get("input_shape", USUAL_SHAPE), stated.get("num_classes", USUAL_CLASSES))


def _of_model(metrics: Path) -> Stated:
    try:
        words = parse_json(read_text(metrics))
        _, *sizes = words["input"]["shape"]
        plan = MergePlan(tuple(tuple(segment) for segment in words["merged"]))
        return Stated(image_shape("x".join(map(said, sizes))), len(words["classes"]), plan)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{metrics} is not that of an exported model: {first_line(error)}") from None

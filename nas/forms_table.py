"""The two forms of a network as a table: of pandas, and to be printed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from rich import box
from rich.table import Table

from nas.architecture import Architecture
from nas.both_forms import BothForms, Row, Shape, both_forms, is_everywhere
from nas.convolution import Pair
from nas.networks.merging import MergePlan
from nas.networks.operations import Operation

LEGEND = (
    "→ NAME: folded into that layer; - : only while training; kernel/stride. Receptive field, jump (product of the",
    "strides before the layer) and effective stride (with its own) in pixels of the image; all: after a global pool;",
    "N+: N, and by a gate (squeeze-excitation) the whole image.",
)
RULE = "│"
FIGURES = (
    "layer",
    "type",
    "output",
    "kernel",
    "stride",
    "groups",
    "params",
    "macs",
    "receptive_field",
    "jump",
    "effective_stride",
    "everywhere",
)


def layer_table(
    arch: Architecture, *, num_classes: int, input_shape: Shape, merge: str | MergePlan = "none"
) -> pd.DataFrame:
    """The layers of an architecture's two forms, side by side; see `as_table` for the columns.

    Args:
        arch: the architecture.
        num_classes: number of logits.
        input_shape: (C, H, W) of the images.
        merge: how runs of linear convolutions are merged, see `nas.both_forms.both_forms`.

    Raises:
        ValueError: see `nas.both_forms.both_forms`.
    """
    return as_table(both_forms(arch, num_classes, input_shape, merge))


def as_table(forms: BothForms) -> pd.DataFrame:
    """Both forms as a table, empty where a row has no layer of a form.

    Columns are `block`, `block_name`, each of `FIGURES` with `train_` and `deploy_` before it, `folded_into` (the
    deploy form's layer that the train form's became a part of), and where latencies are known `latency_ms` and
    `latency_share`. Receptive fields and strides are in pixels of the image, the larger of height and width:
    `receptive_field = that of the layer before + (kernel - 1) * jump`, where `jump` is the
    product of the strides before the layer and `effective_stride` that with its own. `everywhere`: a global pool on
    some way has read a whole map.
    """
    rows = [
        {
            "block": row.block,
            "block_name": row.block_name,
            **_words("train_", row.train),
            "folded_into": row.became or None,
            **_words("deploy_", row.deploy),
            "latency_ms": row.latency_ms,
            "latency_share": _share(row, forms),
        }
        for row in forms.rows
    ]
    sides = [[f"{form}_{name}" for name in FIGURES] for form in ("train", "deploy")]
    latency = ["latency_ms", "latency_share"] if forms.latency_ms is not None else []
    return pd.DataFrame(
        rows, columns=["block", "block_name", *sides[0], "folded_into", *sides[1], *latency]
    ).convert_dtypes()


def text_of(values: Sequence[int]) -> str:
    """A shape as text: 64x112x112."""
    return "x".join(map(str, values))


def _words(form: str, layer: Operation | None) -> dict[str, Any]:
    """A layer's figures by the names of their columns; what does not run has its parameters only."""
    if layer is None:
        return {}
    words: dict[str, Any] = {"layer": layer.name, "type": layer.kind, "params": layer.params}
    if layer.out_shape:
        words |= {
            "output": text_of(layer.out_shape),
            "kernel": text_of(layer.window.kernel_size),
            "stride": text_of(layer.window.stride),
            "groups": layer.groups,
            "macs": layer.macs,
            "receptive_field": max(layer.field.size),
            "jump": max(layer.entering.jump),
            "effective_stride": max(layer.field.jump),
            "everywhere": layer.field.everywhere,
        }
    return {f"{form}{name}": value for name, value in words.items()}


def _share(row: Row, forms: BothForms) -> float | None:
    """A layer's share of the latency, where that is known."""
    return None if row.latency_ms is None or not forms.latency_ms else row.latency_ms / forms.latency_ms


def lines_of(forms: BothForms) -> Table:
    """Both forms, a line for each row."""
    share = ["\nlatency"] if forms.latency_ms is not None else []
    side = ["\noutput", "\nkernel", "\ngroups", "\nparams", "\nMACs"]
    train, deploy = ["train form\nlayer", "\ntype", *side], ["deploy form\nlayer", *side]
    position = ["receptive\nfield", "\njump", "effective\nstride"]
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    for name in ("\nblock", *train, RULE, *deploy, *share, RULE, *position):
        words = name in ("\nblock", "\ntype") or name.endswith("form\nlayer")
        table.add_column(name, justify="left" if words else "right", no_wrap=True)
    block = None
    for row in forms.rows:
        place = row.train if row.train is not None and row.train.out_shape else row.deploy
        part = _share(row, forms)
        latency = "" if part is None else f"{part:.1%}"
        cells = ["" if row.block == block else row.block_name, *_trained(row), RULE, *_deployed(row)]
        table.add_row(*cells, *([latency] if share else []), RULE, *_position(place))
        block = row.block
    return table


def _figures(layer: Operation | None) -> Sequence[str]:
    """Output, kernel/stride, groups, parameters and multiply-adds."""
    if layer is None:
        return [""] * 5
    window, is_conv = layer.window, layer.kind == "Conv2d"
    kernel = text_of(window.kernel_size)
    kernel += f"/{side_of(window.stride)}" if max(window.stride) > 1 else ""
    kernel += f" dilated {side_of(window.dilation)}" if max(window.dilation) > 1 else ""
    reads_one = max(window.kernel_size) == 1 and max(window.stride) == 1
    return [
        text_of(layer.out_shape),
        "" if reads_one and not is_conv else kernel,
        str(layer.groups) if is_conv else "",
        f"{layer.params:,}" if layer.params else "",
        f"{layer.macs:,}" if layer.macs else "",
    ]


def _trained(row: Row) -> Sequence[str]:
    """The train form's part of a row."""
    layer = row.train
    return ["", "", *_figures(None)] if layer is None else [short(layer.name), layer.kind, *_figures(layer)]


def _deployed(row: Row) -> Sequence[str]:
    """The deploy form's part of a row; where it has no layer there, what became of the train form's."""
    if row.deploy is None:
        return [f"→ {short(row.became)}" if row.became else "-", *_figures(None)]
    return [short(row.deploy.name) + ("" if row.train else f" ({row.deploy.kind})"), *_figures(row.deploy)]


def _position(layer: Operation | None) -> Sequence[str]:
    """Receptive field, jump and effective stride."""
    if layer is None:
        return [""] * 3
    jump, stride = side_of(layer.entering.jump), side_of(layer.field.jump)
    if is_everywhere(layer):
        return ["all", jump, stride]
    return [side_of(layer.field.size) + ("+" if layer.field.everywhere else ""), jump, stride]


def side_of(pair: Pair) -> str:
    """A pair of equal sides as one number."""
    return str(pair[0]) if pair[0] == pair[1] else text_of(pair)


def short(name: str) -> str:
    """A layer's name without what all of them begin with."""
    return name.removeprefix("blocks.")

"""Which linear runs of convolutions are worth merging, planned on their structures alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from nas.convolution import Convolution
from nas.layers.layer import Layer, conv_layer

Span = tuple[int, int]
LayerCost = Callable[[Layer], float]
"""What a layer costs."""

LAYER_COSTS: dict[str, LayerCost | None] = {
    "none": None,
    "macs": lambda layer: float(layer.macs),
    # Biases are as many after merging as the last one had.
    "params": lambda layer: float(layer.weights),
    # The least sum is that of the fewest convolutions: whatever can be merged is.
    "all": lambda layer: 1.0,
}
"""What mergers are planned by; none merges nothing."""


def merge_cost(merge: str) -> LayerCost | None:
    """The cost of a name in `LAYER_COSTS`.

    Raises:
        ValueError: an unknown name.
    """
    if merge not in LAYER_COSTS:
        raise ValueError(f"merge={merge} is unknown; known: {', '.join(LAYER_COSTS)}")
    return LAYER_COSTS[merge]


def merged_layers(layers: Sequence[Layer], cost: LayerCost) -> tuple[Layer, ...]:
    """What is left of a network's layers when its linear runs of convolutions are merged where that is exact and pays.

    The layers of `nas.networks.merging.apply_merges` by the plan of the same cost.

    Args:
        layers: a network's, in order, from `deploy_layers`.
        cost: of a convolution; the sum over a run is made least.
    """
    return tuple(layer for _, layer in merged_spans(layers, cost))


def merged_spans(layers: Sequence[Layer], cost: LayerCost) -> list[tuple[Span, Layer]]:
    """The same, each with the layers `start:end` that it stands for."""
    merged: list[tuple[Span, Layer]] = []
    start = 0
    for end in range(1, len(layers) + 1):
        if end == len(layers) or not layers[end].follows:
            alone = end - start == 1
            merged += [((start, end), layers[start])] if alone else _merged_run(layers[start:end], start, cost)
            start = end
    return merged


def exact_spans(convs: Sequence[Convolution]) -> dict[Span, Convolution]:
    """The convolution that each span `start:end` of a linear run can be merged to exactly."""
    spans: dict[Span, Convolution] = {}
    for start, conv in enumerate(convs):
        spans[start, start + 1] = conv
        for end in range(start + 2, len(convs) + 1):
            try:
                spans[start, end] = spans[start, end - 1].then(convs[end - 1])
            except ValueError:
                break  # and so would every longer span
    return spans


def cheapest(length: int, costs: Mapping[Span, float]) -> tuple[Span, ...]:
    """The spans that cover a run of `length` at the least sum of costs, of equal sums the fewest."""
    best: list[tuple[float, int, tuple[Span, ...]]] = [(0.0, 0, ())]
    for end in range(1, length + 1):
        options = [
            (best[start][0] + costs[start, end], best[start][1] + 1, (*best[start][2], (start, end)))
            for start in range(end)
            if (start, end) in costs
        ]
        best.append(min(options))
    return best[length][2]


def _merged_run(run: Sequence[Layer], at: int, cost: LayerCost) -> list[tuple[Span, Layer]]:
    """A run that begins at a layer `at`, by its cheapest spans."""
    spans = {
        (start, end): conv_layer(conv, run[start].in_size, run[end - 1].out_size, run[start].follows)
        for (start, end), conv in exact_spans([layer.convolution for layer in run]).items()
    }
    costs = {span: cost(layer) for span, layer in spans.items()}
    return [((at + start, at + end), spans[start, end]) for start, end in cheapest(len(run), costs)]

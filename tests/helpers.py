"""What several test files need: networks whose numbers are not the fresh ones, distances, space files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas.reading import Reading
from nas.space import SearchSpace
from nas.space_file import load_space

HEAD = "head: [{block: classifier}]\n"


@torch.no_grad()
def randomise(network: nn.Module, seed: int = 0) -> nn.Module:
    """Random BatchNorm statistics and affine parameters, and random biases; returns the same network.

    A fresh BatchNorm is the identity but for its epsilon: a fusion that forgot it would be off by 1e-5 only.
    """
    rng = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.5, generator=rng)
            module.running_var.uniform_(0.3, 2.5, generator=rng)
            module.weight.uniform_(0.5, 1.5, generator=rng)
            module.weight.mul_(torch.where(torch.rand(module.weight.shape, generator=rng) < 0.2, -1.0, 1.0))
            module.bias.normal_(0, 0.5, generator=rng)
        elif isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            module.bias.normal_(0, 0.3, generator=rng)
    return network


def relative_difference(expected: Tensor, actual: Tensor) -> float:
    """Largest difference over largest output; outputs that are not finite or all zero prove nothing and fail."""
    assert expected.shape == actual.shape
    largest = expected.abs().max().item()
    assert torch.isfinite(expected).all() and largest > 1e-3
    return (expected - actual).abs().max().item() / largest


def write_space(folder: Path, text: str, name: str = "space.yaml") -> Path:
    """A space file in `folder`."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def assert_refused(path: Path, parts: list[str]) -> None:
    """A space file is refused in one line that begins with its path and holds all parts."""
    with pytest.raises(ValueError) as error:
        load_space(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    for part in parts:
        assert part in message


def space_of(folder: Path, text: str) -> SearchSpace:
    """The space that a YAML text describes."""
    return load_space(write_space(folder, text))


def reading(median_ms: float, iqr_ms: float = 0.125, **more: Any) -> Reading:
    """A measured latency without doubt."""
    return Reading(median_ms, iqr_ms, median_ms, median_ms, **more)


def one_line_refusal(act, *args, **more):
    """The message with which `act` refuses its arguments: a ValueError of a single line."""
    with pytest.raises(ValueError) as refused:
        act(*args, **more)
    message = str(refused.value)
    assert "\n" not in message
    return message

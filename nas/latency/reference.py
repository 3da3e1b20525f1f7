"""The reference network: timed beside every other one, it tells a slower network from a slower machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from nas.config import LatencyConfig, first_line
from nas.latency.backends import backend_for
from nas.latency.machine import fingerprint
from nas.latency.prepared import Prepared

REFERENCE_SHAPE = (3, 32, 32)


@contextlib.contextmanager
def reference(config: LatencyConfig, device: str) -> Iterator[Prepared]:
    """The reference network, ready on a device; in the device's usual runtime, whatever else is timed."""
    usual = LatencyConfig(threads=config.threads, memory_format="contiguous")
    _, backend = backend_for(usual, device)
    network, images = reference_network().to(device), batch_of_noise(REFERENCE_SHAPE, 1, device)
    with backend.prepare(network, images, usual) as ready:
        yield ready


def reference_name(config: LatencyConfig, device: str) -> str:
    """What tells readings of the reference apart that cannot be compared."""
    name, backend = backend_for(LatencyConfig(), device)
    return f"{fingerprint(device)}, {config.threads} threads, {name} {backend.version}"


def batch_of_noise(input_shape: tuple[int, int, int], batch_size: int, device: str) -> torch.Tensor:
    """Images (batch_size, C, H, W): noise, since zeros make denormals and sparse short cuts look like speed.

    Raises:
        ValueError: they do not fit into memory.
    """
    try:
        return torch.randn(batch_size, *input_shape, generator=torch.Generator().manual_seed(0)).to(device)
    except (RuntimeError, MemoryError) as error:
        raise ValueError(f"a batch of {batch_size} images of {input_shape}: {first_line(error)}") from None


def reference_network() -> nn.Module:
    """A small network of the usual layers, the same for ever: its readings are compared over years."""
    with torch.device("meta"):  # initial numbers would be drawn from the global generator
        network = nn.Sequential(
            nn.Conv2d(3, 32, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, 1, 1),
            nn.ReLU(),
            nn.Conv2d(64, 64, 5, 2, 2, groups=64),
            nn.ReLU(),
            nn.Conv2d(64, 128, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(128, 10),
        )
    network.to_empty(device="cpu")
    for parameter in network.parameters():
        fan_in = max(1, parameter[0].numel())
        parameter.data = torch.linspace(-1, 1, parameter.numel()).reshape(parameter.shape) / fan_in
    return network.eval()

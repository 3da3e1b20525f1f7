"""What a network computes, as torch.fx sees it."""

from __future__ import annotations

from torch import fx, nn

from nas.interrupts import interrupt_later


def traced(network: nn.Module) -> fx.Graph:
    """The graph of a network's calls. Whatever the network's own code raises comes through.

    While it traces, torch.fx has torch's modules patched, and leaves them so if it is interrupted.
    """
    with interrupt_later():
        return fx.Tracer().trace(network)

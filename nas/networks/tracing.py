"""What a network computes, as torch.fx sees it."""

from __future__ import annotations

from torch import fx, nn

from nas.interrupts import interrupt_later


def traced(network: nn.Module, leaves: tuple[type[nn.Module], ...] = ()) -> fx.Graph:
    """The graph of a network's calls. Whatever the network's own code raises comes through.

    While it traces, torch.fx has torch's modules patched, and leaves them so if it is interrupted.

    Args:
        network: what is traced.
        leaves: modules that are one call each, beside torch's own layers.
    """
    with interrupt_later():
        return _Tracer(leaves).trace(network)


class _Tracer(fx.Tracer):
    def __init__(self, leaves: tuple[type[nn.Module], ...]) -> None:
        super().__init__()
        self._leaves = leaves

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is one call."""
        return isinstance(m, self._leaves) or super().is_leaf_module(m, module_qualified_name)

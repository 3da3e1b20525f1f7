"""Where most tools stop: BatchNorm folded into the convolution before it, and nothing else."""

from __future__ import annotations

import copy

from torch import nn

from nas.networks.bricks import ConvNorm
from nas.networks.fading import fade


def fold_norms(network: nn.Module) -> nn.Module:
    """A copy of one of our train forms in eval mode, with each convolution's own BatchNorm folded into it.

    Branches, wide middles and faded activations stay: the yardstick for what `fuse` gains beyond folding.
    """
    folded = copy.deepcopy(network).eval()
    for module in list(folded.modules()):
        for name, child in module.named_children():
            if isinstance(child, ConvNorm):
                setattr(module, name, child.fuse())
    return folded


def faded(network: nn.Module) -> nn.Module:
    """A copy of a train form as its training leaves it: in eval mode, its fading activations faded."""
    done = copy.deepcopy(network).eval()
    fade(done, 1.0)
    return done

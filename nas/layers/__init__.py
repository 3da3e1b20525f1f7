"""The layers of a deployed network as values, read from its architecture alone: no weights, no torch.

`deploy_layers` says what runs on the device for one image, in order; `merged_layers` what is left of it when runs of
linear convolutions are merged. The modules that compute the same are in `nas.networks`; tests hold the two against
each other layer by layer, for every block.

To add a block: a function in `nas.layers.blocks` with its line in `BLOCK_LAYERS`.
"""

from nas.layers.describe import deploy_layers, described
from nas.layers.layer import Layer
from nas.layers.merging import LAYER_COSTS, merged_layers

__all__ = ["LAYER_COSTS", "Layer", "deploy_layers", "described", "merged_layers"]

"""From an architecture to a network in either form."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from nas.architecture import Architecture
from nas.blocks import Auxiliary, Block, Classifier, Reduce, run_paddings
from nas.blocks.base import check_sizes
from nas.networks.bricks import Form
from nas.networks.fusing import switch_to_deploy
from nas.networks.heads import AuxiliaryBlock, ClassifierBlock, classifier_block
from nas.networks.multi_branch import (
    DenseBlock,
    FireBlock,
    InceptionBlock,
    ShuffleV1Block,
    ShuffleV2Block,
    TransitionBlock,
)
from nas.networks.plain import NormActivationBlock, PoolBlock, SeparableBlock, SeriesActivationBlock, conv_block
from nas.networks.reduce import reduce_block
from nas.networks.residual import InvertedResidualBlock, XceptionBlock, residual_block

BLOCKS: dict[str, Callable[..., nn.Module]] = {
    "conv": conv_block,
    "separable": SeparableBlock,
    "pool": PoolBlock,
    "norm_activation": NormActivationBlock,
    "series_activation": SeriesActivationBlock,
    "inverted_residual": InvertedResidualBlock,
    "basic": residual_block,
    "bottleneck": residual_block,
    "xception": XceptionBlock,
    "inception": InceptionBlock,
    "fire": FireBlock,
    "dense": DenseBlock,
    "transition": TransitionBlock,
    "shuffle_v1": ShuffleV1Block,
    "shuffle_v2": ShuffleV2Block,
    "reduce": reduce_block,
    "auxiliary": AuxiliaryBlock,
    "classifier": classifier_block,
}


class Network(nn.Module):
    """A chain of blocks: images (N, C, H, W) to logits (N, num_classes).

    Attributes:
        input_shape: (C, H, W) of the images that it was built for.
    """

    def __init__(self, blocks: list[nn.Module], input_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.input_shape = input_shape
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of images."""
        return self.blocks(x)

    def with_auxiliary(self, x: Tensor) -> tuple[Tensor, list[tuple[float, Tensor]]]:
        """The logits, and those of each auxiliary classifier with the weight of its loss."""
        auxiliary = []
        for block in self.blocks:
            if isinstance(block, AuxiliaryBlock):
                auxiliary.append((block.weight, block.logits(x)))
            x = block(x)
        return x, auxiliary

    switch_to_deploy = switch_to_deploy


def build(arch: Architecture, *, num_classes: int, input_shape: tuple[int, int, int], form: Form = "train") -> Network:
    """The network of an architecture, with fresh weights.

    `form="deploy"` builds the structure that `fuse` gives the train form, directly: all cost is read from
    it, before anything is trained.

    Args:
        arch: the architecture.
        num_classes: number of logits.
        input_shape: (C, H, W) of the images; decides which strides apply (`Architecture.strides`).
        form: "train" or "deploy" (in eval mode).

    Raises:
        ValueError: another form, an impossible shape, or groups that do not fit the channels.
    """
    if form not in ("train", "deploy"):
        raise ValueError(f"form={form!r} is not allowed; allowed: train, deploy")
    check_sizes(input_shape, num_classes)
    channels = input_shape[0]
    arch.check(channels)
    specs = arch.applied(input_shape)
    paddings = run_paddings(specs)
    blocks: list[nn.Module] = []
    for i, spec in enumerate(specs):
        blocks.append(_module(spec, channels, num_classes, form, paddings.get(i)))
        channels = spec.output_channels(channels)
    network = Network(blocks, input_shape)
    if form == "deploy":
        return network.eval()
    _initialise(network)
    return network


def _module(spec: Block, in_channels: int, num_classes: int, form: Form, padding: int | None) -> nn.Module:
    built = spec.shipped(padding) if form == "deploy" else spec
    if built is None:
        return nn.Identity()
    if built.name not in BLOCKS:  # a plugin's
        raise ValueError(f"block {built.name!r} has no module: it lacks a line in nas.networks.builder.BLOCKS")
    make = BLOCKS[built.name]
    if isinstance(built, Classifier):
        return make(built, in_channels, num_classes, form)
    if isinstance(built, Auxiliary):
        return make(built, in_channels, num_classes)
    return make(built, in_channels, form) if not isinstance(built, Reduce) else make(built, in_channels, padding)


def _initialise(network: nn.Module) -> None:
    """He initialisation of convolutions (by fan-out) and hidden layers (arXiv:1502.01852); small logits."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, ClassifierBlock | AuxiliaryBlock):
            logits = module.layers[-1]
            assert isinstance(logits, nn.Linear)
            nn.init.normal_(logits.weight, std=0.01)

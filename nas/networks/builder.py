"""From an architecture to a network in either form, and from the train form to the deploy form."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from nas.architecture import Architecture
from nas.blocks import Block, Classifier
from nas.networks.bricks import FadingActivation, Form
from nas.networks.plain import ClassifierBlock, ConvBlock
from nas.networks.reduce import ReduceBlock
from nas.networks.residual import InvertedResidualBlock, ResidualBlock

BLOCKS: dict[str, Callable[..., nn.Module]] = {
    "conv": ConvBlock,
    "inverted_residual": InvertedResidualBlock,
    "basic": ResidualBlock,
    "bottleneck": ResidualBlock,
    "reduce": ReduceBlock,
    "classifier": ClassifierBlock,
}


class Network(nn.Module):
    """A chain of blocks: images (N, C, H, W) to logits (N, num_classes)."""

    def __init__(self, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of images."""
        return self.blocks(x)


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
    sizes = (*input_shape, num_classes) if isinstance(input_shape, Sequence) else ()
    if len(sizes) != 4 or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise ValueError(
            f"input_shape={input_shape}, num_classes={num_classes}: (C, H, W) and classes must be positive"
        )
    channels = input_shape[0]
    arch.check(channels)
    blocks: list[nn.Module] = []
    for spec, stride in zip(arch.blocks, arch.strides(input_shape), strict=True):
        blocks.append(_module(spec, stride, channels, num_classes, form))
        channels = spec.output_channels(channels)
    network = Network(blocks)
    if form == "deploy":
        return network.eval()
    _initialise(network)
    return network


def _module(spec: Block, stride: int, in_channels: int, num_classes: int, form: Form) -> nn.Module:
    if isinstance(spec, Classifier):
        return BLOCKS[spec.name](spec, in_channels, num_classes, form)
    applied = dataclasses.replace(spec, stride=stride) if spec.stride_or_one != stride else spec
    return BLOCKS[spec.name](applied, in_channels, form)


def _initialise(network: nn.Module) -> None:
    """He initialisation by fan-out for convolutions (arXiv:1502.01852); a small normal for the classifier."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def fuse(network: nn.Module) -> nn.Module:
    """The deploy form of a network: the same function in eval mode, in fewer and plainer layers.

    Every module with a `fuse()` is replaced by what it returns. The argument is not changed.

    Raises:
        ValueError: a fading activation that has not faded; the message names the module.
    """
    fused = copy.deepcopy(network).eval()
    return _fused("network", fused)


def _fused(path: str, module: nn.Module) -> nn.Module:
    replacement: Callable[[], nn.Module] | None = getattr(module, "fuse", None)
    if replacement is not None:
        try:
            fused: nn.Module = replacement()
            return fused.eval()
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    for name, child in module.named_children():
        setattr(module, name, _fused(f"{path}.{name}", child))
    return module


def unfused_norms(network: nn.Module) -> list[str]:
    """Names of the BatchNorms that are left in a network, for the tools to count and name."""
    return [name for name, module in network.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def set_fading(network: nn.Module, lam: float) -> None:
    """Sets `lam` of every fading activation in a network: 1 is the activation, 0 the identity."""
    for module in network.modules():
        if isinstance(module, FadingActivation):
            module.lam.fill_(lam)

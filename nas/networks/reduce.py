"""ReduceNet's block: wide while it trains, one convolution on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn
from torch.nn.functional import pad

from nas.blocks import Block, Reduce
from nas.fusion import compose, identity_conv, parallel_sum
from nas.networks.activations import activation
from nas.networks.bricks import ConvNorm, Form, conv_norm
from nas.networks.fading import FadingActivation
from nas.networks.fusing import conv2d_from


class FadingBottleneck(nn.Module):
    """conv kxk to the wide middle, BatchNorm, fading activation, conv 1x1, BatchNorm, plus the input if shapes allow.

    With `lam` at 0 this is one affine map of its input, hence one convolution.
    """

    def __init__(self, spec: Reduce, in_channels: int, padding: int) -> None:
        super().__init__()
        mid = spec.mid_channels()
        conv = nn.Conv2d(in_channels, mid, spec.kernel_size, spec.stride, padding, bias=False)
        self.widen = ConvNorm(conv, eps=spec.norm_eps)
        self.fading = FadingActivation(spec.fading_activation, spec.fade_share)
        self.narrow = ConvNorm(nn.Conv2d(mid, spec.out_channels, 1, bias=False), eps=spec.norm_eps)
        self.residual = spec.adds_input(in_channels)
        # How much wider the output is than the input: what a run's first block pads for those after it.
        self.halo = padding - spec.padding_pixels

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H', W')."""
        y = self.narrow(self.fading(self.widen(x)))
        return pad(x, (self.halo,) * 4) + y if self.residual else y

    def fuse(self) -> nn.Conv2d:
        """The one kxk convolution that this is at `lam` 0.

        Raises:
            ValueError: `lam` is not 0, so no convolution equals the block.
        """
        lam = float(self.fading.lam)
        if lam != 0:
            raise ValueError(f"lam is {lam:.4g}; a fading activation can be fused only at lam 0")
        conv = compose(self.widen.linear(), self.narrow.linear())
        if self.residual:
            identity = identity_conv(conv.weight.shape[0], like=conv.weight)
            conv = parallel_sum(conv, replace(identity, padding=(self.halo, self.halo)))
        return conv2d_from(conv)


class ReduceBlock(nn.Module):
    """A fading bottleneck, then the activation that survives."""

    def __init__(self, spec: Reduce, in_channels: int, form: Form, padding: int) -> None:
        super().__init__()
        self.linear = (
            FadingBottleneck(spec, in_channels, padding)
            if form == "train"
            else conv_norm(
                in_channels, spec.out_channels, spec.kernel_size, stride=spec.stride, padding=padding, form=form
            )
        )
        self.activation = activation(spec.activation)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H', W')."""
        return self.activation(self.linear(x))


def run_paddings(blocks: Sequence[Block]) -> dict[int, int]:
    """The zeros around the input of each `reduce` block, by its place in a network.

    Blocks without a surviving activation make one linear map with those that follow, up to and with the next
    that has one. The first block of such a run pads for all, the others not at all: only so is merging the
    run exact at the borders (zeros between two convolutions are no zeros of the composed one's input).
    """
    paddings: dict[int, int] = {}
    start, jump = None, 1  # the run's first block, and how many of its pixels one pixel here stands for
    for i, block in enumerate(blocks):
        if not isinstance(block, Reduce):
            start = None
            continue
        if start is None:
            start, jump = i, 1
        paddings[i] = 0
        paddings[start] += block.padding_pixels * jump
        jump *= block.stride
        if block.activation != "none":
            start = None
    return paddings

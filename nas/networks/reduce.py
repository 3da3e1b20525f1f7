"""ReduceNet's block: wide while it trains, one convolution on the device."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn
from torch.nn.functional import pad

from nas.blocks import Reduce
from nas.blocks.base import same_padding
from nas.fusion import compose, identity_conv, parallel_sum
from nas.networks.activations import activation
from nas.networks.bricks import ConvNorm
from nas.networks.conv_modules import conv2d_from
from nas.networks.fading import FadingActivation
from nas.networks.plain import ConvBlock


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
        keeps_side = spec.stride == 1 and spec.padding_pixels == same_padding(spec.kernel_size)
        self.residual = keeps_side and spec.may_add_input(in_channels)
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


def reduce_block(spec: Reduce, in_channels: int, padding: int) -> ConvBlock:
    """ReduceNet's block in its train form; in the deploy form it is a convolution (`Reduce.shipped`)."""
    return ConvBlock(FadingBottleneck(spec, in_channels, padding), activation(spec.activation))

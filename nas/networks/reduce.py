"""ReduceNet's block: wide while it trains, one convolution on the device."""

from __future__ import annotations

from torch import Tensor, nn

from nas.blocks import Reduce
from nas.fusion import add_identity, compose_pointwise
from nas.networks.bricks import ConvNorm, FadingActivation, Form, activation, conv2d_from, conv_norm


class FadingBottleneck(nn.Module):
    """conv kxk to the wide middle, BatchNorm, fading activation, conv 1x1, BatchNorm, plus the input if shapes allow.

    With `lam` at 0 this is one affine map of its input, hence one convolution.
    """

    def __init__(self, spec: Reduce, in_channels: int) -> None:
        super().__init__()
        mid = spec.mid_channels()
        conv = nn.Conv2d(in_channels, mid, spec.kernel_size, spec.stride, spec.kernel_size // 2, bias=False)
        self.widen = ConvNorm(conv)
        self.fading = FadingActivation(spec.fading_activation)
        self.narrow = ConvNorm(nn.Conv2d(mid, spec.out_channels, 1, bias=False))
        self.residual = spec.stride == 1 and in_channels == spec.out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        y = self.narrow(self.fading(self.widen(x)))
        return x + y if self.residual else y

    def fuse(self) -> nn.Conv2d:
        """The one kxk convolution that this is at `lam` 0.

        Raises:
            ValueError: `lam` is not 0, so no convolution equals the block.
        """
        lam = float(self.fading.lam)
        if lam != 0:
            raise ValueError(f"lam is {lam:.4g}; a fading activation can be fused only at lam 0")
        weight, bias = compose_pointwise(*self.widen.folded(), *self.narrow.folded())
        if self.residual:
            weight = add_identity(weight)
        return conv2d_from(weight, bias, stride=self.widen.conv.stride[0])


class ReduceBlock(nn.Module):
    """A fading bottleneck, then the activation that survives."""

    def __init__(self, spec: Reduce, in_channels: int, form: Form) -> None:
        super().__init__()
        self.linear = (
            FadingBottleneck(spec, in_channels)
            if form == "train"
            else conv_norm(in_channels, spec.out_channels, spec.kernel_size, stride=spec.stride, form=form)
        )
        self.activation = activation(spec.activation)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        return self.activation(self.linear(x))

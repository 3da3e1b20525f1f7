"""How much of the image a value of a network depends on: the algebra of receptive fields, without torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nas.convolution import Pair


@dataclass(frozen=True)
class Window:
    """What a layer reads of a map for one value that it writes.

    Attributes:
        kernel_size: taps of height and width.
        stride: of height and width.
        dilation: distance of the taps.
    """

    kernel_size: Pair = (1, 1)
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)


@dataclass(frozen=True)
class ReceptiveField:
    """The part of the image that one value of a map depends on, image borders left aside.

    Attributes:
        size: height and width in pixels of the image; more than the image has, where padding is seen too.
        jump: pixels of the image between two neighbouring values: the product of all strides so far.
        everywhere: whether a global pool on some way to it has read a whole map.
    """

    size: Pair = (1, 1)
    jump: Pair = (1, 1)
    everywhere: bool = False

    def through(self, window: Window) -> ReceptiveField:
        """That of a layer that reads this map: `r + (k - 1) * jump`, with `(k - 1) * dilation + 1` for `k`.

        See https://distill.pub/2019/computing-receptive-fields.
        """
        reach = [(k - 1) * d for k, d in zip(window.kernel_size, window.dilation, strict=True)]
        height, width = (r + e * j for r, e, j in zip(self.size, reach, self.jump, strict=True))
        rows, columns = (j * s for j, s in zip(self.jump, window.stride, strict=True))
        return ReceptiveField((height, width), (rows, columns), self.everywhere)


IMAGE = ReceptiveField()
"""That of a pixel."""


def widest(fields: Iterable[ReceptiveField]) -> ReceptiveField:
    """That of what reads several maps in the same place (a sum, a concatenation): the maximum over the paths."""
    together = list(fields)
    height, width = (max(each.size[d] for each in together) for d in (0, 1))
    rows, columns = (max(each.jump[d] for each in together) for d in (0, 1))
    return ReceptiveField((height, width), (rows, columns), any(each.everywhere for each in together))


def receptive_fields(layers: Iterable[tuple[int, int]]) -> list[int]:
    """The receptive field after each layer of a chain, along one side, from (kernel size, stride) of each."""
    sizes, field = [], IMAGE
    for kernel_size, stride in layers:
        field = field.through(Window((kernel_size, kernel_size), (stride, stride)))
        sizes.append(field.size[0])
    return sizes

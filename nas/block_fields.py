"""The fields that block schemas are made of: types, ranges, and what has no trace in the deploy form."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from nas.bounded import shown

Value = bool | int | float | str

ACTIVATION_NAMES = ("relu", "relu6", "hswish", "silu", "gelu", "none")
NORM_NAMES = ("batch", "group", "none")
BRANCH_NAMES = ("none", "repvgg", "acnet", "dbb")


@dataclass(frozen=True)
class FieldRule:
    """Which values one field of a block may have.

    Attributes:
        kind: `int`, `float`, `bool` or `str`.
        meaning: one line for people, units included.
        low: smallest number allowed.
        high: largest number allowed.
        odd: whether only odd numbers are allowed.
        options: the words allowed: all values of a `str` field, and beside the numbers for the others.
        train_only: whether the field changes neither structure nor cost of the deploy form.
        folded: values that leave no trace in the deploy form (a BatchNorm folds, so "batch" deploys as "none").
        shapes: whether `Block.check` reads the field.
    """

    kind: type
    meaning: str
    low: float = 0
    high: float = 0
    odd: bool = False
    options: tuple[str, ...] = ()
    train_only: bool = False
    folded: tuple[str, ...] = ()
    shapes: bool = False

    @property
    def allowed(self) -> str:
        """The allowed values in words."""
        if self.kind is str:
            return "one of " + ", ".join(self.options)
        if self.kind is bool:
            return "true or false"
        noun = {int: "integer", float: "number"}[self.kind]
        article = "an odd" if self.odd else "a" if noun == "number" else "an"
        return " or ".join([*self.options, f"{article} {noun} in [{self.low:g}, {self.high:g}]"])

    def parse(self, value: Any) -> Value:
        """Returns `value` in the field's own type (4 and 4.0 are one expansion).

        Raises:
            ValueError: a value of another type or out of range; the message says what is allowed.
        """
        parsed = self._parsed(value)
        if parsed is None:
            raise ValueError(f"{shown(value)} is not allowed; allowed: {self.allowed}")
        return parsed

    def _parsed(self, value: Any) -> Value | None:
        if self.kind is str:
            # YAML reads a bare `none` as a string but `null` and `~` as None; both mean "none" here.
            word = "none" if value is None and "none" in self.options else value
            return word if word in self.options else None
        if self.kind is bool:
            return value if isinstance(value, bool) else None
        if isinstance(value, str) and value in self.options:
            return value
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if not self.low <= value <= self.high or (self.kind is int and value != int(value)):
            return None
        return None if self.odd and int(value) % 2 == 0 else self.kind(value)


def number(kind: type, default: Any, low: float, high: float, meaning: str, **more: Any) -> Any:
    """A field for a number in [low, high]; `more` goes to its `FieldRule`."""
    rule = FieldRule(kind, meaning, low=low, high=high, **more)
    return dataclasses.field(default=default, metadata={"rule": rule})


def word(default: str, options: tuple[str, ...], meaning: str, **more: Any) -> Any:
    """A field for one of some words; `more` goes to its `FieldRule`."""
    return dataclasses.field(default=default, metadata={"rule": FieldRule(str, meaning, options=options, **more)})


def out_channels() -> Any:
    """The channels of a block's output."""
    return number(int, dataclasses.MISSING, 1, 8192, "channels of the output", shapes=True)


def flag(default: bool, meaning: str, **more: Any) -> Any:
    """A field that is true or false; `more` goes to its `FieldRule`."""
    return dataclasses.field(default=default, metadata={"rule": FieldRule(bool, meaning, **more)})


def kernel_size(default: int = 3, odd: bool = True) -> Any:
    """The side of a square kernel."""
    return number(int, default, 1, 31, "side of the square kernel, pixels", odd=odd)


def stride(default: int = 1, **more: Any) -> Any:
    """The stride of a block."""
    return number(int, default, 1, 8, "stride; dropped where images are small (Architecture.strides)", **more)


def padding(default: int | str = "same", **more: Any) -> Any:
    """The zeros around a convolution's or a pool's input."""
    meaning = "pixels of zeros on each side; same: what keeps a map's size at stride 1 (odd kernels)"
    return number(int, default, 0, 1024, meaning, options=("same",), **more)


def dilation() -> Any:
    """The dilation of a kernel."""
    return number(int, 1, 1, 16, "distance of the kernel's taps, pixels")


def dropout(meaning: str = "share of values dropped while training") -> Any:
    """The share of values that dropout takes."""
    return number(float, 0.0, 0, 0.95, meaning, train_only=True)


def groups(meaning: str) -> Any:
    """The groups of a block's convolutions."""
    return number(int, 1, 1, 8192, meaning, shapes=True)


def activation(meaning: str = "activation", default: str = "relu", **more: Any) -> Any:
    """An activation's name."""
    return word(default, ACTIVATION_NAMES, meaning, **more)


def norm() -> Any:
    """A normalization's name. A BatchNorm folds into its convolution; a GroupNorm stays and costs."""
    return word("batch", NORM_NAMES, "normalization after each convolution", folded=("batch",))


def norm_eps() -> Any:
    """A normalization's epsilon."""
    return number(float, 1e-5, 1e-9, 1, "epsilon of the normalization", train_only=True)


def branches() -> Any:
    """What stands beside a convolution while it trains."""
    meaning = "parallel linear branches, summed into one convolution when fused"
    return word("none", BRANCH_NAMES, meaning, train_only=True)


def branch_count() -> Any:
    """Copies of a convolution in parallel while it trains."""
    return number(int, 1, 1, 16, "copies of the kxk convolution in parallel", train_only=True)


def drop_path() -> Any:
    """Stochastic depth."""
    return number(float, 0.0, 0, 0.95, "share of images whose residual branch is dropped in training", train_only=True)

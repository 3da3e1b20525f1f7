import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import batch_norm, conv2d

from nas.fusion import add_identity, compose_pointwise, fold_batch_norm
from tests.helpers import relative_difference

pytestmark = pytest.mark.usefixtures("one_thread")

RANDOM_SHAPES = settings(max_examples=30, deadline=None, derandomize=True)
EXACT = 1e-12


def numbers(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def variances(seed: int, channels: int) -> Tensor:
    return numbers(seed, channels).square() + 0.05


@RANDOM_SHAPES
@given(
    seed=st.integers(0, 10**6),
    groups=st.integers(1, 4),
    in_per_group=st.integers(1, 4),
    out_per_group=st.integers(1, 4),
    size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.integers(1, 3),
    padding=st.integers(0, 3),
    dilation=st.integers(1, 2),
    with_bias=st.booleans(),
    with_scale=st.booleans(),
    with_shift=st.booleans(),
    eps=st.sampled_from([1e-5, 1e-3, 0.1]),
)
def test_folding_a_batch_norm_equals_torch(
    seed, groups, in_per_group, out_per_group, size, stride, padding, dilation, with_bias, with_scale, with_shift, eps
):
    out_channels = groups * out_per_group
    x = numbers(seed, 2, groups * in_per_group, 13, 11)
    weight = numbers(seed + 1, out_channels, in_per_group, *size)
    bias = numbers(seed + 2, out_channels) if with_bias else None
    mean, var = numbers(seed + 3, out_channels), variances(seed + 4, out_channels)
    scale = numbers(seed + 5, out_channels) if with_scale else None
    shift = numbers(seed + 6, out_channels) if with_shift else None
    how = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    expected = batch_norm(conv2d(x, weight, bias, **how), mean, var, scale, shift, training=False, eps=eps)
    folded = fold_batch_norm(weight, bias, mean, var, scale, shift, eps)
    assert relative_difference(expected, conv2d(x, *folded, **how)) < EXACT


@RANDOM_SHAPES
@given(
    seed=st.integers(0, 10**6),
    channels=st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(1, 6)),
    size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.integers(1, 3),
    padding=st.integers(0, 3),
)
def test_composing_with_a_pointwise_convolution_equals_torch_at_borders_too(seed, channels, size, stride, padding):
    before, middle, after = channels
    x = numbers(seed, 2, before, 9, 10)
    weight1, bias1 = numbers(seed + 1, middle, before, *size), numbers(seed + 2, middle)
    weight2, bias2 = numbers(seed + 3, after, middle, 1, 1), numbers(seed + 4, after)
    expected = conv2d(conv2d(x, weight1, bias1, stride=stride, padding=padding), weight2, bias2)
    weight, bias = compose_pointwise(weight1, bias1, weight2, bias2)
    assert weight.shape == (after, before, *size) and bias.shape == (after,)
    assert weight.is_contiguous()
    assert relative_difference(expected, conv2d(x, weight, bias, stride=stride, padding=padding)) < EXACT


@RANDOM_SHAPES
@given(
    seed=st.integers(0, 10**6),
    groups=st.integers(1, 4),
    per_group=st.integers(1, 4),
    size=st.tuples(st.sampled_from([1, 3, 5]), st.sampled_from([1, 3, 7])),
)
def test_adding_the_identity_equals_a_residual_at_borders_too(seed, groups, per_group, size):
    channels = groups * per_group
    x = numbers(seed, 2, channels, 6, 7)
    weight, bias = numbers(seed + 1, channels, per_group, *size), numbers(seed + 2, channels)
    how = {"padding": (size[0] // 2, size[1] // 2), "groups": groups}
    expected = x + conv2d(x, weight, bias, **how)
    assert relative_difference(expected, conv2d(x, add_identity(weight, groups), bias, **how)) < EXACT


@pytest.mark.parametrize(
    ("shape", "groups"),
    [((4, 4, 2, 2), 1), ((4, 4, 3, 2), 1), ((4, 4, 4, 3), 1), ((4, 3, 3, 3), 1), ((4, 4, 3, 3), 2), ((6, 2, 3, 3), 2)],
)
def test_no_identity_fits_into_even_kernels_or_other_channels(shape, groups):
    with pytest.raises(ValueError, match="identity") as error:
        add_identity(numbers(0, *shape), groups)
    assert str(shape) in str(error.value)


@pytest.mark.parametrize(("first", "second"), [((5, 3, 3, 3), (4, 5, 3, 3)), ((5, 3, 3, 3), (4, 6, 1, 1))])
def test_only_a_pointwise_convolution_that_follows_on_can_be_composed(first, second):
    with pytest.raises(ValueError, match="1x1"):
        compose_pointwise(numbers(0, *first), numbers(1, first[0]), numbers(2, *second), numbers(3, second[0]))


def test_single_precision_weights_are_composed_in_double_and_rounded_once():
    def both(compose, *tensors):
        single = [None if tensor is None else tensor.float() for tensor in tensors]
        double = [None if tensor is None else tensor.double() for tensor in single]
        return compose(*single), compose(*double)

    weight, bias = numbers(0, 16, 24, 3, 3), numbers(1, 16)
    pointwise, bias2 = numbers(2, 8, 16, 1, 1), numbers(3, 8)
    mean, var, scale, shift = numbers(4, 16), variances(5, 16), numbers(6, 16), numbers(7, 16)
    for single, double in (
        both(lambda *t: fold_batch_norm(*t, eps=1e-5), weight, bias, mean, var, scale, shift),
        both(compose_pointwise, weight, bias, pointwise, bias2),
        both(lambda w: (add_identity(w),), numbers(8, 8, 8, 3, 3)),
    ):
        for got, exact in zip(single, double, strict=True):
            assert got.dtype == torch.float32 and exact.dtype == torch.float64
            assert torch.equal(got, exact.float())


def test_arguments_are_not_changed():
    tensors = [numbers(0, 4, 4, 3, 3), numbers(1, 4), numbers(2, 4), variances(3, 4), numbers(4, 4), numbers(5, 4)]
    pointwise = numbers(6, 4, 4, 1, 1)
    copies = [tensor.clone() for tensor in (*tensors, pointwise)]
    fold_batch_norm(*tensors, eps=1e-5)
    compose_pointwise(tensors[0], tensors[1], pointwise, tensors[2])
    add_identity(tensors[0])
    assert all(torch.equal(copy, tensor) for copy, tensor in zip(copies, (*tensors, pointwise), strict=True))

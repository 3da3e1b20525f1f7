import dataclasses
from functools import reduce

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, batch_norm, conv2d, linear, pad

from nas.fusion import (
    affine_after,
    affine_before,
    average_pool_conv,
    batch_norm_affine,
    compose,
    conv_into_linear,
    identity_conv,
    pad_once,
    parallel_sum,
    regroup,
)
from nas.linear_conv import LinearConv
from tests.helpers import relative_difference

pytestmark = pytest.mark.usefixtures("one_thread")

RANDOM = settings(max_examples=40, deadline=None, derandomize=True)
EXACT = 1e-12
SEEDS = st.integers(0, 10**6)
# Channels that all of these groups divide.
CHANNELS, GROUPS = 12, st.sampled_from([1, 2, 3, 4, 6, 12])


def numbers(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def variances(seed: int, channels: int) -> Tensor:
    return numbers(seed, channels).square() + 0.05


def pairs(low: int, high: int):
    return st.tuples(st.integers(low, high), st.integers(low, high))


KERNELS, STRIDES, PADDINGS, DILATIONS = pairs(1, 3), pairs(1, 3), pairs(0, 2), pairs(1, 2)


@st.composite
def convs(
    draw,
    before=CHANNELS,
    after=CHANNELS,
    kernel=KERNELS,
    stride=STRIDES,
    padding=PADDINGS,
    dilation=DILATIONS,
    groups=GROUPS,
):
    count, seed = draw(groups), draw(SEEDS)
    weight = numbers(seed, after, before // count, *draw(kernel))
    return LinearConv(
        weight,
        numbers(seed + 1, after) if draw(st.booleans()) else None,
        draw(stride),
        draw(padding),
        draw(dilation),
        count,
    )


def torch_conv(conv: LinearConv, x: Tensor) -> Tensor:
    """By torch's own function, not by `LinearConv.apply`."""
    return conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)


def assert_same(expected: Tensor, actual: Tensor) -> None:
    """Everywhere, and on each border by itself; borders that are all zero (a padded 1x1) stay all but zero."""
    assert relative_difference(expected, actual) < EXACT
    wrong = (expected - actual).abs()
    for side in (0, -1):
        for axis in (-1, -2):
            scale = expected.select(axis, side).abs().max().clamp(min=0.1)
            assert wrong.select(axis, side).max() < EXACT * scale


def on_meta(conv: LinearConv) -> LinearConv:
    bias = None if conv.bias is None else conv.bias.to("meta")
    return dataclasses.replace(conv, weight=conv.weight.to("meta"), bias=bias)


def structure(conv: LinearConv) -> tuple[object, ...]:
    return (
        conv.weight.shape,
        conv.weight.dtype,
        None if conv.bias is None else (conv.bias.shape, conv.bias.dtype),
        (conv.stride, conv.padding, conv.dilation, conv.groups),
    )


@RANDOM
@given(conv=convs(), seed=SEEDS, scaled=st.booleans(), shifted=st.booleans(), eps=st.sampled_from([1e-5, 1e-3, 0.1]))
def test_a_batch_norm_folds_into_the_convolution_before_it(conv, seed, scaled, shifted, eps):
    x = numbers(seed, 2, CHANNELS, 13, 11)
    mean, var = numbers(seed + 1, CHANNELS), variances(seed + 2, CHANNELS)
    scale = numbers(seed + 3, CHANNELS) if scaled else None
    shift = numbers(seed + 4, CHANNELS) if shifted else None
    folded = affine_after(conv, *batch_norm_affine(mean, var, scale, shift, eps))
    assert_same(batch_norm(torch_conv(conv, x), mean, var, scale, shift, eps=eps), torch_conv(folded, x))
    assert_same(torch_conv(folded, x), folded.apply(x))


@RANDOM
@given(conv=convs(), seed=SEEDS)
def test_an_affine_map_folds_into_the_convolution_after_it_if_padded_with_the_border_values(conv, seed):
    x = numbers(seed, 2, CHANNELS, 13, 11)
    factor, offset = variances(seed + 1, CHANNELS) * numbers(seed + 2, CHANNELS).sign(), numbers(seed + 3, CHANNELS)
    expected = torch_conv(conv, x * factor[:, None, None] + offset[:, None, None])
    folded, border = affine_before(factor, offset, conv)
    height, width = conv.padding
    if conv.padding == (0, 0):
        assert border is None
        assert_same(expected, torch_conv(folded, x))
    else:
        assert border is not None and folded.padding == (0, 0)
        assert torch.allclose(factor * border + offset, torch.zeros(CHANNELS, dtype=torch.float64), atol=1e-12)
        padded = border[:, None, None].expand(2, -1, 13 + 2 * height, 11 + 2 * width).clone()
        padded[:, :, height : height + 13, width : width + 11] = x
        assert_same(expected, torch_conv(folded, padded))


def test_zeros_instead_of_the_border_values_are_wrong_at_the_border_only():
    conv = LinearConv(numbers(0, 4, 3, 3, 3), None, padding=(1, 1))
    factor, offset, x = variances(1, 3), numbers(2, 3), numbers(3, 1, 3, 8, 8)
    expected = torch_conv(conv, x * factor[:, None, None] + offset[:, None, None])
    folded, _ = affine_before(factor, offset, conv)
    naive = torch_conv(folded, pad(x, (1, 1, 1, 1)))
    assert relative_difference(expected[..., 1:-1, 1:-1], naive[..., 1:-1, 1:-1]) < EXACT
    assert relative_difference(expected, naive) > 0.05


def test_a_factor_of_zero_has_no_border_value():
    factor, offset = torch.tensor([1.0, 0.0, 2.0]), torch.tensor([1.0, 1.0, 0.0])
    unpadded = LinearConv(numbers(0, 4, 3, 3, 3), None)
    folded, border = affine_before(factor, offset, unpadded)
    assert border is None
    x = numbers(1, 1, 3, 6, 6)
    assert_same(
        torch_conv(unpadded, x * factor[:, None, None] + offset[:, None, None]),
        torch_conv(folded, x),
    )
    with pytest.raises(ValueError, match="factor of 0"):
        affine_before(factor, offset, dataclasses.replace(unpadded, padding=(0, 1)))


@RANDOM
@given(conv=convs(), groups=GROUPS, seed=SEEDS)
def test_regrouping_keeps_the_map(conv, groups, seed):
    if conv.groups % groups:
        with pytest.raises(ValueError, match="divide"):
            regroup(conv, groups)
        return
    regrouped, x = regroup(conv, groups), numbers(seed, 2, CHANNELS, 13, 11)
    assert regrouped.groups == groups and regrouped.weight.shape[1] == CHANNELS // groups
    assert_same(torch_conv(conv, x), torch_conv(regrouped, x))


@st.composite
def branches(draw):
    """Parallel convolutions of one stride whose padding keeps their output sizes the same."""
    stride = draw(pairs(1, 3))
    fitting = []  # per axis (kernel, dilation, padding) of one 2 * padding - extent
    for _ in range(2):
        difference = draw(st.integers(-3, 1))
        shapes = [(size, spread, (size - 1) * spread + 1 + difference) for size in range(1, 5) for spread in (1, 2, 3)]
        fitting.append([(size, spread, twice // 2) for size, spread, twice in shapes if twice >= 0 and twice % 2 == 0])
    result = []
    for _ in range(draw(st.integers(1, 4))):
        axes = [draw(st.sampled_from(options)) for options in fitting]
        kernel, dilation, padding = (st.just(values) for values in zip(*axes, strict=True))
        result.append(draw(convs(kernel=kernel, stride=st.just(stride), padding=padding, dilation=dilation)))
    return result


@RANDOM
@given(parts=branches(), seed=SEEDS)
def test_parallel_branches_are_one_convolution(parts, seed):
    x = numbers(seed, 2, CHANNELS, 13, 14)
    summed = parallel_sum(*parts)
    assert_same(sum(torch_conv(part, x) for part in parts), torch_conv(summed, x))
    assert (summed.bias is None) == all(part.bias is None for part in parts)
    assert structure(parallel_sum(*map(on_meta, parts))) == structure(summed)


@pytest.mark.parametrize("groups", [1, 2, 12])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2)])
def test_a_block_of_kxk_1xn_1x1_identity_and_pooling_branches(groups, stride):
    def conv(seed: int, *size: int) -> LinearConv:
        padding = size[0] // 2, size[1] // 2
        return LinearConv(numbers(seed, 12, 12 // groups, *size), None, stride, padding, groups=groups)

    x = numbers(9, 2, 12, 7, 7)
    pool = average_pool_conv(12, (3, 3), stride=stride, padding=(1, 1), count_include_pad=True, like=x)
    parts = [conv(0, 3, 3), conv(1, 1, 3), conv(2, 5, 1), conv(3, 1, 1), pool]
    expected = sum(torch_conv(part, x) for part in parts[:4]) + avg_pool2d(x, 3, stride, 1)
    if stride == (1, 1):
        parts.append(identity_conv(12, like=x))
        expected = expected + x
    summed = parallel_sum(*parts)
    assert_same(expected, torch_conv(summed, x))
    assert (summed.kernel_size, summed.padding, summed.groups, summed.bias) == ((5, 3), (2, 1), groups, None)


def test_a_sum_is_dilated_by_the_lattice_on_which_all_taps_lie():
    part = LinearConv(numbers(0, 4, 4, 3, 3), None, padding=(2, 2), dilation=(2, 2))
    other = LinearConv(numbers(1, 4, 4, 1, 1), None)
    assert (parallel_sum(part, part).kernel_size, parallel_sum(part, part).dilation) == ((3, 3), (2, 2))
    assert (parallel_sum(part, other).kernel_size, parallel_sum(part, other).dilation) == ((3, 3), (2, 2))
    odd = LinearConv(numbers(1, 4, 4, 3, 3), None, padding=(1, 1))
    assert (parallel_sum(part, odd).kernel_size, parallel_sum(part, odd).dilation) == ((5, 5), (1, 1))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"stride": (2, 2)}, "strides"),
        ({"padding": (0, 1)}, "padding"),
        ({"weight": numbers(0, 4, 4, 2, 3)}, "padding"),
        ({"weight": numbers(0, 8, 4, 3, 3)}, "channels"),
        ({"weight": numbers(0, 4, 2, 3, 3)}, "channels"),
    ],
)
def test_branches_that_do_not_fit_have_no_sum(change, match):
    part = LinearConv(numbers(0, 4, 4, 3, 3), None, padding=(1, 1))
    with pytest.raises(ValueError, match=match):
        parallel_sum(part, dataclasses.replace(part, **change))
    with pytest.raises(ValueError, match="at least one"):
        parallel_sum()


@RANDOM
@given(size=pairs(1, 4), stride=pairs(1, 3), seed=SEEDS, data=st.data())
def test_average_pooling_is_a_depthwise_convolution(size, stride, seed, data):
    padding = data.draw(st.tuples(st.integers(0, size[0] // 2), st.integers(0, size[1] // 2)))
    x = numbers(seed, 2, 5, 9, 10)
    how = {"stride": stride, "padding": padding, "like": x}
    conv = average_pool_conv(5, size, count_include_pad=True, **how)
    assert conv.groups == 5
    assert_same(avg_pool2d(x, size, stride, padding), torch_conv(conv, x))
    if padding == (0, 0):
        assert torch.equal(average_pool_conv(5, size, count_include_pad=False, **how).weight, conv.weight)
    else:
        with pytest.raises(ValueError, match="count_include_pad"):
            average_pool_conv(5, size, count_include_pad=False, **how)


@settings(RANDOM, max_examples=120)
@given(first=convs(), second=convs(after=24, padding=st.just((0, 0)) | pairs(0, 1)), seed=SEEDS)
def test_two_convolutions_are_one_or_it_is_said_that_they_are_not(first, second, seed):
    exact = all(
        second.padding[d] == 0 or (first.kernel_size[d] == 1 and first.padding[d] == 0 and first.bias is None)
        for d in (0, 1)
    )
    if not exact:
        with pytest.raises(ValueError, match="pad once"):
            compose(first, second)
        with pytest.raises(ValueError, match="pad once"):
            compose(on_meta(first), on_meta(second))
        first, second = pad_once([first, second])
    composed, x = compose(first, second), numbers(seed, 2, CHANNELS, 27, 26)
    assert_same(torch_conv(second, torch_conv(first, x)), torch_conv(composed, x))
    assert composed.extent == tuple(first.extent[d] + (second.extent[d] - 1) * first.stride[d] for d in (0, 1))
    assert composed.stride == tuple(first.stride[d] * second.stride[d] for d in (0, 1))
    assert structure(compose(on_meta(first), on_meta(second))) == structure(composed)


@RANDOM
@given(first=convs(kernel=st.just((1, 1)), padding=st.just((0, 0))), second=convs(padding=pairs(1, 2)), seed=SEEDS)
def test_a_pointwise_convolution_without_bias_composes_with_a_padded_one(first, second, seed):
    first, x = dataclasses.replace(first, bias=None), numbers(seed, 2, CHANNELS, 21, 20)
    composed = compose(first, second)
    assert_same(torch_conv(second, torch_conv(first, x)), torch_conv(composed, x))
    with pytest.raises(ValueError, match="pad once"):  # whatever the bias holds
        compose(dataclasses.replace(first, bias=torch.zeros(CHANNELS)), second)


def test_separable_kernels_without_bias_compose_though_both_are_padded():
    row = LinearConv(numbers(0, 5, 4, 1, 7), None, padding=(0, 3))
    column = LinearConv(numbers(1, 6, 5, 7, 1), numbers(2, 6), padding=(3, 0))
    composed, x = compose(row, column), numbers(3, 1, 4, 6, 6)
    assert (composed.kernel_size, composed.padding) == ((7, 7), (3, 3))
    assert_same(torch_conv(column, torch_conv(row, x)), torch_conv(composed, x))


def test_two_padded_convolutions_are_not_one_at_the_border():
    first = LinearConv(numbers(0, 4, 3, 3, 3), None, padding=(1, 1))
    second = LinearConv(numbers(1, 5, 4, 3, 3), None, padding=(1, 1))
    x = numbers(2, 1, 3, 9, 9)
    expected, naive = torch_conv(second, torch_conv(first, x)), torch_conv(compose(*pad_once([first, second])), x)
    assert relative_difference(expected[..., 1:-1, 1:-1], naive[..., 1:-1, 1:-1]) < EXACT
    assert relative_difference(expected, naive) > 0.05


@settings(RANDOM, max_examples=60)
@given(chain=st.lists(convs(stride=pairs(1, 2)), min_size=2, max_size=4), seed=SEEDS)
def test_a_chain_that_is_padded_once_is_one_convolution(chain, seed):
    x = numbers(seed, 1, CHANNELS, 61, 58)
    before = reduce(lambda y, conv: torch_conv(conv, y), chain, x)
    padded = pad_once(chain)
    assert all(conv.padding == (0, 0) for conv in padded[1:])
    expected = reduce(lambda y, conv: torch_conv(conv, y), padded, x)
    assert expected.shape == before.shape
    whole = reduce(compose, padded)
    assert_same(expected, torch_conv(whole, x))
    assert structure(reduce(compose, map(on_meta, padded))) == structure(whole)


def test_padding_once_of_nothing_and_of_one():
    conv = LinearConv(numbers(0, 2, 2, 3, 3), None, (2, 1), (1, 2))
    assert pad_once([]) == ()
    (same,) = pad_once([conv])
    assert same.padding == (1, 2)


def test_groups_and_dilation_stay_where_they_can():
    depthwise = LinearConv(numbers(0, 6, 1, 3, 3), None, groups=6)
    assert compose(depthwise, depthwise).weight.shape == (6, 1, 5, 5)
    pointwise = LinearConv(numbers(1, 6, 2, 1, 1), None, groups=3)
    assert compose(depthwise, pointwise).weight.shape == (6, 2, 3, 3)
    dilated = LinearConv(numbers(2, 6, 6, 3, 3), None, dilation=(2, 3))
    for composed in (compose(pointwise, dilated), compose(dilated, pointwise)):
        assert (composed.kernel_size, composed.dilation, composed.groups) == ((3, 3), (2, 3), 1)
    assert compose(dataclasses.replace(pointwise, stride=(2, 2)), dilated).kernel_size == (9, 13)
    with pytest.raises(ValueError, match="6 output"):
        compose(depthwise, LinearConv(numbers(3, 4, 4, 1, 1), None))


@RANDOM
@given(
    conv=convs(kernel=st.just((1, 1)), stride=st.just((1, 1)), padding=st.just((0, 0))),
    seed=SEEDS,
    with_bias=st.booleans(),
)
def test_a_pointwise_convolution_before_global_pooling_goes_into_the_classifier(conv, seed, with_bias):
    x, weight = numbers(seed, 3, CHANNELS, 5, 4), numbers(seed + 1, 7, CHANNELS)
    bias = numbers(seed + 2, 7) if with_bias else None
    expected = linear(adaptive_avg_pool2d(torch_conv(conv, x), 1).flatten(1), weight, bias)
    merged = conv_into_linear(conv, weight, bias)
    assert relative_difference(expected, linear(adaptive_avg_pool2d(x, 1).flatten(1), *merged)) < EXACT


@pytest.mark.parametrize("change", [{"stride": (1, 2)}, {"padding": (1, 0)}, {"weight": numbers(0, 4, 4, 1, 3)}])
def test_other_convolutions_do_not_commute_with_pooling(change):
    conv = LinearConv(numbers(0, 4, 4, 1, 1), None)
    with pytest.raises(ValueError, match="1x1"):
        conv_into_linear(dataclasses.replace(conv, **change), numbers(1, 3, 4), None)
    with pytest.raises(ValueError, match="4 channels"):
        conv_into_linear(conv, numbers(1, 3, 5), None)


def test_what_is_no_convolution_is_refused():
    with pytest.raises(ValueError, match="2-d"):
        LinearConv(numbers(0, 4, 4), None)
    with pytest.raises(ValueError, match="groups=3"):
        LinearConv(numbers(0, 4, 4, 3, 3), None, groups=3)


def everything(conv: LinearConv, pointwise: LinearConv, factor: Tensor, weight: Tensor) -> list[Tensor]:
    """One result of each function."""
    before, border = affine_before(factor, factor, conv)
    made = [
        affine_after(conv, *batch_norm_affine(factor, factor, factor, None, 1e-5)),
        before,
        regroup(conv, 1),
        parallel_sum(conv, pointwise, identity_conv(4, like=factor)),
        compose(conv, pointwise),
    ]
    assert border is not None
    tensors = [border, *conv_into_linear(pointwise, weight, None)]
    return [*tensors, *(t for one in made for t in (one.weight, one.bias) if t is not None)]


def arguments(dtype: torch.dtype) -> tuple[LinearConv, LinearConv, Tensor, Tensor]:
    conv = LinearConv(numbers(0, 4, 2, 3, 3), numbers(1, 4), padding=(1, 1), groups=2)
    pointwise = LinearConv(numbers(2, 4, 4, 1, 1), numbers(3, 4))
    rounded = conv.to(torch.float32).to(dtype), pointwise.to(torch.float32).to(dtype)
    return *rounded, variances(4, 4).float().to(dtype), numbers(5, 3, 4).float().to(dtype)


def test_single_precision_is_computed_in_double_and_rounded_once():
    single, double = everything(*arguments(torch.float32)), everything(*arguments(torch.float64))
    for got, exact in zip(single, double, strict=True):
        assert got.dtype == torch.float32 and exact.dtype == torch.float64
        assert torch.equal(got, exact.float())


def test_meta_tensors_tell_the_structure():
    conv, pointwise, factor, weight = arguments(torch.float32)
    meta = everything(on_meta(conv), on_meta(pointwise), factor.to("meta"), weight.to("meta"))
    real = everything(conv, pointwise, factor, weight)
    assert all(tensor.is_meta for tensor in meta)
    assert [(t.shape, t.dtype) for t in meta] == [(t.shape, t.dtype) for t in real]


def test_arguments_are_not_changed():
    given_, untouched = arguments(torch.float64), arguments(torch.float64)
    everything(*given_)
    for one, other in zip(given_, untouched, strict=True):
        if isinstance(one, LinearConv) and isinstance(other, LinearConv):
            assert one.bias is not None and other.bias is not None and torch.equal(one.bias, other.bias)
            one, other = one.weight, other.weight
        assert isinstance(one, Tensor) and isinstance(other, Tensor) and torch.equal(one, other)

"""The algebra of receptive fields, against publications and against what layers really read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.receptive_field import IMAGE, ReceptiveField, Window, receptive_fields, widest

LENET = [(5, 1), (2, 2), (5, 1), (2, 2)]
ALEXNET = [(11, 4), (3, 2), (5, 1), (3, 2), (3, 1), (3, 1), (3, 1), (3, 2)]


def bottlenecks(depths: tuple[int, ...], slim: bool) -> list[tuple[int, int]]:
    """Kernels and strides of a ResNet's longest path.

    torchvision strides in the first block of stages 2 to 4, TF-slim in the last one of stages 1 to 3.
    """
    layers = [(7, 2), (3, 2)]
    for stage, depth in enumerate(depths):
        strided = depth - 1 if slim else 0
        has_stride = stage < len(depths) - 1 if slim else stage > 0
        layers += [(3, 2 if has_stride and block == strided else 1) for block in range(depth)]
    return layers


def test_chains_see_what_the_publications_say():
    assert receptive_fields(LENET) == [5, 6, 14, 16]
    assert receptive_fields(ALEXNET) == [11, 19, 51, 67, 99, 131, 163, 195]
    assert receptive_fields([]) == []


@pytest.mark.parametrize(
    ("depths", "torchvision", "slim"),
    [((3, 4, 6, 3), 427, 483), ((3, 4, 23, 3), 971, 1027), ((3, 8, 36, 3), 1451, 1507)],
)
def test_where_a_stage_strides_decides_what_a_resnet_sees(depths, torchvision, slim):
    assert receptive_fields(bottlenecks(depths, slim=False))[-1] == torchvision
    assert receptive_fields(bottlenecks(depths, slim=True))[-1] == slim


def pixels(windows: list[Window], value: int) -> set[int]:
    """The pixels of a row that value number `value` of the last map depends on."""
    read = {value}
    for window in reversed(windows):
        taps = [tap * window.dilation[1] for tap in range(window.kernel_size[1])]
        read = {each * window.stride[1] + tap for each in read for tap in taps}
    return read


WINDOWS = st.lists(
    st.builds(
        lambda kernel, stride, dilation: Window((1, kernel), (1, stride), (1, dilation)),
        *(st.integers(1, 5), st.integers(1, 3), st.integers(1, 3)),
    ),
    max_size=5,
)


@given(WINDOWS)
def test_the_field_spans_the_pixels_that_are_read_and_neighbours_are_a_jump_apart(windows):
    field = IMAGE
    for window in windows:
        field = field.through(window)
    first, second = pixels(windows, 0), pixels(windows, 1)
    assert field.size == (1, max(first) + 1) and min(first) == 0
    assert field.jump == (1, min(second))


def test_several_paths_see_what_the_widest_sees_in_each_direction():
    row, column = IMAGE.through(Window((1, 7))), IMAGE.through(Window((5, 1)))
    assert widest([row, column, IMAGE]) == ReceptiveField((5, 7))
    assert widest([row, ReceptiveField(everywhere=True)]) == ReceptiveField((1, 7), everywhere=True)
    assert widest([row, ReceptiveField(everywhere=True)]).through(Window((3, 3))).everywhere

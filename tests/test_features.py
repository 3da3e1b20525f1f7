"""What latency is regressed on: who computes in blocks, what adds up, and that no kind of layer is left out."""

import subprocess
import sys
from typing import Any, get_args

import numpy as np
import pytest

import nas
from nas.latency.features import CACHES, KINDS, PLACES, PRICES, Figures, features
from nas.layers import Layer, deploy_layers
from nas.layers.layer import Kind

SPACES = ["mobile", "resnet", "shuffle", "inception", "reducenet"]


def conv(in_channels: int, out_channels: int, side: int = 8, kernel: int = 1, **more: Any) -> Layer:
    """A convolution that keeps the map's size."""
    at: dict[str, Any] = {"kernel_size": (kernel, kernel), "padding": (kernel // 2, kernel // 2)}
    return Layer("conv", in_channels, out_channels, (side, side), (side, side), **{**at, **more})


def same(kind: Kind, channels: int, side: int = 8) -> Layer:
    return Layer(kind, channels, channels, (side, side), (side, side))


def sums(*layers: Layer) -> dict[str, Figures]:
    """What is summed of each kind that occurs, in its own units."""
    table = features(layers)[: -len(CACHES)].reshape(len(KINDS), len(PRICES)) / np.array(PRICES)
    return {kind: Figures(*table[place]) for kind, place in PLACES.items() if table[place].any()}


def pooled(channels: int) -> tuple[Layer, ...]:
    """A gate, as squeeze-excitation has it."""
    size = (8, 8)
    pool = Layer("global_pool", channels, channels, size, (1, 1))
    gate = Layer("multiply", channels, channels, size, size, second_elements=channels)
    return pool, conv(channels, 16, 1), conv(16, channels, 1), gate


@pytest.mark.parametrize("space", SPACES)
def test_networks_have_finite_features_of_one_shape(space):
    archs = [nas.load_space(space).sample(seed) for seed in range(5)]
    rows = np.array([features(deploy_layers(arch, 10, (3, 32, 32), "macs")) for arch in archs])
    assert rows.shape == (5, len(KINDS) * len(PRICES) + len(CACHES))
    assert np.isfinite(rows).all()
    assert (rows >= 0).all()
    assert (rows.sum(axis=1) > 0).all()
    assert not features(()).any()


@pytest.mark.parametrize("space", SPACES)
def test_sums_of_networks_one_after_the_other_add_up(space):
    first, second = (deploy_layers(nas.load_space(space).sample(seed), 10, (3, 32, 32)) for seed in (0, 1))
    parts = features(first) + features(second)
    np.testing.assert_allclose(features((*first, *second))[: -len(CACHES)], parts[: -len(CACHES)])


@pytest.mark.parametrize("kind", get_args(Kind))
def test_every_kind_of_layer_has_a_place(kind):
    for channels in (3, 6, 16):
        layer = conv(channels, channels, kernel=3) if kind == "conv" else same(kind, channels)
        for before in ((), (conv(16, channels),)):
            assert features((*before, layer)).sum() > features(before).sum()


def test_channels_are_filled_up_to_blocks():
    narrow, wide = (sums(conv(32, channels))["pointwise/blocked"] for channels in (36, 48))
    assert narrow == wide
    assert narrow.macs == 32 * 48 * 64
    assert sums(conv(36, 36, kernel=3, groups=36))["depthwise/blocked"].macs == 48 * (3 * 8 - 2) ** 2


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        (conv(3, 20, kernel=3), "dense3/few channels"),
        (conv(20, 20, kernel=5), "dense5/blocked"),
        (conv(20, 20, kernel_size=(1, 7), padding=(0, 3)), "dense7/blocked"),
        (conv(18, 20), "pointwise/plain"),
        (conv(18, 18, kernel=3, groups=18), "depthwise/plain"),
        (conv(32, 64, groups=2), "grouped/blocked"),
        (conv(32, 32, groups=4), "grouped/plain"),
    ],
)
def test_convolutions_are_told_apart(layer, kind):
    assert kind in sums(layer)


def test_maps_are_laid_out_anew_where_blocks_begin_and_end():
    assert sums(conv(16, 36), same("relu", 36), conv(36, 16), same("shuffle", 16)) == (
        sums(conv(16, 36), same("relu", 36), conv(36, 16)) | sums(same("shuffle", 16)) | {"from blocks": moved(1024)}
    )
    assert "from blocks" not in sums(conv(3, 16), conv(16, 16), same("add", 16))
    assert sums(conv(16, 8), conv(8, 16))["from blocks"] == moved(1024)


def moved(numbers: int, layers: int = 1) -> Figures:
    return Figures(layers=layers, read=numbers)


def test_a_gated_map_is_laid_out_anew_once():
    aligned = sums(conv(32, 32), *pooled(32))["from blocks"]
    assert aligned.read == 32 * 64 + 32
    unaligned = sums(conv(32, 36), *pooled(36))["from blocks"]
    assert unaligned.read == 48 * 64 + 36


def test_what_touches_the_border_is_computed_pixel_by_pixel():
    # 8 pixels in a row: 2 at the border with 2 of 3 taps each, 6 at once with 3; 8 rows, of which 2 lack a tap
    assert sums(conv(16, 16, kernel=3))["dense3/blocked"].steps == (2 * 2 + 3) * (3 * 8 - 2) * 16
    assert sums(conv(16, 16))["pointwise/blocked"].steps == 11 * 16


def test_weights_beyond_caches_are_told():
    small, large = features((conv(64, 64),)), features((conv(1024, 1024),))
    assert not small[-len(CACHES) :].any()
    np.testing.assert_allclose(large[-len(CACHES) :], [PRICES.weights * max(0, 2**20 - cache) for cache in CACHES])


def test_features_need_no_torch():
    told = "import sys, nas.latency.features; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", told], check=False).returncode == 0

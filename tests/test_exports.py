"""Fused networks of every space and block are accepted by the exporters, and give the same outputs there."""

import json
import math
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch

from nas.data import Augmentation, ImageData, Images
from nas.deploy import Model, input_words, write_model
from nas.networks.builder import build
from nas.networks.fading import set_fading
from nas.networks.fusing import fuse
from nas.networks.merging import MergePlan, apply_merges, conv_macs, plan_merges
from nas.networks.onnx_file import onnx_bytes
from nas.space_file import load_architecture, load_space, space_names
from tests.helpers import randomise, relative_difference
from tests.test_networks import LIGHT_ZOO

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore")]
SHAPE = (3, 16, 16)


def shipped(arch, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    network = build(arch, num_classes=5, input_shape=SHAPE)
    randomise(network, seed)
    set_fading(network, 0)
    fused = fuse(network)
    return apply_merges(fused, plan_merges(fused, conv_macs))


def check_torch_export(network: torch.nn.Module, x: torch.Tensor) -> None:
    program = torch.export.export(network, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=2)},))
    more = torch.randn(5, *SHAPE)
    with torch.no_grad():
        assert relative_difference(network(more), program.module()(more)) < 1e-5


def check_onnx(network: torch.nn.Module, x: torch.Tensor, file) -> None:
    file.write_bytes(onnx_bytes(network, tuple(x.shape[1:])))
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    given = np.asarray(session.run(None, {"images": x.numpy()})[0])
    with torch.no_grad():
        assert relative_difference(network(x), torch.from_numpy(given)) < 1e-4


@pytest.mark.parametrize("name", space_names())
def test_a_sample_of_every_space_is_exported_both_ways(name, tmp_path):
    network, x = shipped(load_space(name).sample(0)), torch.randn(3, *SHAPE)
    check_torch_export(network, x)
    check_onnx(network, x, tmp_path / "model.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
@pytest.mark.parametrize("name", space_names())
def test_more_samples_of_every_space_are_exported_both_ways(name, seed, tmp_path):
    network, x = shipped(load_space(name).sample(seed), seed), torch.randn(3, *SHAPE)
    check_torch_export(network, x)
    check_onnx(network, x, tmp_path / "model.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("name", LIGHT_ZOO)
def test_the_zoo_is_exported_both_ways(name, tmp_path):
    network, x = shipped(load_architecture(name)), torch.randn(3, *SHAPE)
    check_torch_export(network, x)
    check_onnx(network, x, tmp_path / "model.onnx")


def test_bytes_of_pictures_are_black_at_0_and_white_at_255_though_no_image_has_them():
    dark = Images(torch.full((9, *SHAPE), 160, dtype=torch.uint8), torch.zeros(9, dtype=torch.int64))
    data = ImageData("dark", dark, dark, dark, ("a",), (0.0,) * 3, (1.0,) * 3, Augmentation(0, False))
    assert input_words(data)["range"] == [0, 255]
    for x, value in ((dark.x / 320, 0.5), (dark.x // 10, 16)):  # units of their own
        assert input_words(replace(data, train=Images(x, dark.y)))["range"] == [value, value]


def test_an_exported_file_is_compared_with_its_network_in_batches_that_fit_into_memory(tmp_path):
    # Measured: 2,675 images of 28x28 at a time took 15 GB with a narrow MobileNetV2.
    images = Images(torch.randn(700, *SHAPE), torch.zeros(700, dtype=torch.int64))
    data = ImageData("noise", images, images, images, tuple("abcde"), (0.0,) * 3, (1.0,) * 3, Augmentation(0, False))
    arch = load_space("tiny").sample(0)
    network = shipped(arch)
    seen = []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    write_model(Model(arch, network, network, MergePlan(()), data, {}), tmp_path / "model")
    compared = [shape for shape in seen if shape[0] > 1]
    assert sum(shape[0] for shape in compared) == 700
    assert max(math.prod(shape) for shape in compared) <= 2**17
    assert json.loads((tmp_path / "model" / "metrics.json").read_text())["onnx_difference"] < 1e-4

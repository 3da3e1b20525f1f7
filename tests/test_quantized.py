"""The int8 form: its predictions, its copies, and a search whose accuracy and files are those of it."""

import copy
import json
import pickle

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import nas
from nas.config import LatencyConfig
from nas.data import load_data
from nas.deploy import load_deployed
from nas.job import Job
from nas.networks.fusing import fuse
from nas.networks.merging import apply_merges, conv_macs, plan_merges
from nas.networks.onnx_file import OnnxNetwork
from nas.networks.quantized import quantize
from nas.recipes import TrainConfig, TrainOverrides
from nas.store import RunStore
from nas.training.evaluation import evaluate
from nas.training.loop import Training
from tests.searching import events_of, small_search

pytestmark = pytest.mark.usefixtures("one_thread")
SHAPE = (1, 8, 8)


def operators(model):
    loaded = onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(str(model))
    return {node.op_type for node in loaded.graph.node}


@pytest.fixture(scope="module")
def data():
    return load_data("digits", "unused", 0.25, 0)


@pytest.fixture(scope="module")
def trained(data):
    """A network of the smallest space in deploy form, after some epochs."""
    torch.manual_seed(0)
    architectures = [nas.load_space("tiny").sample(seed) for seed in range(12)]
    networks = [nas.build(each, num_classes=10, input_shape=SHAPE) for each in architectures]
    network = max(networks, key=lambda each: sum(p.numel() for p in each.parameters()))
    for _ in Training(network, data, TrainConfig(epochs=5, warmup_epochs=0), 0, lambda: None).epochs():
        pass
    return fuse(network)


@pytest.fixture(scope="module")
def quantized(trained, data):
    return quantize(trained, data.normalize(data.train.x[:128]))


@torch.no_grad()
def test_it_mostly_predicts_as_the_network_that_it_was_made_of(trained, quantized, data):
    images = data.normalize(data.validation.x)
    expected, given = trained(images), quantized(images)
    assert evaluate(trained, data, data.validation) > 0.5
    assert (expected.argmax(1) == given.argmax(1)).float().mean() > 0.9
    assert given.shape == expected.shape and given.dtype == torch.float32
    difference = (expected - given).abs().max() / expected.abs().max()
    assert 0 < difference < 0.3  # it is another network, though
    assert abs(evaluate(quantized, data, data.validation) - evaluate(trained, data, data.validation)) < 0.05


def test_its_weights_are_int8(quantized):
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators(quantized.onnx_model)
    stored = [each for each in onnx.load_from_string(quantized.onnx_model).graph.initializer if len(each.dims) == 4]
    assert stored and {each.data_type for each in stored} == {onnx.TensorProto.INT8}


@torch.no_grad()
@pytest.mark.parametrize("how", ["copied", "pickled"])
def test_copies_are_the_same_network(quantized, data, how):
    other = copy.deepcopy(quantized) if how == "copied" else pickle.loads(pickle.dumps(quantized))  # noqa: S301  # ours
    images = data.normalize(data.validation.x[:50])
    assert isinstance(other, OnnxNetwork) and other is not quantized
    assert (other.onnx_model, other.input_shape, other.threads) == (quantized.onnx_model, SHAPE, 1)
    assert torch.equal(other(images), quantized(images))


@torch.no_grad()
def test_any_batch_size_and_memory_order_gives_the_same_logits(quantized, data):
    images = data.normalize(data.validation.x[:6])
    together = quantized(images)
    assert torch.equal(together, torch.cat([quantized(image) for image in images.split(1)]))
    assert torch.equal(together, quantized(images.flip(0)).flip(0))
    assert torch.equal(together, quantized(images.transpose(2, 3).contiguous().transpose(2, 3)))


def test_quantizing_leaves_all_else_as_it_was(trained, data, caplog):
    before = {key: value.clone() for key, value in trained.state_dict().items()}
    random, images = torch.random.get_rng_state(), data.normalize(data.train.x[:8])
    kept = images.clone()
    quantize(trained, images)
    assert torch.equal(random, torch.random.get_rng_state()) and torch.equal(kept, images)
    assert all(torch.equal(before[key], value) for key, value in trained.state_dict().items())
    assert not caplog.records


def test_the_same_images_give_the_same_network_and_other_ones_another(trained, data):
    images = data.normalize(data.train.x)
    first, same, other = (quantize(trained, each).onnx_model for each in (images[:64], images[:64], 3 * images[:64]))
    assert first == same != other


def test_more_images_than_a_batch_calibrate(trained, data):
    images = data.normalize(data.train.x[:100]).clone()
    images[-1] *= 20  # in the second batch
    assert quantize(trained, images).onnx_model != quantize(trained, images[:-1]).onnx_model


class Unknown(nn.Module):
    def forward(self, x):
        return torch.linalg.inv(x).mean((1,))


def test_what_onnx_cannot_say_is_refused():
    with pytest.raises(Exception, match=r"linalg_inv|ONNX"):
        quantize(Unknown(), torch.randn(2, 1, 8, 8))


# --- a search by int8


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    settings = {"latency.dtype": "int8", "budget": 3, "train.epochs": 3}
    return small_search(tmp_path_factory.mktemp("runs"), run="int8", **settings)


def job_of(data, dtype):
    return Job(data, TrainOverrides(), LatencyConfig(dtype=dtype), (), "cpu", 0, "macs")


def test_the_accuracy_of_a_trial_is_that_of_its_quantized_network(run, data):
    store, job = RunStore.open(run.path), job_of(data, "int8")
    assert run.trials["state"].tolist() == ["completed"] * 3
    fp32 = []
    for record in store.records():
        network, _ = load_deployed(record.architecture, store.weights_file(record.trial), 10, SHAPE)
        assert record.accuracy == evaluate(job.shipped(network), data, data.validation)
        fp32.append(evaluate(network, data, data.validation))
    assert job_of(data, "float32").shipped(network) is network
    assert run.trials["accuracy"].tolist() != fp32  # else this test would prove nothing


def test_the_accuracy_on_test_data_is_too(run, data):
    store, job = RunStore.open(run.path), job_of(data, "int8")
    for record in store.records():
        if record.test_accuracy is not None:
            network, _ = load_deployed(record.architecture, store.weights_file(record.trial), 10, SHAPE)
            assert record.test_accuracy == evaluate(job.shipped(network), data, data.test)


def test_what_is_exported_is_quantized_and_as_accurate_as_it_says(run, data):
    exported = sorted((run.path / "models").iterdir())
    assert {each.name for each in exported} == {str(trial) for trial in run.front["trial"]}
    for folder in exported:
        assert "QuantizeLinear" in operators(folder / "model.onnx")
        metrics = json.loads((folder / "metrics.json").read_text())
        session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
        images = data.normalize(data.test.x).numpy()
        (logits,) = session.run(None, {"images": images})
        assert (logits.argmax(1) == data.test.y.numpy()).mean() == pytest.approx(metrics["test_accuracy"])
        assert metrics["latency"]["of"]["dtype"] == "int8"


def test_costs_are_those_of_the_network_before_it_is_quantized(run):
    for record in RunStore.open(run.path).records():
        deployed = nas.build(record.architecture, num_classes=10, input_shape=SHAPE, form="deploy")
        merged = apply_merges(deployed, plan_merges(deployed, conv_macs))
        assert (record.cost.params, record.cost.macs) == nas.count(merged, SHAPE)


def test_int8_and_float32_are_remembered_apart(run):
    first = small_search(run.path.parent, run="fp32", budget=2)
    assert {event["latency"]["source"] for event in events_of(first) if event["event"] == "priced"} == {"measured"}
    again = small_search(run.path.parent, run="more", budget=2, **{"latency.dtype": "int8"})
    assert {event["latency"]["source"] for event in events_of(again) if event["event"] == "priced"} == {"remembered"}
    assert np.isfinite(again.trials["latency_ms"]).all()


def test_a_runtime_without_int8_is_refused_before_a_run_is_made(tmp_path):
    with pytest.raises(ValueError, match=r"latency\.dtype=int8 is not allowed with torch"):
        small_search(tmp_path / "runs", **{"latency.dtype": "int8", "latency.backend": "torch"})
    assert not (tmp_path / "runs").exists()

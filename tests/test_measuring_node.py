"""The node that measures for a cluster, on a Ray that is made up: whether there is one, what it answers, its errors."""

import pickle
from functools import partial

import pytest
import ray
import torch
from ray.exceptions import RayTaskError
from torch import nn

from nas.config import LatencyConfig
from nas.latency import conditions
from nas.latency.conditions import instrument
from nas.latency.measure import Variant
from nas.latency.meter import Meter
from nas.latency.prepared import NotSupported
from nas.tune import ray_measuring
from nas.tune.ray_measuring import NodeForLatency, measuring_node
from tests.measuring import Scripted, measurement

pytestmark = pytest.mark.usefixtures("one_thread")
SHAPE = (3, 8, 8)


class Elsewhere:
    """Runs what it is handed as Ray does: all that goes there or comes back is pickled, errors come as Ray's own."""

    def __init__(self, *, cores=4):
        self.asked, self.cores = [], cores

    def remote(self, act):
        there = pickle.loads(pickle.dumps(act))  # noqa: S301
        self.asked.append(there)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(conditions, "fingerprint", lambda device: f"the node's {device}")
            patch.setattr("nas.latency.machine.cores", lambda: self.cores)
            try:
                return pickle.dumps(there())
            except Exception as error:
                return pickle.dumps(RayTaskError("_act", "Traceback: many\nlines", error))

    def get(self, answer):
        found = pickle.loads(answer)  # noqa: S301
        if isinstance(found, RayTaskError):
            raise found.as_instanceof_cause()
        return found


@pytest.fixture
def elsewhere(monkeypatch):
    """Another machine of four cores."""
    made = Elsewhere()
    monkeypatch.setattr(ray_measuring, "_act", made)
    monkeypatch.setattr(ray, "get", made.get)
    monkeypatch.setattr(ray, "wait", lambda answers, timeout: (answers, []))
    return made


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()


# --- whether there is one


def cluster(monkeypatch, resources, alive):
    monkeypatch.setattr(ray, "cluster_resources", lambda: resources)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": each} for each in alive])


@pytest.mark.parametrize("alive", [[True], [True, True, False]])
def test_nodes_that_declare_latency_measure(monkeypatch, alive):
    cluster(monkeypatch, {"CPU": 8.0, "latency": 1.0}, alive)
    assert isinstance(measuring_node(), NodeForLatency)


@pytest.mark.parametrize("alive", [[True], [True, False, False]])
def test_one_machine_measures_itself(monkeypatch, alive):
    cluster(monkeypatch, {"CPU": 8.0}, alive)
    assert measuring_node() is None


@pytest.mark.parametrize("resources", [{"CPU": 8.0}, {"CPU": 8.0, "latency": 0.0}])
def test_several_nodes_of_which_none_measures_are_refused_in_one_line(monkeypatch, resources):
    cluster(monkeypatch, resources, [True, True, True, False])
    with pytest.raises(ValueError) as refused:
        measuring_node()
    said = str(refused.value)
    assert said.startswith("the cluster has 3 nodes and none declares where latencies are measured: ")
    assert """ray start --resources '{"latency": 1}'""" in said and "\n" not in said


# --- what it answers


def test_the_instrument_is_the_nodes(elsewhere):
    told, here = NodeForLatency().instrument(LatencyConfig(), "cpu"), instrument(LatencyConfig(), "cpu")
    assert told.device == "the node's cpu" != here.device
    assert told.backend == here.backend
    assert NodeForLatency().instrument(LatencyConfig(threads=4), "cpu") == told


def test_what_is_measured_there_is_as_it_was_asked_for(elsewhere, monkeypatch):
    scripted = Scripted(lambda model: float(sum(each.numel() for each in model.parameters())))
    monkeypatch.setattr(ray_measuring, "measure_interleaved", scripted.measure)
    elsewhere.remote = lambda act: elsewhere.asked.append(act) or pickle.dumps(act())  # the script stays here
    config = LatencyConfig(batch_size=3, threads=2)
    measured = Meter(config, SHAPE, "cuda", node=NodeForLatency()).measure(network(), network())
    assert measured == [measurement(837.0, config)] * 2 and scripted.calls == [2]
    assert elsewhere.asked[0].keywords == {"device": "cuda"}


def test_a_network_goes_there_and_its_measurement_comes_back(elsewhere, lane, quick, monkeypatch):
    monkeypatch.setattr("nas.latency.lane.FOLDER", lane.folder)
    (measured,) = NodeForLatency().measure([Variant(network(), quick, SHAPE)], device="cpu")
    assert (measured.backend, measured.input_shape, measured.device) == ("onnxruntime", SHAPE, "the node's cpu")
    assert measured.median_ms > 0 and len(elsewhere.asked) == 1


# --- its errors


def test_a_node_that_cannot_measure_so_says_why_as_if_it_were_here(elsewhere):
    with pytest.raises(ValueError) as refused:
        NodeForLatency().instrument(LatencyConfig(threads=5), "cpu")
    assert type(refused.value) is ValueError
    assert str(refused.value) == "latency.threads=5 is not allowed; allowed: 1 to 4, the cores here"
    assert refused.value.__suppress_context__


class Unknown(nn.Module):
    """What no exporter knows."""

    def forward(self, x):
        return torch.special.bessel_j0(torch.fft.fft2(x).abs()).mean((2, 3))


def test_a_network_that_the_node_cannot_run_is_not_supported(elsewhere):
    with pytest.raises(NotSupported) as refused:
        NodeForLatency().measure([Variant(Unknown(), LatencyConfig(), SHAPE)], device="cpu")
    assert type(refused.value) is NotSupported
    assert str(refused.value).startswith("onnxruntime cannot run this network: ") and "\n" not in str(refused.value)


def fail(error):
    raise error


@pytest.mark.parametrize("kind", [ValueError, NotSupported, OSError, KeyError])
def test_errors_come_back_as_they_were(elsewhere, kind):
    with pytest.raises(kind) as raised:
        ray_measuring._there(partial(fail, kind("no such thing")))
    assert type(raised.value) is kind and raised.value.args == ("no such thing",)

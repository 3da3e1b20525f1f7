"""One conformance suite for every runtime in `LATENCY_BACKENDS`; those that are not installed are skipped."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import nas
from nas.config import LatencyConfig
from nas.latency import backends as registry
from nas.latency.backends import LATENCY_BACKENDS, LatencyBackend, backend_for
from nas.latency.measure import measure
from nas.latency.prepared import TABLE, NotSupported, fastest, not_supported
from nas.latency.reference import batch_of_noise
from nas.latency.table import NETWORK, layers_of, write_table
from nas.networks.bricks import SqueezeExcite
from nas.networks.fusing import fuse
from tests.helpers import randomise, relative_difference

pytestmark = pytest.mark.usefixtures("one_thread")
SHAPE = (3, 13, 10)


def on_this_machine(name, backend):
    missing = "not installed" if not backend.installed else "needs CUDA" if "cpu" not in backend.devices else ""
    marks = [pytest.mark.skipif(bool(missing), reason=missing)]
    return pytest.param(name, marks=[*marks, *[pytest.mark.slow] * (name == "torch_compile")])


EACH_BACKEND = pytest.mark.parametrize("name", [on_this_machine(*each) for each in LATENCY_BACKENDS.items()])


class Small(nn.Module):
    """A residual block of a depthwise convolution with squeeze-excitation, strided, between two convolutions."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Hardswish())
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 5, 1, 2, groups=8, bias=False), nn.ReLU6())
        self.attention = SqueezeExcite(8, 4)
        self.project = nn.Conv2d(8, 8, 1)
        self.last = nn.Conv2d(8, 12, (3, 1), dilation=(2, 1), groups=2)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5))

    def forward(self, x):
        x = self.stem(x)
        x = x + self.project(self.attention(self.depthwise(x)))
        return self.head(torch.relu(self.last(x)))


def small():
    torch.manual_seed(0)
    return randomise(Small()).eval()


def from_space(seed):
    torch.manual_seed(seed)
    network = nas.build(nas.load_space("tiny").sample(seed), num_classes=5, input_shape=SHAPE)
    return fuse(randomise(network, seed).eval())


NETWORKS = {"small": small, "tiny": lambda: from_space(3)}


@pytest.fixture
def config(name, tmp_path):
    """How a network is prepared by `name`; a table has a row for every layer that the tests use."""
    table = None
    if name == "table":
        table = tmp_path / "table.csv"
        write_table(
            table, {NETWORK: 0.5} | {layer: 0.25 for make in NETWORKS.values() for layer in layers_of(make(), SHAPE)}
        )
    return LatencyConfig(backend=name, table=table and str(table))


def prepared(network, config, batch_size=2):
    images = batch_of_noise(SHAPE, batch_size, "cpu")
    return LATENCY_BACKENDS[config.backend].prepare(network, images, config)


# --- conformance


@EACH_BACKEND
@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("make", NETWORKS)
@torch.no_grad()
def test_a_runtime_computes_the_network(name, config, make, batch_size):
    network = NETWORKS[make]()
    expected = network(batch_of_noise(SHAPE, batch_size, "cpu"))
    assert expected.shape == (batch_size, 5)
    with prepared(copy.deepcopy(network), config, batch_size) as ready:
        logits = ready.run()
        times = [ready.time_once() for _ in range(3)]
        again = ready.run()
    assert isinstance(logits, np.ndarray) and logits.dtype == np.float32
    assert relative_difference(expected, torch.from_numpy(logits)) < 1e-4
    assert np.array_equal(logits, again)
    assert min(times) > 0
    assert ready.memory_format in ("contiguous", "channels_last") and ready.clock in ("perf_counter", TABLE)


@EACH_BACKEND
def test_neither_the_network_nor_torch_is_changed(name, config):
    network, threads = small(), torch.get_num_threads()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    random = torch.random.get_rng_state()
    with prepared(network, dataclasses.replace(config, threads=threads + 1)) as ready:
        ready.time_once()
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), random)
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    after = network.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    assert all(after[key].stride() == before[key].stride() for key in before)
    assert not any(module.training or module._forward_hooks for module in network.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())


@EACH_BACKEND
def test_torch_is_put_back_when_an_error_ends_it(name, config):
    threads = torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt), prepared(small(), dataclasses.replace(config, threads=threads + 1)):
        raise KeyboardInterrupt
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


class Inverse(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        square = self.conv(x)[:, :, :10, :10] + 9 * torch.eye(10)
        return torch.linalg.inv(square).mean((2, 3))


class Spectrum(Inverse):
    def forward(self, x):
        return torch.special.bessel_j0(torch.fft.fft2(self.conv(x)).abs()).mean((2, 3))


EXPORTING = pytest.mark.parametrize(
    "name", [on_this_machine(name, LATENCY_BACKENDS[name]) for name in ("onnxruntime", "openvino", "executorch")]
)


@EXPORTING
@pytest.mark.parametrize(("make", "operators"), [(Inverse, ("linalg_inv",)), (Spectrum, ("bessel_j0", "fft"))])
def test_what_cannot_be_exported_is_refused_in_one_line_with_the_operators_name(name, config, make, operators):
    threads = torch.get_num_threads()
    with pytest.raises(NotSupported) as refused, prepared(make().eval(), config):
        pass
    message = str(refused.value)
    assert message.startswith(f"{name} cannot run this network: operator ") and not message.endswith(": ")
    assert any(operator in message for operator in operators)
    assert "\n" not in message and "\x1b" not in message and len(message) < 400
    assert message.count("cannot run") == 1
    assert torch.get_num_threads() == threads


@EACH_BACKEND
def test_a_measurement_says_which_runtime_it_was(name, config, lane, quick):
    config = dataclasses.replace(config, batch_size=2, tolerance=quick.tolerance)
    measured = measure(small(), config, input_shape=SHAPE, lane=lane)
    assert (measured.backend, measured.batch_size) == (name, 2)
    assert measured.version == LATENCY_BACKENDS[name].version != ""
    assert measured.prepare_s > 0
    assert min(measured.samples_ms) > 0


# --- memory formats


@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
@torch.no_grad()
def test_eager_torch_takes_the_memory_format_that_was_asked_for(memory_format):
    network, images = small(), batch_of_noise(SHAPE, 2, "cpu")
    with prepared(network, LatencyConfig(backend="torch", memory_format=memory_format)) as ready:
        assert ready.memory_format == memory_format
        assert relative_difference(network(images), torch.from_numpy(ready.run())) < 1e-4


@pytest.mark.parametrize("faster", ["contiguous", "channels_last"])
def test_eager_torch_takes_the_faster_format_by_itself(monkeypatch, faster):
    from nas.latency import torch_backends

    made = torch_backends._timed

    def timed(call, images, config, memory_format):
        times = {"contiguous": 1.0, "channels_last": 1.5} if faster == "contiguous" else {"contiguous": 1.5}
        return dataclasses.replace(
            made(call, images, config, memory_format), time_once=lambda: times.get(memory_format, 1.0)
        )

    monkeypatch.setattr(torch_backends, "_timed", timed)
    with prepared(small(), LatencyConfig(backend="torch")) as ready:
        assert fastest(ready).memory_format == faster


# --- which runtime


def test_by_itself_it_is_what_ships_on_the_cpu_and_torch_on_cuda():
    assert backend_for(LatencyConfig(), "cpu")[0] == "onnxruntime"
    assert backend_for(LatencyConfig(), "cuda:1")[0] == "torch"


ABSENT = LatencyBackend(LATENCY_BACKENDS["torch"].prepare, "no_such_package", "tensorrt", devices=("cpu", "cuda"))


@pytest.mark.parametrize(
    ("settings", "device", "parts"),
    [
        ({"backend": "abacus"}, "cpu", ["latency.backend=abacus is unknown; known: torch, ", *LATENCY_BACKENDS]),
        ({"backend": "absent"}, "cpu", ["latency.backend=absent is not installed: ", "nas-fused[tensorrt]", "torch"]),
        ({"backend": "executable"}, "cpu", ["executable is not installed: pip install no_such_package; installed: "]),
        ({"backend": "onnx_cpu"}, "cuda:0", ["latency.backend=onnx_cpu does not run on cuda:0; it runs on cpu"]),
        (
            {"backend": "torch", "dtype": "int8"},
            "cpu",
            ["latency.dtype=int8", "with torch", "allowed with: onnxruntime"],
        ),
        (
            {"backend": "auto", "dtype": "int8"},
            "cuda",
            ["latency.dtype=int8", "with torch", "allowed with: onnxruntime"],
        ),
    ],
    ids=str,
)
def test_a_runtime_that_cannot_be_had_is_refused_in_one_line(monkeypatch, settings, device, parts):
    made_up = {
        "absent": ABSENT,
        "executable": dataclasses.replace(ABSENT, extra=None),
        "onnx_cpu": dataclasses.replace(LATENCY_BACKENDS["onnxruntime"], devices=("cpu",)),
    }
    monkeypatch.setattr(registry, "LATENCY_BACKENDS", {**LATENCY_BACKENDS, **made_up})
    with pytest.raises(ValueError) as refused:
        backend_for(LatencyConfig(**settings), device)
    assert "\n" not in str(refused.value)
    for part in parts:
        assert part in str(refused.value)


@pytest.mark.parametrize("name", [name for name, each in LATENCY_BACKENDS.items() if not each.installed])
def test_what_is_not_installed_names_its_extra(name):
    with pytest.raises(ValueError, match=rf"pip install 'nas-fused\[{LATENCY_BACKENDS[name].extra}\]'"):
        backend_for(LatencyConfig(backend=name), LATENCY_BACKENDS[name].devices[0])


def test_every_runtime_is_an_option_of_the_configuration():
    (field,) = (each for each in dataclasses.fields(LatencyConfig) if each.name == "backend")
    assert set(field.metadata["options"]) == {"auto", *LATENCY_BACKENDS}


@pytest.mark.parametrize(
    ("text", "operator"),
    [
        ("No ONNX function found for <OpOverload(op='aten.linalg_inv_ex', overload='default')>", "aten.linalg_inv_ex"),
        ("see `torch.onnx.export(..., report=True)`: torchvision.nms.default", "torchvision.nms.default"),
        ("cannot decompose torch.ops.prims.fft_r2c.default", "prims.fft_r2c.default"),
        ("Exporting the operator 'aten::fft_fft2' to ONNX is not supported", "aten::fft_fft2"),
    ],
)
def test_the_operator_is_found_wherever_it_is_said(text, operator):
    error = RuntimeError("export failed\nmore")
    error.__cause__ = ValueError(f"because\n{text}")
    assert str(not_supported("x", error)) == f"x cannot run this network: operator {operator}: export failed"
    assert str(not_supported("x", KeyError("a"))) == "x cannot run this network: 'a'"
    assert str(not_supported("x", RuntimeError("\n\na\nb"))) == "x cannot run this network: a"
    assert str(not_supported("x", RuntimeError())) == "x cannot run this network: RuntimeError"

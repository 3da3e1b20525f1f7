import contextlib
import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import nn

from nas.config import LatencyConfig
from nas.latency import measure as measuring
from nas.latency.backends import LATENCY_BACKENDS, latency_backend
from nas.latency.measure import LatencyMeasurement, measure
from nas.latency.memory import LatencyKey, LatencyMemory, RememberedLatency, device_name, latency_key

SHAPE = (3, 8, 8)


@pytest.fixture(autouse=True)
def short_rounds(monkeypatch):
    monkeypatch.setattr(measuring, "WARM_UP_S", 0.002)
    monkeypatch.setattr(measuring, "ROUND_S", 0.002)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))


class Watching(nn.Module):
    """Notes how it is called."""

    seen: list = []  # noqa: RUF012

    def __init__(self, fail=False):
        super().__init__()
        self.fail = fail
        type(self).seen = []

    def forward(self, x):
        how = (tuple(x.shape), x.dtype, torch.get_num_threads(), self.training, torch.is_grad_enabled())
        type(self).seen.append((*how, bool((x == 0).any()), float(x.std())))
        if self.fail:
            raise RuntimeError("no such operation")
        return x.mean()


# --- measuring


@pytest.mark.parametrize("backend", sorted(LATENCY_BACKENDS))
def test_a_measurement_is_positive_and_says_how_it_was_made(backend):
    measured = measure(network().eval(), SHAPE, backend=backend, batch_size=2, threads=1)
    assert measured.median_ms > 0
    assert measured.iqr_ms >= 0
    assert (measured.backend, measured.batch_size, measured.threads, measured.device) == (backend, 2, 1, "cpu")
    assert len(measured.samples_ms) >= 2 * measuring.FEWEST_REPEATS
    assert min(measured.samples_ms) > 0
    assert min(measured.samples_ms) <= measured.median_ms <= max(measured.samples_ms)


def test_median_and_spread_are_those_of_the_samples():
    measured = LatencyMeasurement((4.0, 1.0, 2.0, 3.0, 100.0), True, "torch", 1, 1, "cpu")
    assert (measured.median_ms, measured.iqr_ms) == (3.0, 2.0)


@pytest.mark.parametrize("training", [True, False])
def test_a_measured_network_is_not_changed(training):
    model = network().train(training)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    measure(model, SHAPE, batch_size=4)
    after = model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(module.training is training for module in model.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_the_network_is_timed_as_asked():
    before = torch.get_num_threads()
    measure(Watching(), SHAPE, batch_size=5, threads=before + 1)
    calls = set(Watching.seen)
    assert len(calls) == 1
    shape, dtype, threads, training, grad, has_zeros, spread = calls.pop()
    assert (shape, dtype, threads) == ((5, *SHAPE), torch.float32, before + 1)
    assert (training, grad, has_zeros) == (False, False, False)
    assert spread > 0.5


@pytest.mark.parametrize("fail", [False, True])
def test_the_thread_count_is_put_back(fail):
    before = torch.get_num_threads()
    if fail:
        with pytest.raises(RuntimeError, match="no such operation"):
            measure(Watching(fail=True), SHAPE, threads=before + 1)
    else:
        measure(Watching(), SHAPE, threads=before + 1)
    assert torch.get_num_threads() == before


def test_the_first_runs_do_not_count():
    measured = measure(Watching(), SHAPE)
    assert len(Watching.seen) >= len(measured.samples_ms) + measuring.FEWEST_REPEATS


class Clock:
    """A clock on which each run takes the next of the given times in ms, and then the last for ever."""

    def __init__(self, times):
        self.now, self.times, self.calls = 0, times, 0

    def run(self):
        self.now += int(1e6 * self.times[min(self.calls, len(self.times) - 1)])
        self.calls += 1

    def perf_counter(self):
        return self.now / 1e9

    def perf_counter_ns(self):
        return self.now


@dataclasses.dataclass
class FakeBackend:
    run: Callable[[], None]

    def ready(self, *_):
        return contextlib.nullcontext(self.run)


def test_rounds_are_repeated_until_two_agree(monkeypatch):
    repeats = measuring.FEWEST_REPEATS
    slow_start = [9.0] * repeats + [5.0] * repeats + [3.0] * repeats + [2.0]
    clock = Clock(slow_start)
    monkeypatch.setattr(measuring, "time", clock)
    monkeypatch.setitem(LATENCY_BACKENDS, "torch", lambda: FakeBackend(clock.run))
    measured = measure(network(), SHAPE)
    assert measured.agreed
    assert set(measured.samples_ms) == {2.0}
    assert measured.median_ms == 2.0


def test_rounds_that_never_agree_end_and_say_so(monkeypatch):
    repeats = measuring.FEWEST_REPEATS
    clock = Clock([float(2**n) for n in range(40) for _ in range(repeats)])
    monkeypatch.setattr(measuring, "time", clock)
    monkeypatch.setitem(LATENCY_BACKENDS, "torch", lambda: FakeBackend(clock.run))
    measured = measure(network(), SHAPE)
    assert not measured.agreed
    assert clock.calls == repeats * (1 + measuring.MOST_ROUNDS)
    last = 2.0**measuring.MOST_ROUNDS
    assert set(measured.samples_ms) == {last / 2, last}


def test_an_unknown_backend_lists_the_known():
    with pytest.raises(ValueError) as refused:
        measure(network(), SHAPE, backend="abacus")
    assert str(refused.value) == "latency.backend=abacus is unknown; known: " + ", ".join(LATENCY_BACKENDS)
    with pytest.raises(ValueError, match="known: torch"):
        latency_backend("")


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        (SHAPE, {"batch_size": 0}),
        (SHAPE, {"batch_size": -1}),
        (SHAPE, {"threads": 0}),
        ((0, 8, 8), {}),
        ((3, 8, -8), {}),
        ((), {}),
    ],
)
def test_sizes_below_1_are_refused(shape, sizes):
    with pytest.raises(ValueError):
        measure(Watching(), shape, **sizes)
    assert Watching.seen == []


# --- remembering

KEY = LatencyKey("abc", (1, 8, 8), 10, "macs", "torch 2", "float32", 1, 1, "a processor")
VALUE = RememberedLatency(1.25, 0.125)
OTHER = RememberedLatency(2.5, 0.25)


def file_of(folder):
    return folder / ".latency" / "latencies.jsonl"


def append_bytes(folder, content):
    with file_of(folder).open("ab") as file:
        file.write(content)


def test_what_was_not_measured_is_not_known(tmp_path):
    assert LatencyMemory(tmp_path).get(KEY) is None
    assert list(tmp_path.iterdir()) == []


def test_the_first_value_is_kept(tmp_path):
    memory = LatencyMemory(tmp_path / "runs")
    memory.remember(KEY, VALUE)
    memory.remember(KEY, OTHER)
    assert memory.get(KEY) == VALUE
    assert LatencyMemory(tmp_path / "runs").get(KEY) == VALUE


def test_the_first_value_is_kept_over_several_sessions(tmp_path):
    LatencyMemory(tmp_path).remember(KEY, VALUE)
    LatencyMemory(tmp_path).remember(KEY, OTHER)
    first, second = LatencyMemory(tmp_path), LatencyMemory(tmp_path)
    another = dataclasses.replace(KEY, deploy_id="def")
    first.remember(another, VALUE)
    second.remember(another, OTHER)
    assert LatencyMemory(tmp_path).get(KEY) == VALUE
    assert LatencyMemory(tmp_path).get(another) == VALUE


@pytest.mark.parametrize("value", [1 / 3, 1e-7, 123456.789])
def test_values_survive_to_the_last_bit(tmp_path, value):
    LatencyMemory(tmp_path).remember(KEY, RememberedLatency(value, value / 7))
    assert LatencyMemory(tmp_path).get(KEY) == RememberedLatency(value, value / 7)


@pytest.mark.parametrize(
    "changed",
    [
        {"deploy_id": "abd"},
        {"input_shape": (3, 8, 8)},
        {"input_shape": (1, 8, 9)},
        {"num_classes": 11},
        {"merge": "none"},
        {"backend": "torch 3"},
        {"dtype": "float16"},
        {"batch_size": 2},
        {"threads": 2},
        {"device": "another processor"},
    ],
    ids=str,
)
def test_whatever_decides_a_latency_tells_keys_apart(tmp_path, changed):
    other = dataclasses.replace(KEY, **changed)
    memory = LatencyMemory(tmp_path)
    memory.remember(KEY, VALUE)
    assert memory.get(other) is None
    memory.remember(other, OTHER)
    for each in (memory, LatencyMemory(tmp_path)):
        assert (each.get(KEY), each.get(other)) == (VALUE, OTHER)


def test_the_key_of_a_network_holds_all_that_was_configured():
    def key(deploy_id="abc", shape=(1, 8, 8), classes=10, merge="macs", **config):
        return latency_key(deploy_id, shape, classes, merge, LatencyConfig(**config), "cpu")

    base = key()
    assert base == key()
    others = [
        key("abd"),
        key(shape=(3, 8, 8)),
        key(classes=2),
        key(merge="none"),
        key(batch_size=8),
        key(threads=2),
        key(backend="other"),
    ]
    assert len({base, *others}) == 8
    assert torch.__version__ in base.backend
    assert base.dtype == "float32"
    assert base.device == device_name("cpu") != ""


@pytest.mark.parametrize(
    "foreign",
    [
        b'{"deploy_id": "ab',
        b"",
        b"5",
        b"null",
        b'["a"]',
        b'"words"',
        b'{"median_ms": 1}',
        b'{"median_ms": "fast", "iqr_ms": 0.1}',
        b'{"median_ms": 1, "iqr_ms": 0.1, "input_shape": 8}',
        b'{"median_ms": 1, "iqr_ms": 0.1, "input_shape": [1, 8, 8], "colour": "red"}',
        b'{"deploy_id": "\xc3',
        b"\0\0\0\0",
    ],
    ids=repr,
)
def test_a_line_that_is_no_latency_is_passed_over(tmp_path, foreign):
    LatencyMemory(tmp_path).remember(KEY, VALUE)
    later = dataclasses.replace(KEY, deploy_id="def")
    append_bytes(tmp_path, foreign + b"\n")
    LatencyMemory(tmp_path).remember(later, OTHER)
    memory = LatencyMemory(tmp_path)
    assert (memory.get(KEY), memory.get(later)) == (VALUE, OTHER)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_torn_last_line_swallows_no_other(tmp_path, share):
    LatencyMemory(tmp_path).remember(KEY, VALUE)
    line = file_of(tmp_path).read_bytes()
    append_bytes(tmp_path, line[: int(share * len(line))])
    later = dataclasses.replace(KEY, deploy_id="def")
    memory = LatencyMemory(tmp_path)
    assert memory.get(KEY) == VALUE
    memory.remember(later, OTHER)
    again = LatencyMemory(tmp_path)
    assert (again.get(KEY), again.get(later)) == (VALUE, OTHER)

"""`measure`: what it records, when it doubts, what it refuses, what it leaves as it was."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import nn

from nas.config import LatencyConfig
from nas.latency import machine, sampling
from nas.latency import measure as measuring
from nas.latency.backends import LATENCY_BACKENDS, LatencyBackend
from nas.latency.machine import fingerprint
from nas.latency.measure import Variant, measure, measure_interleaved
from nas.latency.prepared import Prepared
from nas.latency.reference import reference_name
from nas.latency.sampling import Samples
from nas.latency.usual import speeds
from nas.networks.onnx_file import OnnxNetwork
from nas.networks.quantized import quantize
from tests.lanes import is_free

pytestmark = pytest.mark.usefixtures("one_thread")
SHAPE = (3, 8, 8)
CALM = ((1.0, 1.0),) * 8


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))


@pytest.fixture
def scripted(monkeypatch, lane):
    """Measures where each attempt gives the next of the scripted rounds: of the reference, then of each network."""

    def run(*attempts, variants=1, load=0.0, reference_ms=None, **settings):
        given = [[Samples(rounds) for rounds in attempt] for attempt in attempts]
        calls = []

        def sample(times, tolerance, limit_s):
            assert len(times) == 1 + variants and not is_free(lane.folder)
            calls.append((tolerance, limit_s))
            return given[min(len(calls), len(given)) - 1]

        monkeypatch.setattr(measuring, "sample", sample)
        monkeypatch.setattr(measuring, "warm_up", lambda time_once, tolerance: 1)
        monkeypatch.setattr(measuring, "load_between", lambda before, after: load)
        config = LatencyConfig(backend="torch", **{"limit_s": 3600, **settings})
        each = [Variant(network(), config, SHAPE)] * variants
        measured = measure_interleaved(each, lane=lane, reference_ms=reference_ms)
        return (*measured, calls)

    return run


# --- what is recorded


def test_a_measurement_says_how_it_was_made(lane, quick):
    measured = measure(network(), dataclasses.replace(quick, batch_size=3), input_shape=SHAPE, lane=lane)
    assert (measured.backend, measured.dtype, measured.threads) == ("onnxruntime", "float32", 1)
    assert (measured.batch_size, measured.input_shape, measured.memory_format) == (3, SHAPE, "contiguous")
    assert (measured.device, measured.clock) == (fingerprint("cpu"), "perf_counter")
    assert measured.version == LATENCY_BACKENDS["onnxruntime"].version
    assert measured.prepare_s > 0 and measured.measure_s > 0
    assert len(measured.samples.rounds_ms) >= sampling.FEWEST_ROUNDS
    assert min(measured.samples_ms) > 0
    low, high = measured.interval_ms
    assert 0 < low <= measured.median_ms <= high
    assert len(measured.reference.rounds_ms) == len(measured.samples.rounds_ms)
    assert measured.reference_ms == measured.reference.median_ms > 0
    assert is_free(lane.folder)


def test_its_words_are_json_and_hold_every_sample(scripted):
    (measured, _) = scripted([CALM, ((3.0, 5.0),) * 7], load=0.0)
    words = json.loads(json.dumps(measured.to_dict(), allow_nan=False))
    assert words["samples"]["rounds_ms"] == [[3.0, 5.0]] * 7
    assert words["reference"]["rounds_ms"] == [[1.0, 1.0]] * 8
    figures = {name: words[name] for name in ("median_ms", "iqr_ms", "low_ms", "high_ms", "reference_ms", "stable")}
    assert figures == {"median_ms": 4, "iqr_ms": 2, "low_ms": 4, "high_ms": 4, "reference_ms": 1, "stable": True}
    assert (words["doubt"], words["load"], words["input_shape"], words["backend"]) == ("", 0.0, list(SHAPE), "torch")


def test_the_shape_may_be_the_networks_own_and_no_configuration_is_one_too(lane, monkeypatch, quick):
    monkeypatch.setattr(measuring, "LatencyConfig", lambda: quick)
    model = network()
    model.input_shape = SHAPE
    assert measure(model, lane=lane).input_shape == SHAPE


def test_what_is_compared_is_measured_in_turn(lane, monkeypatch):
    order = []

    def backend(name):
        def time_once():
            order.append(name)
            return 10.0

        def prepare(model, images, config):
            return measuring.contextlib.nullcontext(Prepared(lambda: np.zeros(1), time_once))

        return LatencyBackend(prepare, "torch")

    names = ["torch", "openvino", "onnxruntime"]
    for name in names:
        monkeypatch.setitem(LATENCY_BACKENDS, name, backend(name))
    clock = type("Clock", (), {"perf_counter": staticmethod(lambda: 0.01 * len(order))})
    monkeypatch.setattr(sampling, "time", clock)
    monkeypatch.setattr(sampling, "ROUND_S", 0.005)
    monkeypatch.setattr(measuring, "load_between", lambda before, after: 0.0)
    variants = [Variant(network(), LatencyConfig(backend=name), SHAPE) for name in names[:2]]
    first, second = measure_interleaved(variants, lane=lane)
    warm, rounds = order[: -6 * 3], order[-6 * 3 :]
    assert rounds == ["onnxruntime", "torch", "openvino"] * 6  # the reference first
    assert warm == sorted(warm, key=["onnxruntime", "torch", "openvino"].index)
    assert (first.backend, second.backend) == ("torch", "openvino")
    assert first.stable and second.stable and first.reference is second.reference


# --- doubts


def test_what_is_calm_and_known_is_stable(scripted):
    measured, calls = scripted([CALM, CALM], reference_ms=1.01)
    assert measured.stable and measured.doubt == ""
    assert calls == [(0.02, pytest.approx(3600, abs=1))]


NOISY = tuple((float(n),) for n in range(1, 9))


@pytest.mark.parametrize(
    ("rounds", "doubt"),
    [(CALM[:5], "only 5 rounds in 3600 s (latency.limit_s)"), (NOISY, "the median is known to 77.8% only, after")],
    ids=["too few", "too wide"],
)
def test_a_median_that_is_not_known_well_enough_is_doubted(scripted, rounds, doubt):
    measured, calls = scripted([CALM, rounds])
    assert not measured.stable and doubt in measured.doubt
    assert len(calls) == measuring.MOST_ATTEMPTS == 2


def steady(latency_ms):
    return ((latency_ms, latency_ms),) * 8


@pytest.mark.parametrize(("off", "said"), [(1.5, "+50.0%"), (0.5, "-50.0%"), (1.08, "+8.0%")])
def test_a_machine_that_is_far_from_its_usual_speed_is_doubted_and_said_by_how_much(scripted, off, said):
    measured, calls = scripted([steady(2 * off), CALM], reference_ms=2.0)
    assert measured.doubt == f"the machine drifts: the reference network's time is {said} off"
    assert len(calls) == 2


@pytest.mark.parametrize("off", [0.95, 0.97, 1.03, 1.05])
def test_a_speed_that_is_not_the_usual_one_but_steady_is_taken_out_of_a_latency(scripted, off):
    measured, calls = scripted([steady(2 * off), steady(3 * off)], reference_ms=2.0)
    assert measured.stable and measured.median_ms == pytest.approx(3.0) and measured.scale == pytest.approx(1 / off)
    assert len(calls) == 2  # once more, to see that it is steady


def test_a_speed_that_was_read_last_time_too_is_steady(scripted, lane):
    (last, _), (now, calls) = (scripted([steady(ms), steady(3.0)], reference_ms=2.0) for ms in (2.08, 2.09))
    assert last.stable and now.stable and len(calls) == 1


@pytest.mark.parametrize("before", [0.99, 1.0, 1.07])
def test_a_speed_that_moves_from_one_attempt_to_the_next_is_doubted(scripted, before):
    first, last = ([steady(2 * off), NOISY if off == before else CALM] for off in (before, 1.04))
    measured, calls = scripted(first, last, reference_ms=2.0)
    assert measured.doubt == "the machine drifts: the reference network's time is +4.0% off" and len(calls) == 2


@pytest.mark.parametrize(("load", "calm"), [(None, True), (0.0, True), (10.0, True), (20.5, False)])
def test_a_loaded_machine_is_doubted_once_the_cores_are_too_few(scripted, monkeypatch, load, calm):
    monkeypatch.setattr(measuring, "cores", lambda: 20)
    monkeypatch.setattr(machine, "cores", lambda: 20)
    measured, calls = scripted([CALM, CALM], load=load, threads=4)
    assert (measured.doubt == "") is calm and measured.load == load
    assert calm or measured.doubt == "other processes kept 20.5 of 20 cores busy"
    assert len(calls) == (1 if calm else 2)


def test_the_first_attempt_without_doubt_counts(scripted):
    later = ((2.0, 2.0),) * 8
    measured, calls = scripted([CALM, NOISY], [CALM, later], [CALM, CALM])
    assert measured.stable and measured.median_ms == 2.0
    assert len(calls) == 2


def test_the_limit_is_that_of_all_attempts_and_all_variants(scripted, monkeypatch):
    now = iter(range(100))
    monkeypatch.setattr(measuring, "cpu_time", lambda: machine.CpuTime(2.0 * next(now), 0, 0))
    *measured, calls = scripted([CALM, NOISY, CALM], variants=2, limit_s=3.0)
    assert [limit for _, limit in calls] == [pytest.approx(6.0, abs=0.5), pytest.approx(4.0, abs=0.5)]
    assert [each.stable for each in measured] == [False, True]
    assert measured[0].measure_s == 4.0


def test_a_reading_of_the_machine_says_what_others_did():
    before, after = machine.CpuTime(10, own=1, all=5), machine.CpuTime(12, own=2, all=9)
    assert machine.load_between(before, after) == 1.5
    assert machine.load_between(before, dataclasses.replace(after, own=9)) == 0
    assert machine.load_between(before, dataclasses.replace(after, all=None)) is None
    assert machine.load_between(before, before) is None


STAT = """cpu  9000 0 0 0 0 0 0 0 0 0
cpu0 100 20 30 9999 9999 4 5 6 77 77
cpu1 200 0 0 9999 9999 0 0 0 0 0
cpu10 400 0 0 9999 9999 0 0 0 0 0
intr 1234 5 6
"""


@pytest.mark.parametrize(("mine", "seconds"), [({0}, 1.65), ({1}, 2.0), ({0, 10}, 5.65)])
def test_only_the_cores_that_this_process_may_use_count(monkeypatch, mine, seconds):
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda process: mine)
    monkeypatch.setattr(machine.os, "sysconf", lambda name: 100)
    monkeypatch.setattr(machine.Path, "read_text", lambda path, encoding: STAT)
    assert machine.cpu_time().all == pytest.approx(seconds)


def test_the_fastest_way_is_found_in_the_quiet_lane(lane, monkeypatch):
    def way(memory_format, latency_ms):
        def time_once():
            assert not is_free(lane.folder)
            return latency_ms

        return Prepared(lambda: np.zeros(1), time_once, memory_format)

    slow, quick, slower = way("contiguous", 4.0), way("channels_last", 2.0), way("other", 6.0)
    prepare = lambda *_: measuring.contextlib.nullcontext(dataclasses.replace(slow, rivals=(quick, slower)))  # noqa: E731
    monkeypatch.setitem(LATENCY_BACKENDS, "torch", LatencyBackend(prepare, "torch"))
    measured = measure(network(), LatencyConfig(backend="torch", limit_s=0.3), input_shape=SHAPE, lane=lane)
    assert measured.memory_format == "channels_last" and measured.samples.median_ms == 2.0


# --- int8


def test_a_quantized_network_is_what_int8_measures(lane, quick):
    int8 = dataclasses.replace(quick, dtype="int8")
    network().eval()
    for model in (network(), quantize(network().eval(), torch.randn(4, *SHAPE))):
        measured = measure(model, int8, input_shape=SHAPE, lane=lane)
        assert (measured.dtype, measured.backend) == ("int8", "onnxruntime")


def test_int8_hands_the_runtime_a_quantized_network(lane, quick, monkeypatch):
    seen = []
    real = LATENCY_BACKENDS["onnxruntime"]

    def prepare(model, images, config):
        seen.append(type(model))
        return real.prepare(model, images, config)

    monkeypatch.setitem(LATENCY_BACKENDS, "onnxruntime", dataclasses.replace(real, prepare=prepare))
    measure(network(), dataclasses.replace(quick, dtype="int8"), input_shape=SHAPE, lane=lane)
    assert OnnxNetwork in seen


def test_what_the_machine_wanders_is_taken_out_of_a_latency(scripted):
    slower = ((1.015, 1.015),) * 8
    measured, _ = scripted([slower, ((2.03, 2.03),) * 8], reference_ms=1.0)
    assert measured.stable and measured.median_ms == pytest.approx(2.0)
    assert measured.samples.median_ms == 2.03 and measured.reference_ms == 1.015
    assert measured.samples_ms == pytest.approx([2.0] * 16)


def test_a_machine_that_is_far_off_is_another_one(scripted):
    measured, _ = scripted([((2.0, 2.0),) * 8, CALM], reference_ms=1.0)
    assert not measured.stable and measured.scale == 1


def test_the_usual_reading_is_that_of_all_processes(scripted, lane):
    for taken in (1.0, 1.01, 1.02):
        measured, _ = scripted([((taken, taken),) * 8, CALM])
    assert measured.scale == pytest.approx(1.005 / 1.02)
    assert speeds(lane.folder, reference_name(LatencyConfig(), "cpu")).usual_ms == 1.01

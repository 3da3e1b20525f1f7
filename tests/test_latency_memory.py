"""Latencies that are remembered: which reading stays, what tells keys apart, what survives in the file."""

import dataclasses
import json
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.config import LatencyConfig
from nas.latency.backends import LATENCY_BACKENDS, backend_for
from nas.latency.conditions import Conditions, conditions, instrument
from nas.latency.memory import LatencyMemory
from tests.helpers import reading

WHERE = Conditions("a processor", "torch 2", "float32", 1, 1, "auto", (1, 8, 8), 10, "macs")
KEY, LATER, TOLERANCE = "abc", "def", 0.5
VALUE = reading(1.25, reference_ms=0.5, merges=(("a", "b"), ("c", "d", "e")))
OTHER = reading(2.5)
DOUBTFUL = reading(9.0, doubt="the machine drifts")


def known(value):
    return dataclasses.replace(value, source="remembered")


def file_of(folder):
    return folder / ".latency" / "latencies.jsonl"


def append_bytes(folder, content):
    with file_of(folder).open("ab") as file:
        file.write(content)


def test_what_was_not_measured_is_not_known(tmp_path):
    memory = LatencyMemory(tmp_path, WHERE, TOLERANCE)
    assert memory.get(KEY) is None
    assert list(tmp_path.iterdir()) == []


# --- which reading stays


@pytest.mark.parametrize(
    ("readings", "stays"),
    [
        ([VALUE, OTHER], VALUE),
        ([DOUBTFUL, VALUE, OTHER], VALUE),
        ([VALUE, DOUBTFUL], VALUE),
        ([dataclasses.replace(VALUE, source="predicted"), DOUBTFUL, OTHER], OTHER),
        ([dataclasses.replace(VALUE, source="predicted"), OTHER], OTHER),
        ([dataclasses.replace(VALUE, source="remembered"), OTHER], OTHER),
    ],
    ids=["first", "first without doubt", "not the doubtful", "whatever the doubtful said", "no prediction", "no echo"],
)
@pytest.mark.parametrize("sessions", ["one", "several"])
def test_the_first_measurement_without_doubt_stays(tmp_path, readings, stays, sessions):
    memory = LatencyMemory(tmp_path / "runs", WHERE, TOLERANCE)
    for each in readings:
        memory.remember(KEY, each)
        memory = memory if sessions == "one" else LatencyMemory(tmp_path / "runs", WHERE, TOLERANCE)
    for each in (memory, LatencyMemory(tmp_path / "runs", WHERE, TOLERANCE)):
        assert each.get(KEY) == known(stays)


def test_a_doubtful_latency_holds_for_its_own_run_alone(tmp_path):
    memory = LatencyMemory(tmp_path, WHERE, TOLERANCE)
    memory.remember(KEY, DOUBTFUL)
    memory.remember(KEY, dataclasses.replace(DOUBTFUL, median_ms=8.0))
    assert memory.get(KEY) == known(DOUBTFUL)
    assert LatencyMemory(tmp_path, WHERE, TOLERANCE).get(KEY) is None


def test_two_sessions_at_a_time_agree_on_the_first_that_was_written(tmp_path):
    first, second = LatencyMemory(tmp_path, WHERE, TOLERANCE), LatencyMemory(tmp_path, WHERE, TOLERANCE)
    first.remember(KEY, VALUE)
    second.remember(KEY, OTHER)
    assert LatencyMemory(tmp_path, WHERE, TOLERANCE).get(KEY) == known(VALUE)


READINGS = st.lists(st.tuples(st.floats(0.01, 100), st.booleans()), min_size=1, max_size=8)


@settings(max_examples=40, deadline=None)
@given(READINGS)
def test_whatever_comes_the_first_stable_one_is_kept_or_else_the_first_for_now(values):
    readings = [reading(value, doubt="" if stable else "it drifts") for value, stable in values]
    with tempfile.TemporaryDirectory() as folder:
        memory = LatencyMemory(Path(folder), WHERE, TOLERANCE)
        for each in readings:
            memory.remember(KEY, each)
        again = LatencyMemory(Path(folder), WHERE, TOLERANCE)
    wanted = next((each for each in readings if not each.doubt), readings[0])
    assert memory.get(KEY) == known(wanted)
    assert again.get(KEY) == (None if wanted.doubt else known(wanted))


# --- keys


@pytest.mark.parametrize(
    "changed",
    [
        {"input_shape": (3, 8, 8)},
        {"input_shape": (1, 8, 9)},
        {"num_classes": 11},
        {"merge": "none"},
        {"backend": "torch 3"},
        {"dtype": "int8"},
        {"memory_format": "contiguous"},
        {"batch_size": 2},
        {"threads": 2},
        {"device": "another processor"},
    ],
    ids=str,
)
def test_whatever_decides_a_latency_tells_memories_apart(tmp_path, changed):
    elsewhere = dataclasses.replace(WHERE, **changed)
    LatencyMemory(tmp_path, WHERE, TOLERANCE).remember(KEY, VALUE)
    assert LatencyMemory(tmp_path, elsewhere, TOLERANCE).get(KEY) is None
    LatencyMemory(tmp_path, elsewhere, TOLERANCE).remember(KEY, OTHER)
    assert LatencyMemory(tmp_path, WHERE, TOLERANCE).get(KEY) == known(VALUE)
    assert LatencyMemory(tmp_path, elsewhere, TOLERANCE).get(KEY) == known(OTHER)


def test_every_condition_is_tried_above():
    assert len(dataclasses.fields(Conditions)) == 9


def here(shape=(1, 8, 8), classes=10, merge="macs", machine=None, **config):
    told = LatencyConfig(**config)
    using = instrument(told, "cpu")
    return conditions(told, dataclasses.replace(using, device=machine or using.device), shape, classes, merge)


def test_conditions_hold_all_that_was_configured():
    others = [
        here(shape=(3, 8, 8)),
        here(classes=2),
        here(merge="none"),
        here(batch_size=8),
        here(threads=2),
        here(backend="torch"),
        here(dtype="int8"),
        here(memory_format="contiguous"),
        here(machine="another"),
    ]
    assert len({here(), *others}) == 1 + len(others)
    assert here() == here(backend="onnxruntime") == here(tolerance=0.5, limit_s=9.0)
    assert here() == here(cuda_graphs=False, flush_l2=True)  # which mean nothing on a CPU
    assert here().backend == f"onnxruntime {LATENCY_BACKENDS['onnxruntime'].version}"
    assert torch.__version__.partition("+")[0] in here(backend="torch").backend


def test_how_a_gpu_is_used_is_a_condition():
    ways = [LatencyConfig(cuda_graphs=graphs, flush_l2=flush) for graphs in (True, False) for flush in (True, False)]

    def options(way, device):
        return backend_for(way, device)[1].options(way, device)

    assert len({options(way, "cuda:0") for way in ways}) == len(ways)
    assert {options(way, "cpu") for way in ways} == {""}
    assert options(LatencyConfig(backend="table", flush_l2=True), "cuda:0") == ""  # which does not heed it


# --- the file

MS = st.floats(min_value=5e-324, max_value=1e300)


@settings(max_examples=50, deadline=None)
@given(MS, MS, MS, MS, st.none() | MS, st.lists(st.lists(st.text(), max_size=3), max_size=3))
def test_readings_survive_to_the_last_bit(median, iqr, low, high, reference, merges):
    value = reading(median, iqr, reference_ms=reference, merges=tuple(map(tuple, merges)))
    value = dataclasses.replace(value, low_ms=low, high_ms=high)
    with tempfile.TemporaryDirectory() as folder:
        LatencyMemory(Path(folder), WHERE, TOLERANCE).remember(KEY, value)
        again = LatencyMemory(Path(folder), WHERE, float("inf"))
    assert again.get(KEY) == known(value)


def test_what_is_not_known_well_enough_for_this_search_is_not_remembered(tmp_path):
    value = dataclasses.replace(reading(2.0), low_ms=1.9, high_ms=2.1)
    LatencyMemory(tmp_path, WHERE, 0.5).remember(KEY, value)
    assert LatencyMemory(tmp_path, WHERE, 0.051).get(KEY) == known(value)
    assert LatencyMemory(tmp_path, WHERE, 0.049).get(KEY) is None


def line(key=None, reading=None):
    """A line of the file, with some words changed."""
    words = {"key": {"deploy_id": KEY, **dataclasses.asdict(WHERE)}, "reading": dataclasses.asdict(OTHER)}
    words["key"] |= key or {}
    words["reading"] |= reading or {}
    return json.dumps(words).encode()


@pytest.mark.parametrize(
    "foreign",
    [
        b"",
        b"5",
        b"null",
        b'["a"]',
        b'"words"',
        b'{"deploy_id": "ab',
        b'{"deploy_id": "\xc3',
        b"\0\0\0\0",
        b"[" * 100_000,
        b'{"median_ms": 1, "iqr_ms": 0.1}',  # as it was written before
        b'{"key": {}, "reading": {}}',
        b'{"key": [], "reading": 1}',
        line(key={"colour": "red"}),
        line(key={"input_shape": 8}),
        line(key={"device": ["x"]}),
        line(reading={"doubt": "it drifts"}),
        line(reading={"median_ms": "fast"}),
        line(reading={"median_ms": -1}),
        line(reading={"high_ms": float("inf")}),
        line(reading={"median_ms": float("nan")}),
        line(reading={"merges": 5}),
        line(reading={"reference_ms": "slow"}),
        line(reading={"colour": "red"}),
    ],
    ids=lambda foreign: repr(foreign)[:40],
)
def test_a_line_that_is_no_latency_is_passed_over(tmp_path, foreign):
    LatencyMemory(tmp_path, WHERE, TOLERANCE).remember(KEY, VALUE)
    append_bytes(tmp_path, foreign + b"\n")
    LatencyMemory(tmp_path, WHERE, TOLERANCE).remember(LATER, OTHER)
    memory = LatencyMemory(tmp_path, WHERE, TOLERANCE)
    assert (memory.get(KEY), memory.get(LATER)) == (known(VALUE), known(OTHER))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_torn_last_line_swallows_no_other(tmp_path, share):
    LatencyMemory(tmp_path, WHERE, TOLERANCE).remember(KEY, VALUE)
    written = file_of(tmp_path).read_bytes()
    append_bytes(tmp_path, written[: int(share * len(written))])
    memory = LatencyMemory(tmp_path, WHERE, TOLERANCE)
    assert memory.get(KEY) == known(VALUE)
    memory.remember(LATER, OTHER)
    again = LatencyMemory(tmp_path, WHERE, TOLERANCE)
    assert (again.get(KEY), again.get(LATER)) == (known(VALUE), known(OTHER))

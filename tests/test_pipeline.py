"""One trial: when it is in the lane, what it knows of its latency, what it does when its network cannot run."""

import dataclasses

import pytest
import torch
from torch import nn

import nas
from nas import pipeline
from nas.config import LatencyConfig
from nas.data import load_data
from nas.job import Job
from nas.latency.lane import Lane
from nas.latency.meter import Meter
from nas.networks.fading import fade
from nas.networks.merging import MERGE_COSTS, apply_merges, merge_plan
from nas.objectives import Constraint
from nas.pipeline import Known, judge, known_from_dict, price
from nas.reading import Reading
from nas.recipes import TrainConfig, TrainOverrides
from nas.training.evaluation import evaluate
from nas.training.loop import Epoch
from nas.trial import TrialState
from tests.helpers import reading
from tests.lanes import is_free
from tests.measuring import Scripted
from tests.searching import events_of, small_search

pytestmark = pytest.mark.usefixtures("one_thread")
ARCH = nas.load_space("tiny").sample(0)
STORY = ["priced", "started", "epoch", "epoch", "rung", "ended"]


@pytest.fixture(scope="module")
def data():
    return load_data("digits", "unused", 0.25, 0)


def job_of(data, merge="macs", constraints=(), **latency):
    return Job(data, TrainOverrides(epochs=2), LatencyConfig(**latency), tuple(constraints), "cpu", 0, merge)


def told(data, job, known=None, latency_ms=1.0, folder=None, keep=None, arch=ARCH):
    """The events of a trial, and what it had measured."""
    asked = Scripted(lambda network: latency_ms)
    meter = Meter(job.latency, data.input_shape, "cpu", Lane("cpu", folder=folder), node=asked)
    return judge(7, arch, job, known or Known(), keep or (lambda *kept: None), meter), asked


@pytest.fixture
def quick_training(monkeypatch):
    """Trainings of two epochs that take no step; returns what they call in between."""
    between = []

    def epochs(training):
        fade(training.shipped.eval(), 1.0)
        for number in (1, 2):
            for call in between:
                call()
            training._between_steps()
            training.done = number
            yield Epoch(number, 0.5)

    monkeypatch.setattr("nas.training.loop.Training.epochs", epochs)
    return between


# --- the lane


def test_a_trial_is_in_the_lane_while_it_works_and_not_between_its_events(data, tmp_path, monkeypatch, quick_training):
    places = []

    def seen(place):
        def see(*args):
            places.append(place)
            assert not is_free(tmp_path), place

        return see

    quick_training.append(seen("training"))
    monkeypatch.setattr("nas.job.evaluate", lambda *args, **more: seen("evaluating")() or evaluate(*args, **more))
    monkeypatch.setattr(pipeline, "count", lambda *args: seen("counting")() or (1, 1))
    events, asked = told(data, job_of(data), folder=tmp_path, keep=seen("keeping"))
    kinds = []
    for event in events:
        assert is_free(tmp_path), event
        kinds.append(event.kind)
    assert is_free(tmp_path)
    assert kinds == STORY
    assert set(places) == {"counting", "training", "evaluating", "keeping"}
    assert asked.calls == [1]


def test_a_trial_that_is_dropped_or_fails_leaves_the_lane(data, tmp_path, quick_training):
    events, _ = told(data, job_of(data), folder=tmp_path)
    next(events)
    events.close()
    assert is_free(tmp_path)

    def fail():
        raise RecursionError("too\ndeep")

    quick_training.append(fail)
    *_, ended = told(data, job_of(data), folder=tmp_path)[0]
    assert (ended.state, ended.reason) == (TrialState.FAILED, "RecursionError: too")
    assert is_free(tmp_path)


def test_want_of_memory_is_not_recorded_as_the_trials_fault_and_leaves_the_lane(data, tmp_path, quick_training):
    def fail():
        raise MemoryError("no more")

    quick_training.append(fail)
    with pytest.raises(MemoryError):
        list(told(data, job_of(data), folder=tmp_path)[0])
    assert is_free(tmp_path)


def test_the_lane_can_be_had_at_every_step_of_a_training(data, tmp_path, monkeypatch):
    monkeypatch.setattr("nas.latency.lane.LONGEST_CHUNK_S", -1.0)  # every chunk is over
    monkeypatch.setattr(Lane, "_is_awaited", lambda self: True)
    left = []
    leave = Lane._leave
    monkeypatch.setattr(Lane, "_leave", lambda self: (left.append(None), leave(self)))
    assert [event.kind for event in told(data, job_of(data), folder=tmp_path)[0]] == STORY
    steps = 2 * (len(data.train.y) // TrainConfig().batch_size)
    assert len(left) >= steps + len(STORY)


def test_what_was_waited_for_others_is_told_apart(data, tmp_path, monkeypatch, quick_training):
    lanes = []
    quick_training.append(lambda: setattr(lanes[0], "waited_s", lanes[0].waited_s + 100))
    made = Lane.__init__

    def init(self, *args, **more):
        made(self, *args, **more)
        lanes.append(self)

    monkeypatch.setattr(Lane, "__init__", init)
    clock = type("Clock", (), {"perf_counter": staticmethod(lambda: 2.0 * lanes[0].waited_s + 5)})
    monkeypatch.setattr("nas.training.checkpoint.time", clock)
    *_, ended = told(data, job_of(data), folder=tmp_path)[0]
    assert ended.waited_s == pytest.approx(200, abs=50)
    assert ended.train_s == pytest.approx(ended.waited_s)


# --- what is known of a latency


SLOW = Constraint("latency_ms", 2.0)
HOPELESS = Reading(3.0, 0.0, 2.5, 3.5, source="predicted")
HOPEFUL = Reading(3.0, 0.0, 1.5, 4.5, source="predicted")


def test_a_prediction_without_hope_ends_a_trial_that_was_never_measured(data, tmp_path):
    events, asked = told(data, job_of(data, constraints=[SLOW]), Known(predicted=HOPELESS), folder=tmp_path)
    priced, ended = events
    assert asked.calls == []
    assert (priced.latency, priced.prepare_s, priced.measure_s) == (HOPELESS, 0.0, 0.0)
    assert ended.state is TrialState.INFEASIBLE and "latency_ms" in ended.reason and ended.train_s == 0


@pytest.mark.parametrize(("latency_ms", "state"), [(1.0, TrialState.COMPLETED), (2.5, TrialState.INFEASIBLE)])
def test_where_there_is_hope_it_is_measured(data, tmp_path, quick_training, latency_ms, state):
    job = job_of(data, constraints=[SLOW])
    events, asked = told(data, job, Known(predicted=HOPEFUL), latency_ms, folder=tmp_path)
    priced, *_, ended = events
    assert asked.calls == [1]
    assert (priced.latency.source, priced.latency.median_ms) == ("measured", latency_ms)
    assert (priced.prepare_s, priced.measure_s) == (0.25, 0.125)
    assert ended.state is state


def test_without_constraints_a_prediction_saves_no_measurement(data, tmp_path, quick_training):
    events, asked = told(data, job_of(data), Known(predicted=HOPELESS), folder=tmp_path)
    assert next(events).latency.source == "measured" and asked.calls == [1]


@pytest.fixture(scope="module")
def merging():
    """An architecture whose deploy form has a run, its segments by macs, and others."""
    space = nas.load_space("reducenet")
    for seed in range(60):
        arch = space.sample(seed)
        deployed = nas.build(arch, num_classes=10, input_shape=(1, 8, 8), form="deploy")
        plans = {merge_plan(deployed, name).segments for name in MERGE_COSTS}
        if len(plans) > 1:
            return arch, deployed
    raise AssertionError("no run")


@pytest.mark.parametrize("merge", MERGE_COSTS)
def test_what_is_remembered_counts_for_the_same_mergers_only(data, merging, merge):
    arch, deployed = merging
    job = job_of(data, merge)
    plans = {merge_plan(deployed, name).segments for name in MERGE_COSTS}
    for segments in plans:
        asked = Scripted(lambda network: 1.0)
        meter = Meter(job.latency, data.input_shape, "cpu", node=asked)
        remembered = reading(5.0, source="remembered", merges=segments)
        priced = price(arch, job, Known(remembered), meter)
        same = segments == merge_plan(deployed, merge).segments
        assert (asked.calls, priced.cost.latency.median_ms) == (([], 5.0) if same else ([1], 1.0))
        assert priced.cost.latency.merges == priced.shipped.plan.segments == merge_plan(deployed, merge).segments


def test_by_latency_the_remembered_mergers_are_taken_without_measuring(data, merging):
    arch, deployed = merging
    job = job_of(data, "latency")
    for name in MERGE_COSTS:
        plan, asked = merge_plan(deployed, name), Scripted(lambda network: 1.0)
        meter = Meter(job.latency, data.input_shape, "cpu", node=asked)
        priced = price(arch, job, Known(reading(5.0, source="remembered", merges=plan.segments)), meter)
        assert asked.calls == [] and priced.shipped.plan == plan
        assert (priced.cost.params, priced.cost.macs) == nas.count(apply_merges(deployed, plan), (1, 8, 8))
        assert priced.cost.latency.median_ms == 5.0


def test_what_is_known_survives_json():
    known = Known(reading(5.0, merges=(("a", "b"),)), HOPEFUL)
    assert known_from_dict(dataclasses.asdict(known)) == known
    assert known_from_dict(dataclasses.asdict(Known())) == Known()


# --- a network that its runtime cannot run


class Odd(nn.Module):
    """A network with an operator that ONNX does not have."""

    def __init__(self, network):
        super().__init__()
        self.network, self.input_shape = network, network.input_shape

    def forward(self, x):
        return self.network(x) + 0 * torch.linalg.inv(x + 99 * torch.eye(8, device=x.device)).mean()


def test_a_network_that_cannot_run_fails_its_trial_by_name_and_the_run_goes_on(tmp_path, monkeypatch):
    built, real = [], pipeline.build

    def build(arch, **how):
        network = real(arch, **how)
        if how.get("form") == "deploy":
            built.append(arch)
        return Odd(network) if built == [arch] and how.get("form") == "deploy" else network

    monkeypatch.setattr(pipeline, "build", build)
    run = small_search(tmp_path, budget=3, merge="none")
    assert run.reason == "budget"
    assert run.trials["state"].tolist() == ["failed", "completed", "completed"]
    reason = run.trials["reason"][0]
    assert reason.startswith("NotSupported: onnxruntime cannot run this network: operator aten.linalg_inv")
    assert [event["event"] for event in events_of(run) if event["trial"] == 0] == ["proposed", "ended"]
    assert run.trials.loc[0, ["latency_ms", "params"]].isna().all()

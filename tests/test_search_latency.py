"""What a search does with latencies: under which conditions it goes on, what it remembers, what it is spared."""

import dataclasses
import json
import shutil

import pytest

import nas
from nas.config import LatencyConfig
from nas.latency.calibrate import distinct
from nas.latency.conditions import conditions, conditions_from_dict, instrument
from nas.latency.predictor import LatencyPredictor, rows_of
from nas.latency.regression import fit
from tests.measuring import Scripted, instead_of_a_clock, measurement
from tests.searching import events_of, proposals_of, small_search

TINY = nas.load_space("tiny")
LIMIT = {"constraints.latency_ms": 1000}


def latency_ms(network):
    return 1e-3 * sum(parameter.numel() for parameter in network.parameters())


@pytest.fixture
def node():
    """What is measured with, so that no search of these tests depends on a clock."""
    scripted = Scripted(latency_ms)
    with instead_of_a_clock(scripted):
        yield scripted


def calibration(folder, factor=1.0, **changed):
    """A calibration file for the searches of these tests; it predicts `factor` times a latency."""
    config = LatencyConfig()
    where = conditions(config, instrument(config, "cpu"), (1, 8, 8), 10, "macs")
    archs = distinct(TINY, 9, 0)
    networks = [nas.build(arch, num_classes=10, input_shape=(1, 8, 8), form="deploy") for arch in archs]
    regression = fit(rows_of(archs, where), [factor * latency_ms(network) for network in networks])
    LatencyPredictor(dataclasses.replace(where, **changed), regression, {}).save(folder / "calibration.json")
    return folder / "calibration.json"


def search(runs, **settings):
    return small_search(runs, device="cpu", **settings)


def files_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def sources_of(run):
    return [event["latency"]["source"] for event in events_of(run) if event["event"] == "priced"]


def remembered(runs):
    return [json.loads(line) for line in (runs / ".latency" / "latencies.jsonl").read_text().splitlines()]


# --- under which conditions a run goes on


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with instead_of_a_clock(Scripted(latency_ms)):
        return search(tmp_path_factory.mktemp("runs"), run="one", budget=1)


@pytest.mark.parametrize(
    ("name", "value"),
    [("device", "another processor"), ("backend", "onnxruntime 0.1"), ("threads", 3), ("input_shape", [3, 8, 8])],
)
def test_a_run_of_other_conditions_is_not_continued_and_left_as_it_was(run, tmp_path, name, value):
    shutil.copytree(run.path.parent, tmp_path / "runs", symlinks=True)
    file = tmp_path / "runs" / "one" / "environment.json"
    environment = json.loads(file.read_text())
    told, here = value, environment["latency"][name]
    assert told != here
    environment["latency"][name] = value
    file.write_text(json.dumps(environment))
    before = files_of(tmp_path)
    with pytest.raises(ValueError) as refused:
        search(tmp_path / "runs", run="one", budget=2, resume=True)
    told, here = (tuple(each) if isinstance(each, list) else each for each in (told, here))
    why = f"its latencies were measured with {name} {told}, here {here}"
    assert str(refused.value) == f"run=one cannot be continued: {why}"
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("content", [None, "", "[1", "{}", '{"latency": {"device": "x"}}'])
def test_a_run_without_its_conditions_is_not_continued(run, tmp_path, content):
    shutil.copytree(run.path.parent, tmp_path / "runs", symlinks=True)
    file = tmp_path / "runs" / "one" / "environment.json"
    file.write_text(content) if content is not None else file.unlink()
    before = files_of(tmp_path)
    with pytest.raises(ValueError, match=r"^(.*environment.json cannot be read: .+|not the conditions of .+)$"):
        search(tmp_path / "runs", run="one", budget=2, resume=True)
    assert files_of(tmp_path) == before


def test_a_run_says_under_which_conditions_it_measured(node, tmp_path):
    run = search(tmp_path, budget=1, merge="none", **{"latency.batch_size": 2})
    config = LatencyConfig(batch_size=2)
    expected = conditions(config, instrument(config, "cpu"), (1, 8, 8), 10, "none")
    assert conditions_from_dict(json.loads((run.path / "environment.json").read_text())["latency"]) == expected


# --- calibrations


def test_a_calibration_spares_networks_their_measurement(node, tmp_path):
    file = calibration(tmp_path, factor=1e6)
    run = search(tmp_path / "runs", budget=2, **{"constraints.latency_ms": 5, "latency.calibration": str(file)})
    assert run.reason == "exhausted" and set(run.trials["state"]) == {"infeasible"}
    assert set(sources_of(run)) == {"predicted"}
    assert run.front.empty


def test_a_calibration_may_be_given_when_a_run_is_resumed(node, tmp_path):
    first = search(tmp_path / "runs", run="one", budget=2, **LIMIT)
    assert set(sources_of(first)) <= {"measured", "remembered"}
    file = calibration(tmp_path, factor=1e6)
    more = {"latency.calibration": str(file), "resume": True}
    resumed = search(tmp_path / "runs", run="one", budget=4, **LIMIT, **more)
    assert resumed.trials["state"].tolist()[:2] == ["completed"] * 2
    assert "predicted" in sources_of(resumed)[2:] and "infeasible" in set(resumed.trials["state"][2:])
    assert str(file) in (resumed.path / "config.yaml").read_text()


def test_a_calibration_that_agrees_lets_networks_be_measured(node, tmp_path):
    file = calibration(tmp_path)
    run = search(tmp_path / "runs", budget=3, **LIMIT, **{"latency.calibration": str(file)})
    assert run.trials["state"].tolist() == ["completed"] * 3
    assert set(sources_of(run)) <= {"measured", "remembered"}


def test_a_calibration_of_other_conditions_is_refused_before_a_run_is_made(node, tmp_path):
    file = calibration(tmp_path, threads=7)
    with pytest.raises(ValueError, match=r"^latency\.calibration=.* was made for threads 7, here 1$"):
        search(tmp_path / "runs", **LIMIT, **{"latency.calibration": str(file)})
    assert not (tmp_path / "runs").exists()


def test_a_calibration_of_other_conditions_is_refused_when_a_run_is_resumed(node, tmp_path):
    search(tmp_path / "runs", run="one", budget=1, **LIMIT)
    file = calibration(tmp_path, merge="none")
    before = files_of(tmp_path / "runs")
    with pytest.raises(ValueError, match=r"was made for merge none, here macs$"):
        search(tmp_path / "runs", run="one", budget=2, resume=True, **{"latency.calibration": str(file)})
    assert files_of(tmp_path / "runs") == before


@pytest.mark.parametrize("limit", [{}, LIMIT])
def test_a_calibration_without_a_constraint_is_said_to_spare_nothing(node, tmp_path, capsys, limit):
    file = calibration(tmp_path)
    search(tmp_path / "runs", verbose=True, budget=1, **limit, **{"latency.calibration": str(file)})
    said = "latency.calibration spares nothing: without a constraint every network is measured"
    assert (said in capsys.readouterr().out.splitlines()) == (not limit)


# --- what is remembered


class Doubted(Scripted):
    """A node whose measurements `doubtful` gives a reason to doubt; each one differs from all before."""

    def __init__(self, doubtful):
        super().__init__(latency_ms)
        self.doubtful = doubtful

    def measure(self, variants, *, device):
        number = len(self.calls)
        super().measure(variants, device=device)
        doubt = "the machine drifts" if self.doubtful(number) else ""
        return [measurement(latency_ms(each.network) + number, each.config, doubt=doubt) for each in variants]


def forms_of(run):
    """The deploy form of each trial."""
    return dict(zip(run.trials["trial"], run.trials["deploy_id"], strict=True))


@pytest.mark.parametrize(
    "doubtful", [lambda number: number < 5, lambda number: number >= 5], ids=["the trials", "the front"]
)
def test_only_latencies_without_doubt_outlive_their_run(tmp_path, doubtful):
    with instead_of_a_clock(Doubted(doubtful)):
        run = search(tmp_path, budget=5, sampler="random")
    assert sources_of(run) == ["measured"] * 5
    latencies = [(event["trial"], event["latency"]) for event in events_of(run) if "latency" in event]
    doubts = {latency["doubt"] for _, latency in latencies}
    assert doubts == {"", "the machine drifts"}
    known = {}
    for trial, latency in latencies:
        if not latency["doubt"]:
            known.setdefault(forms_of(run)[trial], latency["median_ms"])
    kept = remembered(tmp_path)
    assert [line["reading"]["doubt"] for line in kept] == [""] * len(known)
    assert {line["key"]["deploy_id"]: line["reading"]["median_ms"] for line in kept} == known


def test_the_next_run_measures_what_the_last_one_doubted(tmp_path):
    told = []
    for doubted in (True, False, False):
        with instead_of_a_clock(Doubted(lambda number, doubted=doubted: doubted)):
            run = search(tmp_path, budget=5, run=f"after{len(told)}")
        priced = [event for event in events_of(run) if event["event"] == "priced"]
        told.append(({event["latency"]["source"] for event in priced}, [e["latency"]["median_ms"] for e in priced]))
        assert (tmp_path / ".latency").exists() is not doubted
    assert [sources for sources, _ in told] == [{"measured"}, {"measured"}, {"remembered"}]
    assert told[1][1] == told[2][1]


def test_same_seed_same_architectures_by_remembered_latency(tmp_path):
    with instead_of_a_clock(Doubted(lambda number: False)):  # no two measurements agree
        runs = [search(tmp_path, budget=14, run=name) for name in "ab"]
    assert proposals_of(runs[0]) == proposals_of(runs[1])
    assert set(sources_of(runs[0])) == {"measured", "remembered"} and set(sources_of(runs[1])) == {"remembered"}

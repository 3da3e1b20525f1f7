"""Calibrations: what is fitted and judged, the files that keep it, and what these refuse."""

import dataclasses
import json
import random

import numpy as np
import pytest
from torch import nn

import nas
from nas.config import LatencyConfig
from nas.latency.calibrate import agreement, calibrate, distinct, report
from nas.latency.conditions import Conditions
from nas.latency.meter import Meter
from nas.latency.predictor import LatencyPredictor, load_predictor, rows_of
from nas.latency.prepared import NotSupported
from nas.latency.regression import fit
from tests.helpers import space_of
from tests.measuring import Scripted

pytestmark = pytest.mark.usefixtures("one_thread")
WHERE = Conditions("a processor", "torch 2", "float32", 1, 1, "auto", (1, 8, 8), 10, "none")
OTHER = Conditions("another processor", "torch 3", "int8", 2, 4, "contiguous", (3, 8, 8), 11, "macs")
NAMES = [each.name for each in dataclasses.fields(Conditions)]
MOBILE, REDUCE = nas.load_space("mobile"), nas.load_space("reducenet")


def convs_of(network):
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]


def latency_ms(network):
    """A latency that is a sum: of what each convolution takes, and each weight."""
    weights = sum(parameter.numel() for parameter in network.parameters())
    return 0.02 + 0.004 * len(convs_of(network)) + 1e-5 * weights


def calibration(space=REDUCE, sizes=(30, 10), node=None, where=WHERE, seed=0):
    """What a calibration finds, what it says and what it had measured."""
    said, node = [], node or Scripted(latency_ms)
    meter = Meter(LatencyConfig(), where.input_shape, "cpu", node=node)
    return calibrate(space, where, meter, sizes, seed, said.append), said, node


@pytest.fixture(scope="module")
def found():
    return calibration(MOBILE)[0]


@pytest.fixture(scope="module")
def saved(found, tmp_path_factory):
    file = tmp_path_factory.mktemp("calibration") / "made" / "here.json"
    found.predictor.save(file)
    return file


# --- what is fitted


def test_a_clean_latency_is_predicted_of_networks_that_were_not_seen(found):
    error = found.predictor.error
    assert error["median_error"] < 0.05 and error["p90_error"] < 0.15
    assert error["spearman"] > 0.95 and error["kendall"] > 0.85
    assert error["covered"] >= 0.8
    assert len(found.held_out) == 10 and found.held_out.max() > 5 * found.held_out.min()
    assert len(found.predictor.regression.latency_ms) == 30


def test_networks_to_judge_by_are_measured_twice_and_not_fitted(found):
    _, said, node = calibration(sizes=(7, 5))
    assert len(node.asked) == 12 + 4  # a third of them at most
    assert said == ["measuring 12 networks of space reducenet, 4 of them to judge by (twice)"]
    np.testing.assert_array_equal(found.again, found.held_out)
    assert not set(found.held_out) & set(found.predictor.regression.latency_ms)


def test_the_error_is_that_of_what_was_held_out(found):
    error = agreement(found.predicted, found.held_out)
    assert {name: found.predictor.error[name] for name in error} == error


def test_how_latencies_agree():
    told, measured = np.array([1.1, 2.0, 2.4, 3.0, 5.0]), np.array([1.0, 2.0, 3.0, 2.5, 4.0])
    found = agreement(told, measured)
    assert found == pytest.approx({"median_error": 0.2, "p90_error": 0.23, "spearman": 0.9, "kendall": 0.8})


def test_the_report_holds_the_figures(found):
    _, predicted, again, span, doubt = (line.split("  ") for line in report(found))
    error = found.predictor.error
    figures = [f"{error[name]:.1%}" for name in ("median_error", "p90_error")]
    figures += [f"{error[name]:.3f}" for name in ("spearman", "kendall")]
    assert [word.strip() for word in predicted if word.strip()] == ["predicted, of networks not seen", *figures]
    assert [word.strip() for word in again if word.strip()][1:] == ["0.0%", "0.0%", "1.000", "1.000"]
    low, high = found.held_out.min(), found.held_out.max()
    assert span[0] == f"10 networks held out, {low:.3f} to {high:.3f} ms; {error['covered']:.0%} in their 90 % interval"
    assert doubt[0].endswith("s; 0 measurements were not stable")


def test_measurements_that_are_not_stable_are_counted():
    found, _, node = calibration(sizes=(5, 5), node=Scripted(latency_ms, doubt="the machine drifts"))
    assert found.doubtful == len(node.asked) == 10 + 3
    assert "13 measurements were not stable" in list(report(found))[-1]


@pytest.mark.parametrize("merge", ["none", "all"])
def test_what_is_measured_is_merged_as_configured(merge):
    where = dataclasses.replace(WHERE, merge=merge)
    _, _, node = calibration(sizes=(5, 5), where=where)
    archs = distinct(REDUCE, 10, 0)
    deployed = [nas.build(arch, num_classes=10, input_shape=(1, 8, 8), form="deploy") for arch in archs]
    whole = sum(len(convs_of(network)) for network in deployed)
    measured = sum(len(convs_of(network)) for network in node.asked[:10])
    assert measured == whole if merge == "none" else measured < whole


# --- networks that cannot be measured


class Picky(Scripted):
    """A node whose runtime does not know what `refused` gives a reason for."""

    def __init__(self, refused):
        super().__init__(latency_ms)
        self.refused = refused

    def measure(self, variants, *, device):
        measured = super().measure(variants, device=device)
        if reason := self.refused(variants[0].network):
            raise NotSupported(reason)
        return measured


def why_not(network):
    convs = len(convs_of(network))
    return "too deep" if convs > 8 else "too shallow" if convs < 6 else ""


def test_networks_that_the_runtime_cannot_run_are_left_out_and_counted():
    found, said, node = calibration(sizes=(30, 10), node=Picky(why_not))
    reasons = [why_not(network) for network in node.asked[:40]]
    assert set(reasons) == {"", "too shallow", "too deep"}
    left_out = {f"{reasons.count(why)} networks left out: {why}" for why in ("too shallow", "too deep")}
    assert len(said) == 3 and set(said[1:]) == left_out
    fitted = len(found.predictor.regression.latency_ms)
    assert fitted + len(found.held_out) == reasons.count("")
    assert len(found.held_out) == reasons.count("") // 3


def test_too_few_that_can_run_are_refused():
    asked = iter(range(100))
    node = Picky(lambda network: "" if next(asked) < 9 else "no")
    with pytest.raises(ValueError, match=r"^9 networks could be measured; a predictor needs 10 at least$"):
        calibration(sizes=(7, 5), node=node)


def test_too_small_a_space_is_refused_before_anything_is_measured(tmp_path):
    text = "stages: [{block: conv, out_channels: {from: 8, to: 40, step: 4}}]\nhead: [{block: classifier}]\n"
    node = Scripted(latency_ms)
    with pytest.raises(ValueError, match=r"^space=space has 9 different deploy forms; a predictor needs 10 at least$"):
        calibration(space_of(tmp_path, text), (30, 10), node)
    assert node.asked == []


# --- which networks


def test_networks_to_measure_have_different_deploy_forms():
    space = nas.load_space("rep")
    archs = distinct(space, 50, 3)
    ids = [arch.deploy_id for arch in archs]
    assert len(set(ids)) == len(ids) == 50
    assert all(space.contains(arch) for arch in archs)
    assert [arch.arch_id for arch in distinct(space, 50, 3)] == [arch.arch_id for arch in archs]
    assert not {arch.arch_id for arch in distinct(space, 50, 4)} >= {arch.arch_id for arch in archs}


def test_of_a_small_space_all_deploy_forms_are_found():
    space = nas.load_space("tiny")
    every = {space.architecture(choices).deploy_id for choices in space.enumerate()}
    assert sorted(arch.deploy_id for arch in distinct(space, 100, 0)) == sorted(every)
    assert len(every) < space.size


# --- predictions


def test_what_shares_a_deploy_form_shares_its_row():
    space = nas.load_space("rep")
    for seed in range(5):
        choices = space.sample_choices(random.Random(seed))
        twins = [space.architecture({**choices, "branches": each}) for each in ("none", "repvgg", "acnet", "dbb")]
        assert len({arch.arch_id for arch in twins}) == 4 and len({arch.deploy_id for arch in twins}) == 1
        assert len({row.tobytes() for row in rows_of(twins, WHERE)}) == 1
    apart = rows_of(distinct(space, 20, 0), WHERE)
    assert len({row.tobytes() for row in apart}) == 20


def test_rows_are_those_of_merged_networks_but_by_latency_of_unmerged_ones():
    archs = distinct(REDUCE, 30, 0)
    none, macs, latency = (rows_of(archs, dataclasses.replace(WHERE, merge=way)) for way in ("none", "macs", "latency"))
    assert (none == latency).all()
    assert (none != macs).any()


def test_a_thousand_candidates_are_predicted_as_one_by_one(found):
    archs = distinct(MOBILE, 1000, 5)
    told = found.predictor.predict(archs)
    assert told.median_ms.shape == (1000,)
    assert np.isfinite(told.high_ms).all() and (told.low_ms > 0).all()
    assert (told.low_ms < told.median_ms).all() and (told.median_ms < told.high_ms).all()
    for i in (0, 500, 999):
        alone = found.predictor.predict([archs[i]])
        assert alone.median_ms[0] == pytest.approx(told.median_ms[i])


# --- files


def test_a_saved_predictor_predicts_identically(found, saved):
    again = load_predictor(saved, WHERE)
    assert (again.conditions, again.error) == (WHERE, found.predictor.error)
    archs = distinct(MOBILE, 50, 7)
    for before, after in zip(*(vars(each.predict(archs)).values() for each in (found.predictor, again)), strict=True):
        np.testing.assert_array_equal(before, after)
    assert [file.name for file in saved.parent.iterdir()] == [saved.name]


def test_a_saved_predictor_replaces_the_one_before(tmp_path):
    archs = distinct(MOBILE, 5, 0)
    for factor in (1.0, 1000.0):
        regression = fit(rows_of(archs, WHERE), factor * np.arange(1.0, 6.0))
        LatencyPredictor(WHERE, regression, {}).save(tmp_path / "a.json")
    assert load_predictor(tmp_path / "a.json", WHERE).predict(archs).median_ms.min() > 100


@pytest.mark.parametrize("name", NAMES)
def test_another_condition_is_refused_in_one_line_that_says_which(saved, name):
    told, here = getattr(WHERE, name), getattr(OTHER, name)
    assert told != here
    with pytest.raises(ValueError) as refused:
        load_predictor(saved, dataclasses.replace(WHERE, **{name: here}))
    assert str(refused.value) == f"latency.calibration={saved} was made for {name} {told}, here {here}"


def test_all_that_differs_is_said_in_one_line(saved):
    with pytest.raises(ValueError) as refused:
        load_predictor(saved, OTHER)
    assert "\n" not in str(refused.value)
    assert [part.split()[0] for part in str(refused.value).partition("was made for ")[2].split("; ")] == NAMES


def words_with(change):
    def spoil(content):
        words = json.loads(content)
        change(words)
        return json.dumps(words).encode()

    return spoil


SPOILT = {
    "empty": lambda content: b"",
    "junk": lambda content: b"{5: no",
    "a list": lambda content: b"[1, 2]",
    "a word": lambda content: b'"calibration"',
    "nothing": lambda content: b"null",
    "an empty mapping": lambda content: b"{}",
    "binary": lambda content: b"\x80\x04\xff\0" + content,
    "torn": lambda content: content[: len(content) // 2],
    "torn late": lambda content: content[:-3],
    "another version": words_with(lambda words: words.update(version=2)),
    "other features": words_with(lambda words: words.update(features=0)),
    "no version": words_with(lambda words: words.pop("version")),
    "no conditions": words_with(lambda words: words.pop("conditions")),
    "too few conditions": words_with(lambda words: words["conditions"].pop("threads")),
    "too many conditions": words_with(lambda words: words["conditions"].update(colour="red")),
    "conditions of two lines": words_with(lambda words: words["conditions"].update({"one\ntwo": 5})),
    "conditions of no images": words_with(lambda words: words["conditions"].update(input_shape=8)),
    "flat images": words_with(lambda words: words["conditions"].update(input_shape=[8, 8])),
    "no error": words_with(lambda words: words.pop("error")),
    "an error of words": words_with(lambda words: words["error"].update(spearman="good")),
    "no regression": words_with(lambda words: words.pop("regression")),
    "a regression of nothing": words_with(lambda words: words.update(regression=None)),
    "NaN latencies": words_with(lambda words: words["regression"]["latency_ms"].__setitem__(0, float("nan"))),
    "NaN features": words_with(lambda words: words["regression"]["features"][0].__setitem__(0, float("nan"))),
    "NaN intervals": words_with(lambda words: words["regression"].update(chosen=[float("nan")] * 3)),
    "negative latencies": words_with(lambda words: words["regression"]["latency_ms"].__setitem__(0, -1.0)),
    "ragged features": words_with(lambda words: words["regression"]["features"][0].pop()),
    "endless lists": lambda content: b"[" * 100_000,
    "a number beyond floats": words_with(lambda words: words["regression"]["latency_ms"].__setitem__(0, 10**400)),
    "a row missing": words_with(lambda words: words["regression"]["features"].pop()),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_what_is_no_calibration_file_is_refused_in_one_line(saved, tmp_path, spoil):
    file = tmp_path / "spoilt.json"
    file.write_bytes(spoil(saved.read_bytes()))
    with pytest.raises(ValueError) as refused:
        load_predictor(file, WHERE)
    said = str(refused.value)
    assert said.startswith(f"latency.calibration={file} is not ")
    assert "\n" not in said and not said.endswith(": ")


def test_what_is_no_file_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(ValueError, match=r"^latency\.calibration=.* cannot be read: .+$"):
            load_predictor(path, WHERE)

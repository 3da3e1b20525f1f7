"""One network in its three forms: the same function each time, measured on each runtime."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import nas
from nas.architecture import Architecture
from nas.blocks import Basic, Classifier, Conv, Reduce
from nas.config import LatencyConfig
from nas.latency import measure as measuring
from nas.latency import side_by_side as module
from nas.latency.backends import LATENCY_BACKENDS, LatencyBackend
from nas.latency.meter import Meter
from nas.latency.prepared import NotSupported, Prepared
from nas.latency.side_by_side import FORMS, forms_of, installed_backends, side_by_side
from nas.latency.table import NETWORK, layers_of, write_table
from nas.networks.builder import build
from tests.helpers import randomise, relative_difference

pytestmark = pytest.mark.usefixtures("one_thread")
SHAPE = (3, 13, 10)
LINEAR = Reduce(out_channels=6, bottleneck_width=2, activation="none")
ARCHS = {
    "reduce": Architecture(
        (Conv(out_channels=6),), ((LINEAR, LINEAR, Reduce(out_channels=6, bottleneck_width=2)),), (Classifier(),)
    ),
    "repvgg": Architecture(
        (Conv(out_channels=6, branches="repvgg"),),
        ((Conv(out_channels=6, branches="repvgg", branch_count=2), Conv(out_channels=8, branches="dbb")),),
        (Classifier(),),
    ),
    "basic": Architecture((Conv(out_channels=6),), ((Basic(out_channels=8, stride=2),),), (Classifier(),)),
    **{f"{space} {seed}": nas.load_space(space).sample(seed) for space in ("mobile", "reducenet") for seed in (0, 1)},
}


def forms(arch, merge="macs", config=None):
    return forms_of(arch, 5, Meter(config or LatencyConfig(), SHAPE, "cpu"), merge)


@torch.no_grad()
def seasoned(network):
    """Random affine parameters, a batch's statistics: fresh ones would hide errors, and random ones the images."""
    randomise(network)
    for each in network.modules():
        if isinstance(each, nn.BatchNorm2d):
            each.momentum = 1.0
    network.train()(images(16))
    return network


def images(count):
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(0))


def count_of(network, kind):
    return sum(isinstance(each, kind) for each in network.modules())


# --- the forms


@pytest.mark.parametrize("merge", ["none", "all"])
@pytest.mark.parametrize("name", ARCHS)
@torch.no_grad()
def test_three_forms_are_one_function(monkeypatch, name, merge):
    monkeypatch.setattr(module, "build", lambda *args, **how: seasoned(build(*args, **how)))
    torch.manual_seed(0)
    made = forms(ARCHS[name], merge)
    assert tuple(made) == FORMS
    assert not any(part.training for network in made.values() for part in network.modules())
    expected = made["train"](images(3))
    assert expected.shape == (3, 5) and relative_difference(expected[0], expected[1]) > 5e-3  # images matter
    for form in ("folded", "fused"):
        assert relative_difference(expected, made[form](images(3))) < 1e-5, form


@pytest.mark.parametrize("name", ARCHS)
def test_each_form_computes_less_than_the_one_before(name):
    train, folded, fused = forms(ARCHS[name]).values()
    assert count_of(train, nn.BatchNorm2d) > count_of(folded, nn.BatchNorm2d)
    assert count_of(fused, nn.BatchNorm2d) == 0
    assert count_of(folded, nn.Conv2d) >= count_of(fused, nn.Conv2d)


@pytest.mark.parametrize("name", ["reduce", "repvgg"])
def test_folding_leaves_wide_middles_and_branches(name):
    train, folded, fused = forms(ARCHS[name], merge="none").values()
    assert count_of(train, nn.Conv2d) == count_of(folded, nn.Conv2d) > count_of(fused, nn.Conv2d)


def test_the_fused_form_is_merged_as_configured():
    convs = [count_of(forms(ARCHS["reduce"], merge)["fused"], nn.Conv2d) for merge in ("none", "all")]
    assert convs == [4, 2]


# --- the rows


def runtime(latency_ms, problem=None):
    """A runtime that takes a millisecond a convolution times `latency_ms`, or cannot run what has a BatchNorm."""

    def prepare(network, images, config):
        if problem and count_of(network, nn.BatchNorm2d):
            raise NotSupported(problem)
        convs = count_of(network, nn.Conv2d)
        return measuring.contextlib.nullcontext(Prepared(lambda: np.zeros(1), lambda: latency_ms * convs))

    return LatencyBackend(prepare, "torch")


@pytest.fixture
def runtimes(monkeypatch, tmp_path, quick):
    """Made-up runtimes by name; measured in a lane of the test's own."""
    made = {"quick": runtime(1.0), "slow": runtime(10.0), "old": runtime(1.0, problem="old knows no BatchNorm")}
    for name, each in made.items():
        monkeypatch.setitem(LATENCY_BACKENDS, name, each)
    monkeypatch.setattr("nas.latency.lane.FOLDER", tmp_path / "lane")
    monkeypatch.setattr(measuring, "validate", lambda *args: None)  # these are no options of the configuration
    return dataclasses.replace(quick, limit_s=0.1)


def test_every_form_is_measured_on_every_runtime(runtimes):
    made = forms(ARCHS["repvgg"])
    rows = list(side_by_side(made, runtimes, ["quick", "slow"], SHAPE, "cpu"))
    assert [(row.backend, row.form) for row in rows] == [(name, form) for name in ("quick", "slow") for form in FORMS]
    convs = [count_of(network, nn.Conv2d) for network in made.values()]
    measured = [row.measured for row in rows if row.measured]
    assert [each.samples.median_ms for each in measured] == [*convs, *(10.0 * count for count in convs)]
    assert [each.backend for each in measured] == ["quick"] * 3 + ["slow"] * 3
    assert all(each.input_shape == SHAPE for each in measured) and not any(row.problem for row in rows)


def test_a_runtime_that_cannot_run_a_form_says_so_and_the_others_go_on(runtimes):
    rows = list(side_by_side(forms(ARCHS["repvgg"]), runtimes, ["old", "quick"], SHAPE, "cpu"))
    why = "old knows no BatchNorm"
    assert [(row.form, row.problem) for row in rows[:3]] == [("train", why), ("folded", why), ("fused", "")]
    assert [row.measured is None for row in rows[:3]] == [True, True, False]
    assert [row.backend for row in rows] == ["old"] * 3 + ["quick"] * 3
    assert all(row.measured and not row.problem for row in rows[3:])


def test_another_mistake_is_not_taken_for_a_runtimes(runtimes):
    with pytest.raises(ValueError, match=r"latency\.backend=abacus is unknown"):
        list(side_by_side(forms(ARCHS["repvgg"]), runtimes, ["abacus"], SHAPE, "cpu"))


# --- which runtimes


def test_runtimes_that_are_installed_are_found(tmp_path):
    able = [name for name, each in LATENCY_BACKENDS.items() if each.installed and "cpu" in each.devices]
    assert installed_backends(LatencyConfig(), "cpu") == [name for name in able if name != "table"]
    write_table(tmp_path / "table.csv", {NETWORK: 1.0})
    assert installed_backends(LatencyConfig(table=str(tmp_path / "table.csv")), "cpu") == able
    int8 = installed_backends(LatencyConfig(dtype="int8"), "cpu")
    assert "onnxruntime" in int8 and "torch" not in int8


def test_a_table_takes_its_place_beside_the_runtimes(tmp_path, runtimes):
    made = forms(ARCHS["basic"])
    layers = [name for network in made.values() for name in layers_of(network, SHAPE)]
    write_table(tmp_path / "table.csv", {NETWORK: 1.0, **dict.fromkeys(layers, 1.0)})
    config = dataclasses.replace(runtimes, table=str(tmp_path / "table.csv"))
    rows = list(side_by_side(made, config, ["table"], SHAPE, "cpu"))
    expected = [1.0 + count_of(network, nn.Conv2d | nn.Linear) for network in made.values()]
    assert [row.measured and row.measured.median_ms for row in rows] == expected

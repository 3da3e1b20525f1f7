"""Limits of parameters and depth: what is above them is refused before anything of it is built."""

import dataclasses

import pytest
import torch

from nas.architecture import Architecture
from nas.command_line import make_config
from nas.config import LimitsConfig, SearchConfig
from nas.describe import main as describe
from nas.export import main as export
from nas.limits import AboveLimits, check_deploy_form, check_depth
from nas.networks.bounds import check_limits, params_of
from nas.networks.builder import build
from nas.space_file import load_architecture, load_space, space_names, zoo_names
from nas.train import main as train
from nas.tune.plan import make_plan
from tests.helpers import HEAD
from tests.searching import SMALL, events_of, small_search

IMAGES = (1000, (3, 224, 224))
WIDE = "stages: [{block: conv, depth: 40, out_channels: 8192, kernel_size: 31}]\n" + HEAD
DEEP = "stages:\n" + "  - {block: conv, depth: 200, out_channels: 8}\n" * 6 + HEAD
SOME_WIDE = "stages: [{block: conv, out_channels: [8, 8192], kernel_size: [1, 3], depth: [1, 3]}]\n" + HEAD


@pytest.fixture
def nothing_is_built(monkeypatch):
    """Tensors of more numbers than a small network has are an error, unless they have no numbers."""
    real = torch.empty

    def empty(*sizes, **more):
        found = real(*sizes, **more)
        assert found.is_meta or found.numel() < 10_000_000
        return found

    monkeypatch.setattr(torch, "empty", empty)


def largest_of(name: str) -> Architecture:
    """The member of a space that has the largest options."""
    return load_space(name).assemble(
        lambda _, options: max(options, key=lambda each: each if isinstance(each, int | float) else 0)
    )


@pytest.mark.parametrize("name", ["zoo/vgg19", "zoo/resnet152", "zoo/resnet110", "vgg", "reducenet"])
def test_what_is_shipped_is_within_the_limits_in_both_forms(name):
    check_limits(largest_of(name), *IMAGES, LimitsConfig())


@pytest.mark.parametrize("name", [*space_names(), *(f"zoo/{name}" for name in zoo_names())])
def test_what_is_shipped_is_within_the_limits(name):
    check_deploy_form(largest_of(name), *IMAGES, LimitsConfig())


@pytest.mark.parametrize("name", ["zoo/mobilenet_v2", "zoo/reducenet_20", "zoo/googlenet", "zoo/mobileone_s0"])
def test_both_forms_are_counted_as_they_are_built(name):
    arch = load_architecture(name)
    for form in ("train", "deploy"):
        network = build(arch, num_classes=10, input_shape=(3, 32, 32), form=form)
        params = sum(each.numel() for each in network.parameters())
        assert params_of(arch, 10, (3, 32, 32), form) == params
    most = max(params_of(arch, 10, (3, 32, 32), form) for form in ("train", "deploy"))
    check_limits(arch, 10, (3, 32, 32), LimitsConfig(params=most))
    with pytest.raises(
        AboveLimits, match=f"{most:,} parameters of the .* form are more than limits.params={most - 1:,}"
    ):
        check_limits(arch, 10, (3, 32, 32), LimitsConfig(params=most - 1))
    check_depth(arch, LimitsConfig(depth=len(arch.blocks)))
    with pytest.raises(
        AboveLimits, match=r"blocks are more than limits\.depth=\d+ allows; limits\.depth=\d+ raises it"
    ):
        check_depth(arch, LimitsConfig(depth=len(arch.blocks) - 1))


def test_a_train_form_alone_may_be_too_large():
    arch = load_architecture("zoo/reducenet_20")
    deploy, trained = (params_of(arch, 10, (3, 32, 32), form) for form in ("deploy", "train"))
    assert deploy < trained
    with pytest.raises(AboveLimits, match="of the train form"):
        check_limits(arch, 10, (3, 32, 32), LimitsConfig(params=deploy))


def test_activations_that_no_memory_holds_are_refused():
    arch = load_space("zoo/vgg11").architecture({})
    with pytest.raises(AboveLimits, match="GB are needed at once for one image of 3x99999x99999"):
        check_deploy_form(arch, 1000, (3, 99_999, 99_999), LimitsConfig(params=10**12))


@pytest.mark.parametrize(("text", "key"), [(WIDE, "limits.params"), (DEEP, "limits.depth")])
def test_every_command_refuses_what_is_above_the_limits(tmp_path, capsys, nothing_is_built, text, key):
    (tmp_path / "space.yaml").write_text(text)
    space = str(tmp_path / "space.yaml")
    with pytest.raises(ValueError, match=rf"{key}=[\d,]+ allows; {key}=\d+ raises it"):
        make_plan({**SMALL, "space": space, "runs_dir": str(tmp_path / "runs")})
    words = [f"arch={space}", f"out={tmp_path / 'out'}"]
    for command, given in ((train, words), (describe, [f"arch={space}", "input=3x32x32", "classes=10"])):
        assert command(given) == 2
        said = capsys.readouterr().err
        assert "raises it" in said and key in said and said.count("\n") == 1
    assert sorted(each.name for each in tmp_path.iterdir()) == ["space.yaml"]


def test_a_limit_can_be_raised(tmp_path, capsys):
    assert describe(["arch=zoo/resnet20", "limits.depth=5"]) == 2
    assert describe(["arch=zoo/resnet20", "limits.depth=11"]) == 0


def test_a_space_of_which_some_networks_are_too_large_is_searched_without_these(tmp_path, nothing_is_built):
    (tmp_path / "space.yaml").write_text(SOME_WIDE)
    few = {"space": str(tmp_path / "space.yaml"), "budget": 2, "limits.params": 100_000}
    for sampler in ("exact_cost", "random"):
        trials = small_search(tmp_path, sampler=sampler, run=sampler, **few).trials
        assert (trials["state"] == "completed").sum() == 2
        above = trials.loc[trials["state"] == "infeasible"]
        assert above["reason"].str.contains("limits.params").all()


def test_limits_are_not_taken_from_a_run(tmp_path, capsys):
    run = small_search(tmp_path, run="theirs", budget=1)
    file = run.path / "config.yaml"
    file.write_text(file.read_text().replace("depth: 1000", "depth: 100000"))
    assert make_config({"config": file}).limits.depth == 100_000
    plan = make_plan({"run": "theirs", "resume": True, "runs_dir": str(tmp_path)})
    assert plan.job.limits == LimitsConfig()
    plan = make_plan({"run": "theirs", "resume": True, "runs_dir": str(tmp_path), "limits.depth": 50})
    assert plan.job.limits.depth == 50
    trial = next(each["trial"] for each in events_of(run) if each["event"] == "ended")
    assert export([f"run={run.path}", f"trial={trial}", "limits.params=10", f"out={tmp_path / 'out'}"]) == 2
    assert "limits.params=10 allows" in capsys.readouterr().err


def test_defaults_are_those_of_the_help():
    assert SearchConfig().limits == LimitsConfig(params=10**9, depth=1000)
    assert dataclasses.asdict(LimitsConfig()).keys() == {"params", "depth"}

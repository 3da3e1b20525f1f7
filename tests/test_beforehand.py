"""What a search begins with: earlier runs' trials, and published networks."""

from dataclasses import replace

import pytest

import nas
from nas.objectives import Constraint
from nas.results import Run
from nas.store import RunStore
from nas.tune.beforehand import published_members
from nas.tune.plan import make_plan
from nas.tune.pricing import size_of
from tests.searching import SMALL, events_of, proposals_of, small_search

SAME = {"objectives": ["error", "macs"]}


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    small_search(folder, run="earlier", budget=14, **SAME)
    return folder


def why_of(run):
    return [event["why"] for event in events_of(run) if event["event"] == "proposed"]


def test_a_warm_search_learns_from_the_earlier_run_and_judges_for_itself(runs_dir):
    warm = small_search(runs_dir, run="warm", budget=3, warm_start=["earlier"], **SAME)
    assert len(warm.trials) == 3
    assert not any("spread over costs" in why for why in why_of(warm)), why_of(warm)
    earlier = Run(runs_dir / "earlier").front
    assert set(proposals_of(warm)) & set(earlier["arch_id"])  # what was best is judged again: its weights are not here


def test_what_was_learned_elsewhere_is_no_trial_of_this_run(runs_dir):
    run = small_search(runs_dir, run="own", budget=2, sampler="tpe", warm_start=[str(runs_dir / "earlier")], **SAME)
    assert run.trials["trial"].tolist() == [0, 1]
    assert run.trials["arch_id"].is_unique


def test_a_run_on_other_data_teaches_nothing(runs_dir, tmp_path):
    with pytest.raises(ValueError, match=r"^warm_start=earlier has train.epochs=1; allowed: a run with train.epochs=2"):
        small_search(runs_dir, run="no", warm_start=["earlier"], **{"train.epochs": 2})
    with pytest.raises(ValueError, match=r"^warm_start=nothing: .*nothing is not a run"):
        small_search(runs_dir, run="no", warm_start=["nothing"])
    assert not (runs_dir / "no").exists()


def test_memory_of_earlier_trials_is_counted_as_for_this_search(runs_dir):
    wanted = {"objectives": ["error", "macs", "peak_memory_mb"], "latency.batch_size": 3}
    plan = make_plan({**SMALL, **wanted, "runs_dir": str(runs_dir), "run": "new", "warm_start": ["earlier"]})
    assert plan.earlier
    for record in plan.earlier:
        assert record.cost.peak_memory_mb == size_of(record.architecture, plan.job).peak_memory_mb
        assert record.values(wanted["objectives"])
    theirs = {each.trial: each.cost.peak_memory_mb for each in RunStore.open(runs_dir / "earlier").records()}
    assert all(record.cost.peak_memory_mb > theirs[record.trial] for record in plan.earlier)


def test_published_networks_are_judged_first(tmp_path, monkeypatch):
    space = nas.load_space("tiny")
    published = [(f"published-{seed}", space.encode(space.sample(seed))) for seed in (0, 1)]
    monkeypatch.setattr("nas.tune.search_state.published_members", lambda space, job: iter(published))
    run = small_search(tmp_path, run="zoo", budget=4, zoo_first=True, **SAME)
    expected = list(dict.fromkeys(space.sample(seed).arch_id for seed in (0, 1)))
    assert proposals_of(run)[: len(expected)] == expected
    assert why_of(run)[0] == "published: published-0"
    resumed = small_search(tmp_path, run="zoo", budget=6, zoo_first=True, resume=True, **SAME)
    assert resumed.trials["arch_id"].is_unique and len(resumed.trials) == 6


def test_the_published_networks_of_a_space_are_its_members(tmp_path):
    plan = make_plan({"space": "mobile", "runs_dir": str(tmp_path)})
    found = dict(published_members(plan.space, plan.job))
    assert "mobilenet_v2" in found
    for name, choices in found.items():
        assert plan.space.architecture(choices).arch_id == nas.load_architecture(f"zoo/{name}").arch_id


def test_published_networks_that_break_a_limit_are_left_out(tmp_path):
    plan = make_plan({"space": "mobile", "runs_dir": str(tmp_path)})
    size = size_of(nas.load_architecture("zoo/mobilenet_v2"), plan.job)
    for name, limit in size._asdict().items():
        for share, kept in ((1.0, True), (0.99, False)):
            limited = replace(plan.job, constraints=(Constraint(name, share * limit), Constraint("latency_ms", 1e-9)))
            assert ("mobilenet_v2" in dict(published_members(plan.space, limited))) == kept

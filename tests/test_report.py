"""`python -m analysis.report`: what is told of a run, and that it is told in whole."""

import json
import math
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.report.__main__ import main
from analysis.report.charts import charts_of
from analysis.report.compared import compared
from analysis.report.images import least_images, wilson
from analysis.report.interactive import plotly_json
from analysis.report.markdown import markdown
from analysis.report.page import page
from analysis.report.sections import document
from analysis.report.timing import timing_of
from analysis.report.values import collect
from analysis.report.words import duration
from nas.space_file import load_architecture
from nas.store import RunStore
from nas.trial import Ended, Priced, Proposed, Rung, Started, TrialState, Unfused, records_of
from nas.trial import Tested as WasTested
from tests.browser import browser, chromium
from tests.helpers import reading
from tests.written_runs import ARCHITECTURE, write_run

EXAMPLE = Path(__file__).parents[1] / "analysis" / "example"
POINTS = [(0.5, 1.0), (0.25, 2.0), (0.125, 8.0), (0.5, 4.0)]
CHOICES = [{"depth": depth, "kind": kind} for depth, kind in ((1, "a"), (2, "b"), (3, "b"), (3, "a"))]
EVIL = "</script><img src=x onerror=alert(1)>&`|$x_1$"


@pytest.fixture(scope="module")
def example():
    return collect(RunStore.open(EXAMPLE))


def told(store: RunStore, *others: RunStore) -> tuple[str, str, dict[str, dict]]:
    """The page and the Markdown of a run's report, and its pictures as plotly gets them, by stem."""
    values, comparison = collect(store), compared(store, others) if others else None
    charts = charts_of(values, comparison)
    sections = document(values, comparison, charts)
    pictures = {chart.stem: b"<svg/>" for chart in charts}
    drawn = {chart.stem: json.loads(plotly_json(chart)) for chart in charts}
    return page(values.title, sections, charts, pictures), markdown(values.title, sections, charts), drawn


# --- the values


def test_the_networks_that_are_named_first_are_those_that_export_takes(example):
    assert [(pick.words, pick.word, pick.row["trial"]) for pick in example.picks] == [
        (("best",), "best", 23),
        (("knee",), "knee", 20),
        (("fastest",), "fastest", 45),
    ]


def test_a_network_that_is_all_of_them_is_named_once(tmp_path):
    (pick,) = collect(write_run(tmp_path, "one", POINTS[:1])).picks
    assert (pick.words, pick.word) == (("best", "knee", "fastest"), "best")


def test_without_latency_the_smallest_is_named_by_its_number(tmp_path):
    values = collect(write_run(tmp_path, "two", POINTS, objectives=["error", "params"]))
    assert [(pick.words, pick.word) for pick in values.picks] == [(("best", "knee", "least params"), "best")]


@pytest.mark.parametrize(("share", "images", "low", "high"), [(0.5, 10, 0.2366, 0.7634), (1.0, 10, 0.7225, 1.0)])
def test_wilsons_interval(share, images, low, high):
    assert wilson(share, images) == pytest.approx((low, high), abs=1e-4)  # Newcombe, Statistics in Medicine 17, 1998


@given(images=st.integers(2, 5000), correct=st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_the_least_number_of_images_divides_the_true_one(images, correct):
    shares = [round(each * images) / images for each in correct]
    found = least_images(shares)
    assert found is None or images % found == 0
    assert least_images([*shares, 1 / images]) == images


def test_no_number_of_images_is_read_out_of_what_is_no_share(example, tmp_path):
    assert (example.images.validation, example.images.test, example.images.inferred) == (337, 450, True)
    assert least_images([0.7233471, math.pi / 4, math.e / 3]) is None
    assert collect(write_run(tmp_path, "f1", POINTS, metric="macro_f1")).images.validation is None


def test_published_networks_are_recognized(tmp_path):
    arch = load_architecture("mobilenet_v2")
    store = write_run(tmp_path, "zoo", POINTS)
    store.append(
        Proposed(9, arch.to_dict(), arch.arch_id, arch.deploy_id, {}),
        Priced(9, 100, 1000, reading(3.0)),
        Ended(9, TrialState.COMPLETED, "", 0.625, 2, 1.5),
    )
    assert [name for name in collect(store).trials["published"] if name] == ["mobilenet_v2"]
    assert any("mobilenet_v2" in trace.get("text", ()) for trace in told(store)[2]["front"]["data"])


def test_reasons_are_counted_without_each_trials_own_figures(tmp_path):
    store = write_run(tmp_path, "reasons", POINTS)
    for trial, ms in ((4, 2.5), (5, 3.5)):
        store.append(
            Proposed(trial, ARCHITECTURE.to_dict(), "x", "y", {}),
            Ended(trial, TrialState.INFEASIBLE, f"latency_ms {ms} is above constraints.latency_ms=2"),
        )
    reasons = collect(store).reasons
    assert reasons == {("infeasible", "latency_ms is above constraints.latency_ms=2"): (2, 4)}


def test_the_parts_of_the_trials_time_add_up():
    arch = ARCHITECTURE
    events = [
        (Proposed(0, arch.to_dict(), "x", "y", {}), 10.0),
        (Priced(0, 1, 1, reading(1.0), 1.0, 2.0), 13.0),
        (Started(0, 5), 13.0),
        (Rung(0, 1, 0.5, 1.0, 4.0, 0.5), 20.0),
        (Started(0, 5), 50.0),
        (Ended(0, TrialState.COMPLETED, "", 0.75, 3, 6.0, 0.5), 60.0),
        (WasTested(0, 0.75), 65.0),
    ]
    timing = timing_of(events, records_of(event for event, _ in events))
    assert (timing.search_s, timing.after_s, timing.trials_s) == (50.0, 5.0, 50.0)
    assert (timing.preparing_s, timing.measuring_s, timing.resting_s) == (1.0, 2.0, 30.0)
    assert (timing.training_s, timing.waiting_s, timing.overhead_s) == (10.0, 1.0, 6.0)
    untimed = timing_of([(event, None) for event, _ in events], records_of(event for event, _ in events))
    assert untimed.trials_s is untimed.overhead_s is None


@pytest.mark.parametrize(("seconds", "words"), [(None, "not recorded"), (7.5, "7.5 s"), (374, "6 min 14 s")])
def test_durations(seconds, words):
    assert duration(seconds).replace("\u00a0", " ") == words


# --- what the report says


def test_the_example_names_what_was_found_first(example):
    sections = document(example, None, charts_of(example, None))
    text = markdown(example.title, sections, charts_of(example, None))
    first = text.split("\n## ")[1]
    assert first.startswith("What the search found") and "trial 23" in first and "0.9600" in first
    assert "trial=knee" in first and "337 validation images" in first
    assert "Unfused latencies are not recorded" in text


def test_fused_and_unfused_latencies_are_joined(tmp_path):
    store = write_run(tmp_path, "forms", POINTS)
    store.append(Unfused(0, reading(3.0)), Unfused(1, reading(5.0)))
    _, text, drawn = told(store)
    (line,) = (trace for trace in drawn["front"]["data"] if trace["mode"] == "lines" and None in trace["x"])
    assert line["x"] == [1.0, 3.0, None, 2.0, 5.0, None]
    assert "not recorded in this run" not in text and "unfused: 3 ms" in text


def test_intervals_of_both_axes_are_drawn(example):
    front = json.loads(plotly_json(charts_of(example, None)[0]))
    (trace,) = (each for each in front["data"] if each["name"] == "front, 6")
    best = trace["y"].index(min(trace["y"]))
    low, high = wilson(1 - trace["y"][best], 337)
    assert trace["error_y"]["array"][best] == pytest.approx(1 - low - trace["y"][best])
    assert trace["error_y"]["arrayminus"][best] == pytest.approx(trace["y"][best] - (1 - high))
    assert trace["error_x"]["array"][best] > 0 and "stage 1: conv" in trace["hovertext"][best]


@pytest.mark.parametrize("points", [[], POINTS[:1], POINTS])
@pytest.mark.parametrize("objectives", [["error", "latency_ms"], ["error", "params"], ["error", "latency_ms", "macs"]])
def test_every_run_has_a_report(tmp_path, points, objectives):
    store = write_run(tmp_path, "some", points, CHOICES[: len(points)], objectives=objectives)
    html, text, drawn = told(store)
    assert "Environment and settings" in html and "## Environment and settings" in text
    assert ("front" in drawn) == bool(points)
    assert ("No trial on the front" in text) == (not points)


def test_of_a_run_without_a_completed_trial_the_reason_is_told(tmp_path):
    store = write_run(tmp_path, "failed", [], end=None)
    store.append(Proposed(0, ARCHITECTURE.to_dict(), "x", "y", {}), Ended(0, TrialState.FAILED, "loss is not finite"))
    store.append(Proposed(1, ARCHITECTURE.to_dict(), "x", "y", {}))
    _, text, drawn = told(store)
    assert "has not ended" in text and "loss is not finite" in text and "1 trials had begun" in text
    assert "reasons" in drawn and "front" not in drawn


def test_what_files_say_is_text_and_no_markup(tmp_path):
    choices = [{f"depth{EVIL}": f"{i}{EVIL}"} for i in range(4)]
    store = write_run(tmp_path, "evil", POINTS, choices)
    store.append(Proposed(7, ARCHITECTURE.to_dict(), "x", "y", {}), Ended(7, TrialState.FAILED, EVIL))
    html, text, drawn = told(store)
    assert "<img src=x" not in html and html.count("</script>") == 2 + len(drawn)
    marked = [line for line in text.split("\n") if not line.startswith("    ")]  # other lines are code
    assert "<img src=x" not in "\n".join(marked).replace("\\<img", "")
    assert "<img" not in json.dumps(drawn)


# --- beside other runs


def test_runs_are_compared_by_what_sets_them_apart(tmp_path):
    def several(name, shift, **settings):
        return [
            write_run(tmp_path, f"{name}{i}", [(e - shift - i / 100, ms) for e, ms in POINTS], seed=i, **settings)
            for i in range(3)
        ]

    first, *others = [*several("a", 0.0), *several("b", 0.05, sampler="tpe")]
    comparison = compared(first, others)
    assert list(comparison.differing.columns) == ["seed", "sampler"]
    assert comparison.groups == {"sampler=exact_cost": ("a0", "a1", "a2"), "sampler=tpe": ("b0", "b1", "b2")}
    assert comparison.tests is not None and comparison.tests["p_value"].tolist() == pytest.approx([0.1])
    assert max(table["share"].iloc[-1] for table in comparison.progress.values()) <= 1 + 1e-9
    for _, row in comparison.hypervolumes.iterrows():
        assert comparison.progress[row["run"]]["share"].iloc[-1] == pytest.approx(row["hypervolume"])
    _, text, drawn = told(first, *others)
    assert "sampler=tpe" in text and {"attainment", "hypervolume_trials"} <= set(drawn)


def test_single_runs_are_not_tested(tmp_path):
    _, text, drawn = told(write_run(tmp_path, "a", POINTS), write_run(tmp_path, "b", POINTS[:2]))
    assert "single runs differ by chance" in text and "attainment" not in drawn


# --- the command


def test_the_command_writes_everything_and_again_in_its_place(tmp_path, capsys):
    write_run(tmp_path, "run", POINTS, CHOICES)
    for _ in range(2):
        assert main(["run=latest", f"runs_dir={tmp_path}"]) == 0
    folder = tmp_path / "run" / "report"
    names = {each.name for each in folder.iterdir()}
    assert {"report.html", "report.md", "front.png", "front.svg", "time.png"} <= names
    assert "https://cdn" not in (folder / "report.html").read_text(encoding="utf-8").split("<script>")[0]
    assert sorted(each.name for each in (tmp_path / "run").iterdir() if "tmp" in each.name) == []
    assert str(folder / "report.html") in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run=nowhere"], "run=nowhere"),
        (["run=run", "compare=[nowhere]"], "compare=nowhere"),
        (["run=run", "compare=[run]"], "given twice"),
        (["run=run", "compare=[empty]"], "no trial that has ended"),
        (["run=run", "compare=[macs]"], "objectives"),
        (["run=damaged"], "run=damaged is damaged"),
        (["run=torn"], "run=torn is damaged"),
        (["run=run", "out=taken"], "holds other files"),
        (["run=run", "out=file"], "is a file"),
        (["run=run", "out=file/below"], "out="),
        (["runn=run"], "did you mean run"),
    ],
)
def test_bad_input_is_said_in_a_line_and_nothing_is_written(tmp_path, monkeypatch, capsys, words, said):
    runs = tmp_path / "runs"
    for name in ("damaged", "torn"):
        write_run(runs, name, POINTS)
    write_run(runs, "empty", [])
    write_run(runs, "macs", POINTS, objectives=["error", "macs"])
    write_run(runs, "run", POINTS)
    (runs / "damaged" / "events.jsonl").write_text("nonsense\n" * 3)
    (runs / "torn" / "environment.json").write_text("{")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "letter.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and said in error
    assert sorted(tmp_path.rglob("*")) == before


def test_the_command_says_what_it_takes(capsys):
    assert main(["--help"]) == 0
    assert "python -m analysis.report run=latest" in capsys.readouterr().out


# --- in a browser


@pytest.mark.slow
@pytest.mark.skipif(chromium() is None, reason="needs Chromium")
def test_the_page_is_whole_in_a_browser_without_a_network(tmp_path):
    shutil.copytree(EXAMPLE, tmp_path / "example")
    assert main([f"run={tmp_path / 'example'}", f"out={tmp_path / 'out'}"]) == 0
    charts = 7
    with browser(tmp_path / "profile") as shown:
        for width in (400, 900, 1600):
            shown.open(tmp_path / "out" / "report.html", width, mobile=width < 600)
            assert shown.ask("document.querySelectorAll('.plot .plot-container').length") == charts
            assert shown.ask("document.documentElement.scrollWidth") == width
            wide = "[...document.querySelectorAll('.plot svg.main-svg')].some(e => e.clientWidth > innerWidth)"
            assert not shown.ask(wide)
        place = "(e => {e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect();"
        place += " return [r.x + r.width / 2, r.y + r.height / 2]})"
        best = "[...document.querySelectorAll('#picture-front .scatterlayer .trace')].at(-2).querySelector('.point')"
        shown.point_at(*shown.ask(f"{place}({best})"))
        hover = "new Promise(done => setTimeout(() => done(document.querySelector('.hoverlayer').textContent), 300))"
        assert "stage 1" in shown.ask(hover)
        assert shown.problems == []

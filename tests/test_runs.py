"""`python -m analysis.runs`: what it lists, what it removes, what it refuses."""

import os
import subprocess
import sys

import pandas as pd
import pytest

from analysis.runs import list_runs, main, remove_runs
from nas.store import RunStore
from tests.helpers import one_line_refusal
from tests.written_runs import write_run

A, B = [(0.5, 1.0), (0.25, 2.0)], [(0.4, 4.0)]


@pytest.fixture
def runs(tmp_path):
    write_run(tmp_path, "a", A)
    write_run(tmp_path, "b", B, end=None)
    (tmp_path / ".latency").mkdir()
    (tmp_path / ".latency" / "memory.json").write_text("{}")
    (tmp_path / "notes").mkdir()
    return tmp_path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def everything(folder):
    return sorted(str(path) for path in folder.rglob("*"))


# --- the list


def test_runs_are_listed_with_what_they_reached(runs):
    table = list_runs(runs).set_index("run")
    assert list(table.index) == ["a", "b"]  # no link, no hidden folder, nothing else that lies there
    assert table.loc["a", ["space", "data", "state", "trained", "best"]].tolist() == [
        *("tiny", "digits", "ended: budget", 2, 0.75)
    ]
    assert table.loc["b", "state"] == "unfinished"
    # The worst values of both are 0.5 and 4 ms: the box has 2, of which a has 0.25 * 2, b nothing.
    assert table["hypervolume"].tolist() == pytest.approx([0.25 * 2 / 2, 0])
    assert (table["size_mb"] > 0).all()


def test_runs_of_another_space_or_data_have_a_reference_of_their_own(runs):
    write_run(runs, "c", [(0.9, 90.0), (0.45, 45.0)], data="fashion_mnist")
    table = list_runs(runs).set_index("run")
    assert table.loc["a", "hypervolume"] == pytest.approx(0.25)
    assert table.loc["c", "hypervolume"] == pytest.approx(0.25)


def test_a_run_that_is_being_searched_is_running(runs):
    with RunStore.open(runs / "b").locked():
        assert list_runs(runs).set_index("run")["state"].to_dict() == {"a": "ended: budget", "b": "running"}
    assert list_runs(runs).set_index("run").loc["b", "state"] == "unfinished"


def test_listing_changes_nothing(runs):
    before = everything(runs)
    list_runs(runs)
    assert everything(runs) == before


@pytest.mark.parametrize(
    "harm",
    [
        lambda run: (run / "events.jsonl").write_text("no event\n{}\n"),
        lambda run: (run / "config.yaml").write_text("nonsense: [\n"),
        lambda run: (run / "config.yaml").unlink(),
        lambda run: (run / "end.json").write_text("{"),
        lambda run: (run / "end.json").write_text("[]"),
    ],
)
def test_a_damaged_run_is_listed_as_such_beside_the_others(runs, harm):
    harm(runs / "a")
    table = list_runs(runs).set_index("run")
    assert table.loc["a", "state"].startswith("damaged: ") and "\n" not in table.loc["a", "state"]
    assert table.loc["b", "best"] == 0.6
    assert table.loc["a", "size_mb"] > 0


def test_a_run_without_trials_and_a_torn_line_are_no_damage(runs):
    write_run(runs, "new", [], end=None)
    with (runs / "a" / "events.jsonl").open("a") as file:
        file.write('{"v": 2, "eve')
    table = list_runs(runs).set_index("run")
    assert table.loc["a", "trained"] == 2
    assert table.loc["new", "trained"] == 0
    assert pd.isna(table.loc["new", "best"]) and table.loc["new", "hypervolume"] == 0


def test_an_empty_folder_and_none(tmp_path, capsys):
    assert list_runs(tmp_path).empty
    assert main([f"runs_dir={tmp_path}"]) == 0
    assert "no runs in" in capsys.readouterr().out
    assert "is not a folder" in one_line_refusal(list_runs, tmp_path / "nowhere")


# --- removal


def test_what_is_named_is_removed_and_nothing_else(runs):
    write_run(runs, "c", B)
    removed = remove_runs(["a", "c", "a"], runs)
    assert removed["run"].tolist() == ["a", "c"] and (removed["size_mb"] > 0).all()
    assert names(runs) == [".latency", "b", "latest", "notes"]
    assert names(runs / ".latency") == ["memory.json"]


def test_latest_points_to_the_newest_that_is_left_and_goes_with_the_last(runs):
    write_run(runs, "c", B)
    os.utime(runs / "a" / "config.yaml", (2e9, 2e9))  # begun or resumed last
    remove_runs(["b"], runs)
    assert (runs / "latest").resolve().name == "c"  # still there: it is not touched
    remove_runs(["c"], runs)
    assert (runs / "latest").resolve().name == "a"
    remove_runs(["a"], runs)
    assert names(runs) == [".latency", "notes"]


def test_a_damaged_run_can_be_removed(runs):
    (runs / "a" / "config.yaml").unlink()
    (runs / "a" / "events.jsonl").write_text("nothing\nat all\n")
    remove_runs(["a"], runs)
    assert "a" not in names(runs)


@pytest.mark.parametrize(
    "name", ["..", ".", "../a", "b/../a", "a/weights", "/etc", ".latency", "latest", "notes", "nowhere", "", "a*", "~"]
)
def test_what_is_no_run_is_refused_before_anything_is_removed(runs, name):
    before = everything(runs)
    assert f"remove={name}" in one_line_refusal(remove_runs, ["a", name], runs)
    assert {*everything(runs)} - {str(runs / "a" / ".lock")} == {*before}


def test_a_run_that_is_being_searched_is_not_removed(runs):
    before = names(runs)
    with RunStore.open(runs / "b").locked():
        message = one_line_refusal(remove_runs, ["a", "b"], runs)
    assert "remove=b" in message and "being searched" in message
    assert names(runs) == before


def test_a_link_to_a_run_is_no_run(runs, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write_run(elsewhere, "far", A)
    (runs / "far").symlink_to(elsewhere / "far")
    assert "is a link" in one_line_refusal(remove_runs, ["far"], runs)
    assert (elsewhere / "far" / "events.jsonl").is_file()
    assert "far" not in list_runs(runs)["run"].tolist()


# --- the command


def test_the_command_lists_in_full_width_where_it_is_piped(runs):
    long = "a-run-with-a-rather-long-name-" * 3
    write_run(runs, long, A)
    command = [sys.executable, "-m", "analysis.runs", f"runs_dir={runs}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("│")]
    assert [line.split("│")[1].strip() for line in lines] == ["a", long, "b"]
    assert "ended: budget" in lines[0] and "0.7500" in lines[0]
    assert "comparable among these only" in done.stdout
    assert done.stderr == ""


def test_the_command_removes_names_that_look_like_numbers(runs, capsys):
    for name in ("007", "7", "1e3", "none"):
        write_run(runs, name, A)
    assert main([f"runs_dir={runs}", "remove=[007, 1e3,none]"]) == 0
    assert names(runs) == [".latency", "7", "a", "b", "latest", "notes"]
    assert capsys.readouterr().out.count("removed ") == 3
    assert main([f"runs_dir={runs}", "remove=7"]) == 0
    assert "7" not in names(runs)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["remove=[nowhere]"], "remove=nowhere"),
        (["remove=[]"], "remove is empty"),
        (["rmove=[a]"], "did you mean remove?"),
        (["a"], "'a' is not allowed; allowed: key=value"),
        (["runs_dir=/nowhere"], "runs_dir=/nowhere is not a folder"),
        (["remove=[a]", "runs_dir=/nowhere"], "remove=a"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(runs, capsys, words, part):
    before = everything(runs)
    assert main([f"runs_dir={runs}", *words]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1
    assert shown.err.startswith("analysis.runs: ") and part in shown.err
    assert everything(runs) == before


def test_help_shows_an_example_and_every_key(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "python -m analysis.runs" in shown and "runs_dir" in shown and "remove" in shown

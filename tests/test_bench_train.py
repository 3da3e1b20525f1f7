"""The benchmark of training: its ratios, its file, and what it refuses."""

import contextlib
import multiprocessing
import subprocess
import sys
import threading

import pandas as pd
import pytest

from analysis import bench_train
from analysis.bench_train import CONTESTANTS, Row, report

pytestmark = pytest.mark.usefixtures("one_thread")
SMALLEST = ["networks=[tiny]", "side=8", "batch_size=4", "steps=1", "rounds=1", "workers=0", "concurrent=[1]"]


class Thread:
    """Instead of a process with a pipe to it, which has to import everything anew."""

    def __init__(self, target, *args):
        self.pipe, theirs = multiprocessing.Pipe()

        def act():
            with contextlib.suppress(EOFError):
                target(*args, theirs)

        self._thread = threading.Thread(target=act, daemon=True)
        self._thread.start()

    def end(self):
        self.pipe.close()  # it waits for a word
        self.join()

    def join(self):
        self._thread.join()


def rows_of(network, rates, concurrent=1):
    return [Row(network, name, concurrent, i, rate) for name, found in rates.items() for i, rate in enumerate(found)]


def test_ratios_are_medians_of_the_rounds_ratios():
    # The ratio of the medians would be 2 (of bare) and 0.8 (of the tutorial).
    rows = rows_of("a", {"ours": [1, 8, 9], "bare": [4, 2, 9], "tutorial": [10, 2, 90]})
    assert report(rows) == [
        "a: images/s ours 8, tutorial 10, bare 4",
        "    ours / bare: 1.00  (0.25 to 4.00)",
        "    ours / tutorial: 0.10  (0.10 to 4.00)",
    ]


def test_networks_and_trainings_at_a_time_are_kept_apart():
    first = rows_of("a", {"ours": [2000.0], "bare": [4000.0], "tutorial": [1000.0]})
    second = rows_of("b", {"ours": [3.0], "bare": [3.0], "tutorial": [1.0]})
    beside = rows_of("a", {"ours": [7.0]}, concurrent=2)
    lines = report([*first, *beside, *second])
    assert lines == [*report(first), *report(second)]
    assert lines[0] == "a: images/s ours 2,000, tutorial 1,000, bare 4,000"
    assert lines[1].split()[3] == "0.50" and lines[5].split()[3] == "3.00"


def check(out, printed):
    written = pd.read_csv(out)
    assert list(written.columns) == ["network", "contestant", "concurrent", "round", "images_per_s"]
    assert written.contestant.tolist() == [*CONTESTANTS, "together"]
    assert (written.network == "tiny").all() and (written.images_per_s > 0).all()
    ours, _, bare, _ = written.images_per_s
    lines = printed.splitlines()
    assert [line.split(":")[0].strip() for line in lines] == [
        "tiny",
        "ours / bare",
        "ours / tutorial",
        "tiny, 1 at a time",
    ]
    assert float(lines[1].split()[3]) == pytest.approx(ours / bare, abs=0.0051)
    assert "1.00 of the first" in lines[3]


def test_the_smallest_benchmark_prints_ratios_and_writes_a_row_a_round(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench_train, "Started", Thread)
    monkeypatch.setattr(sys, "argv", ["bench_train", *SMALLEST, "device=cpu", f"out={tmp_path / 'train.csv'}"])
    assert bench_train.main() == 0
    check(tmp_path / "train.csv", capsys.readouterr().out)


@pytest.mark.slow
def test_the_smallest_benchmark_in_processes(tmp_path):
    command = [sys.executable, "-m", "analysis.bench_train", *SMALLEST, f"out={tmp_path / 'train.csv'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    check(tmp_path / "train.csv", done.stdout)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["network=[tiny]"], "network"),
        (["steps=many"], "steps"),
        (["networks=[tinny]"], "tinny"),
        (["networks=[zoo/resnet2]"], "resnet2"),
        (["nonsense"], "nonsense"),
        (["out=absent/train.csv"], "out=absent/train.csv is not allowed; allowed: a new file, in a folder"),
        (["out=."], "out=. is not allowed"),
    ],
)
def test_bad_input_gets_one_line(tmp_path, monkeypatch, capsys, words, part):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench_train, "Started", None)
    monkeypatch.setattr(sys, "argv", ["bench_train", *SMALLEST, "device=cpu", *words])
    assert bench_train.main() == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("analysis.bench_train: ") and err.count("\n") == 1
    assert part in err
    assert not list(tmp_path.iterdir())


def test_a_file_that_exists_is_kept(tmp_path, monkeypatch, capsys):
    (tmp_path / "train.csv").write_text("mine")
    monkeypatch.setattr(sys, "argv", ["bench_train", *SMALLEST, "device=cpu", f"out={tmp_path / 'train.csv'}"])
    assert bench_train.main() == 2
    assert "exists" in capsys.readouterr().err
    assert (tmp_path / "train.csv").read_text() == "mine"

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas import search
from nas.config import SearchConfig
from nas.config_fields import leaves

INLINE = ["space=tiny", "budget=2", "train.epochs=1", "trials.executor=inline"]


def write_npz(file: Path, classes: int = 2) -> Path:
    rng = np.random.default_rng(0)
    np.savez(file, x=rng.integers(0, 256, (40, 8, 8)).astype(np.uint8), y=np.arange(40) % classes)
    return file


def refused(words, capsys, runs: Path) -> str:
    """The one line with which bad input is refused; nothing is left in the runs folder."""
    assert search.main([*words, f"runs_dir={runs}"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("\n") and err.count("\n") == 1, err
    assert not runs.exists() or not any(runs.iterdir())
    return err


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("budjet=3", ["budjet", "budget"]),
        ("train.epoch=3", ["train.epoch", "train.epochs"]),
        ("budget=0", ["budget=0", "1 to"]),
        ("budget=many", ["budget=many", "int"]),
        ("space=moble", ["moble", "mobile"]),
        ("space=/nowhere/x.yaml", ["/nowhere/x.yaml"]),
        ("data=digit", ["digit", "digits"]),
        ("data=/nowhere/", ["/nowhere/"]),
        ("data=/nowhere/x.npz", ["/nowhere/x.npz"]),
        ("sampler=best", ["best", "tpe"]),
        ("scheduler=best", ["best", "full"]),
        ("objectives=[error]", ["objectives", "two or more"]),
        ("objectives=[error,speed]", ["speed", "latency_ms"]),
        ("objectives=[error,energy]", ["energy", "latency_ms", "peak_memory_mb"]),
        ("constraints.peak_memory_mb=0.0001", ["peak_memory_mb", "tiny"]),
        ("constraints.peak_memory_mb=0", ["constraints.peak_memory_mb=0", "above 0"]),
        ("objectives=[error,error]", ["objectives"]),
        ("latency.backend=gpu", ["gpu", "torch"]),
        ("time_budget=soon", ["time_budget=soon", "2h"]),
        ("trials.timeout=-1s", ["trials.timeout=-1s"]),
        ("run=a/b", ["run=a/b"]),
        ("run=latest", ["latest"]),
        ("resume=true", ["run=NAME"]),
        ("config=/nowhere.yaml", ["/nowhere.yaml"]),
        ("constraints.params=10", ["constraints.params=10", "tiny"]),
        ("constraints.latency_ms=0.000001", ["constraints.latency_ms", "tiny"]),
        ("device", ["device", "key=value"]),
    ],
)
def test_bad_input_gets_one_line_and_leaves_nothing(word, parts, tmp_path, capsys):
    err = refused([*INLINE, word], capsys, tmp_path / "runs")
    for part in parts:
        assert part in err


def test_bad_data_gets_one_line_and_leaves_nothing(tmp_path, capsys):
    one_class = write_npz(tmp_path / "one.npz", classes=1)
    assert "one class" in refused([*INLINE, f"data={one_class}"], capsys, tmp_path / "runs")
    for name in "ab":
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(6):
            Image.new("L", (8, 8), color=i).save(tmp_path / "images" / name / f"{i}.png")
    broken = tmp_path / "images" / "b" / "3.png"
    broken.write_bytes(broken.read_bytes()[:30])
    assert str(broken) in refused([*INLINE, f"data={tmp_path / 'images'}"], capsys, tmp_path / "runs")


def test_a_bad_space_file_is_named_with_the_place_in_it(tmp_path, capsys):
    file = tmp_path / "own.yaml"
    file.write_text(
        "stages:\n  - {block: basic, out_channels: 8, kernel_size: [3, 4]}\nhead:\n  - {block: classifier}\n"
    )
    err = refused([*INLINE[1:], f"space={file}"], capsys, tmp_path / "runs")
    for part in (str(file), "stages[0].kernel_size", "4", "odd"):
        assert part in err


def test_an_existing_run_is_refused_and_kept(tmp_path, capsys):
    words = [*INLINE, f"runs_dir={tmp_path}", "run=mine"]
    assert search.main(words) == 0
    before = sorted((file, file.stat().st_mtime_ns) for file in tmp_path.rglob("*") if file.is_file())
    capsys.readouterr()
    assert search.main(words) == 2
    assert "mine" in capsys.readouterr().err
    assert before == sorted((file, file.stat().st_mtime_ns) for file in tmp_path.rglob("*") if file.is_file())


def test_the_end_shows_the_front_the_run_and_the_next_command(tmp_path, capsys):
    assert search.main([*INLINE, f"runs_dir={tmp_path}", "run=mine"]) == 0
    out = capsys.readouterr().out
    assert "Pareto front of mine" in out
    assert str(tmp_path / "mine") in out
    command = next(line for line in out.splitlines() if line.startswith("Next: "))
    assert search.main(command.split()[4:]) == 0
    assert "the budget is used up" in capsys.readouterr().out


def test_help_lists_every_key(capsys):
    assert search.main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for key, (each, _) in leaves(SearchConfig()).items():
        (line,) = [line for line in lines if line.split(" ")[0] == key]
        assert each.metadata["meaning"] in line


def test_help_and_mistyped_keys_do_not_wait_for_torch():
    for word in ("--help", "budjet=3"):
        code = f"import sys; from nas import search; search.main([{word!r}]); sys.exit('torch' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("executor", ["inline", pytest.param("ray", marks=pytest.mark.slow)])
def test_ctrl_c_keeps_and_reports_what_was_judged(tmp_path, executor):
    words = ["space=tiny", "budget=15", "train.epochs=30", f"trials.executor={executor}", "ray.dashboard=false"]
    command = [sys.executable, "-m", "nas.search", *words, f"runs_dir={tmp_path}", "run=cut"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    events = tmp_path / "cut" / "events.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (events.exists() and events.read_text().count('"ended"') >= 2):
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "interrupted" in out and "Pareto front of cut" in out
    judged = events.read_text().count('"ended"')
    assert 2 <= judged < 15
    assert (tmp_path / "cut" / "pareto.csv").exists()
    assert "Traceback" not in err


@pytest.mark.parametrize("runs_dir", ["/proc/nowhere", "/dev/null/x", "/" + "x" * 300])
def test_a_runs_dir_that_cannot_be_is_refused(runs_dir, capsys):
    assert search.main([*INLINE, f"runs_dir={runs_dir}"]) == 2
    assert "runs_dir=" in capsys.readouterr().err


def test_a_cluster_that_does_not_answer_is_refused(tmp_path, capsys):
    words = [*INLINE[:-1], "trials.executor=ray", "ray.address=127.0.0.1:9", f"runs_dir={tmp_path / 'runs'}"]
    assert search.main(words) == 2
    err = capsys.readouterr().err
    assert "ray.address=127.0.0.1:9" in err and err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_run_has_one_driver(tmp_path, capsys):
    from nas.store import RunStore

    words = [*INLINE, f"runs_dir={tmp_path}", "run=mine"]
    assert search.main(words) == 0
    with RunStore.open(tmp_path / "mine").locked():
        assert search.main([*words, "resume=true", "budget=4"]) == 2
    assert "another process" in capsys.readouterr().err


def test_a_narrow_constraint_is_not_called_impossible(tmp_path, capsys):
    file = tmp_path / "own.yaml"
    wide = "{block: conv, out_channels: {from: 8, to: 256, step: 8}}"
    last = "{block: conv, out_channels: 256, groups: [1, 64]}"
    file.write_text(f"stages: [{', '.join([wide] * 4)}, {{block: conv, out_channels: 64}}, {last}]\n")
    with file.open("a") as more:
        more.write("head: [{block: classifier}]\n")
    words = [*INLINE[1:], f"space={file}", "constraints.params=20000", f"runs_dir={tmp_path / 'runs'}"]
    assert search.main([*words, "time_budget=5s"]) == 0, capsys.readouterr().err

"""What a run is worth after all that can go wrong around it: nothing judged is lost, nothing false is recorded."""

import errno
import json
import multiprocessing
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
import torch
from ray import cloudpickle

import nas
from nas import pipeline, search
from nas.command_line import Failed
from nas.pipeline import Known
from nas.results import Run, front_of, make_constraints
from nas.store import RunStore
from nas.trial import TrialState, unfinished
from nas.tune.judging import Assignment, trained
from nas.tune.searcher import UNFIT
from nas.tune.trainable import ArchitectureTrainable
from tests.processes import children, lives, wait_for
from tests.searching import SMALL, events_of, journal_of, quick_latency, small_search
from tests.stripes import TINY, stripe_data, stripe_job

KILLS = 20
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NO_GPU])]
# Through Ray what a driver does takes minutes: Ray is started and ended each time.
EXECUTORS = ["inline", pytest.param("ray", marks=pytest.mark.slow)]


def check_whole(path: Path, budget: int) -> None:
    """Holds that a run has `budget` trials, each with its one state, and the front that they make."""
    store, run = RunStore.open(path), Run(path)
    events, records, config = store.events(), store.records(), store.config()
    assert sorted(record.trial for record in records) == list(range(budget))
    assert {record.state for record in records} <= {TrialState.COMPLETED, TrialState.STOPPED}
    completed = [record.trial for record in records if record.state is TrialState.COMPLETED]
    for kind in ("proposed", "ended"):
        assert set(Counter(e["trial"] for e in events_of(run) if e["event"] == kind).values()) == {1}
    assert not unfinished(events)
    assert run.trials["arch_id"].is_unique
    front = front_of(records, config.objectives, make_constraints(config.constraints))
    assert sorted(run.front["trial"]) == sorted(record.trial for record in front)
    for record in front:
        assert (path / "models" / str(record.trial) / "metrics.json").exists()
        assert record.test_accuracy is not None
    assert all(store.weights_file(trial).exists() for trial in completed)
    assert not [file for file in path.rglob("*.tmp") if "ray" not in file.parts]
    told = Counter(trial.state.name for trial in journal_of(run).trials)
    assert told == {"COMPLETE": len(completed)} | (
        {"PRUNED": budget - len(completed)} if len(completed) < budget else {}
    )


def search_on(runs_dir: Path, settings: dict[str, object]) -> None:
    """A session of a search in a process of its own, as far as it gets."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    small_search(runs_dir, run="killed", resume=(runs_dir / "killed").exists(), **settings)


@pytest.mark.parametrize("scheduler", ["full", pytest.param("mo_asha", marks=pytest.mark.slow)])
def test_a_driver_that_is_killed_again_and_again_ends_with_a_whole_run(tmp_path, scheduler):
    draw, budget = random.Random(scheduler), 10
    rungs = {"scheduler": "mo_asha", "mo_asha.rungs": 2} if scheduler == "mo_asha" else {}
    settings = {"budget": budget, "train.epochs": 8, "objectives": ["error", "macs"], **rungs}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.test_faults", "nas.tune.run"])
    path, seen = tmp_path / "killed", []
    for _ in range(KILLS if scheduler == "full" else 5):
        process = context.Process(target=search_on, args=(tmp_path, settings))
        process.start()
        process.join(draw.uniform(0.1, 1.6))
        process.kill()
        process.join()
        before = seen
        seen = RunStore.open(path).events() if (path / "events.jsonl").exists() else []
        assert seen[: len(before)] == before
    search_on(tmp_path, settings)
    check_whole(path, budget)


def written(path: Path) -> int:
    """How much a run has written down."""
    events = path / "events.jsonl"
    return events.stat().st_size if events.exists() else 0


@pytest.mark.slow
def test_a_search_through_ray_whose_driver_is_killed_again_and_again_ends_with_a_whole_run(tmp_path):
    draw, budget, path = random.Random(8), 24, tmp_path / "killed"
    words = [f"{key}={value}" for key, value in {**SMALL, "train.epochs": 12, "budget": budget}.items()]
    words += ["trials.executor=ray", "ray.dashboard=false", "run=killed", f"runs_dir={tmp_path}", "merge=none"]
    command = [sys.executable, "-m", "nas.search", "space=reducenet", *words[1:]]
    started: set[int] = set()
    for _ in range(KILLS):
        before = written(path)
        process = subprocess.Popen([*command, f"resume={path.exists()}"], stdout=subprocess.DEVNULL)
        if draw.random() < 0.8:  # the others are killed while Ray starts
            wait_for(lambda before=before: written(path) > before)
        time.sleep(draw.uniform(0, 6))
        started |= children(process.pid)
        process.kill()
        process.wait()
    assert subprocess.run([*command, f"resume={path.exists()}"], stdout=subprocess.DEVNULL).returncode == 0
    check_whole(path, budget)
    wait_for(lambda: not any(map(lives, started)))  # Ray's agents look for their dead head for a minute or more


def test_a_run_goes_on_beside_files_of_others_and_where_an_empty_folder_was_left_out(tmp_path):
    run = small_search(tmp_path, run="copied", budget=1)
    (run.path / "models" / ".DS_Store").touch()
    for file in (run.path / "weights").iterdir():
        file.unlink()
    (run.path / "weights").rmdir()
    with pytest.raises(ValueError, match="weights"):  # those of the front are missed, and said to be
        small_search(tmp_path, run="copied", budget=2, resume=True)
    assert {record.state for record in RunStore.open(run.path).records()} == {TrialState.COMPLETED}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (("ended", "priced"), "trial 1 is at a rung without params"),
        (("ended",), None),
    ],
)
def test_a_trial_whose_lines_are_lost_goes_on_or_is_named(tmp_path, damage, message):
    run = small_search(tmp_path, run="cut", budget=2, objectives=["error", "params"])
    lines = [each for each in events_of(run) if each["trial"] != 1 or each["event"] not in damage]
    (run.path / "events.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    with pytest.raises(ValueError, match=message) if message else nullcontext():
        small_search(tmp_path, run="cut", budget=2, resume=True, objectives=["error", "params"])
    if not message:
        check_whole(run.path, 2)


def test_a_file_of_settings_is_held_against_those_of_the_run(tmp_path):
    small_search(tmp_path, run="first", budget=1)
    other = tmp_path / "other.yaml"
    other.write_text("train: {epochs: 7}\nbudget: 2\n")
    asked = {"runs_dir": str(tmp_path), "run": "first", "resume": True, "config": str(other)}
    with pytest.raises(ValueError, match=r"^train\.epochs=7 is not allowed: run=first was searched with train"):
        nas.run_search(verbose=False, **asked)
    other.write_text("budget: 2\n")
    assert len(nas.run_search(verbose=False, **asked).trials) == 2


@pytest.mark.parametrize(("error", "blamed"), [(RuntimeError("no such module"), False), (MemoryError(), True)])
def test_a_worker_that_cannot_begin_says_so_and_blames_no_trial(tmp_path, monkeypatch, error, blamed):
    def fails(*_):
        raise error

    monkeypatch.setattr("nas.tune.trainable.make_worker", fails)
    assignment = Assignment(3, TINY.to_dict(), TINY.arch_id, Known(), (1,))
    worker = ArchitectureTrainable.__new__(ArchitectureTrainable)
    job = stripe_job(stripe_data(32))
    with pytest.raises(MemoryError) if blamed else nullcontext():  # a new process tries again
        worker.setup({"assignments": (assignment,)}, trained, job, str(tmp_path), "mark", 1, 0, None, [], [])
    assert repr(worker) == f"worker since trial3_{TINY.arch_id}"
    if not blamed:
        assert worker.step()[UNFIT].endswith("cannot judge any network: no such module")
        assert worker.reset_config({"assignments": (assignment,)}) and UNFIT in worker.step()
    worker.cleanup()


def begun(words: list[str], runs_dir: Path) -> subprocess.Popen[str]:
    """The command of a search, once two of its trials have ended."""
    command = [sys.executable, "-m", "nas.search", "run=cut", f"runs_dir={runs_dir}", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    events = runs_dir / "cut" / "events.jsonl"
    wait_for(lambda: events.exists() and events.read_text().count('"ended"') >= 2)
    return process


@pytest.mark.parametrize("executor", EXECUTORS)
def test_sigterm_ends_a_search_at_once_and_leaves_it_resumable(cluster, tmp_path, executor):
    settings = {**SMALL, "trials.executor": executor, "train.epochs": 40, "budget": 15}
    words = [*(f"{key}={value}" for key, value in settings.items()), "ray.dashboard=false"]
    process = begun(words, tmp_path)
    process.terminate()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 143 and err == "nas.search: terminated\n"
    assert "run=cut resume=true goes on" in out
    store = RunStore.open(tmp_path / "cut")
    records = store.records()
    assert 2 <= len(records) < 15 and {record.state for record in records} == {TrialState.COMPLETED}
    assert store.end_reason() is None and not (store.path / "models").exists()
    budget = len(records) + 1
    small_search(tmp_path, run="cut", resume=True, **{**settings, "budget": budget})
    check_whole(store.path, budget)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 200 kB, and what makes it larger."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    grow = partial(subprocess.run, ["mount", "-o", "remount,size=100m", disk], check=True)
    yield disk, grow
    subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_full_disk_stops_a_search_which_goes_on_when_there_is_room(cluster, small_disk, executor, capsys):
    disk, grow = small_disk
    words = ["space=tiny", "budget=12", "train.epochs=2", "run=full", f"runs_dir={disk}", "latency.tolerance=1"]
    words += [f"trials.executor={executor}", "ray.dashboard=false"]
    with quick_latency(disk / "lane"):
        assert search.main(words) == 1
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and "No space left on device" in err and "run=full resume=true goes on" in err
        states = {record.state for record in RunStore.open(disk / "full").records()}
        assert states <= {TrialState.COMPLETED}  # no trial is blamed
        assert search.main([*words, "resume=true"]) == 1
        assert capsys.readouterr().err.count("\n") == 1
        grow()
        assert search.main([*words, "resume=true"]) == 0
    check_whole(disk / "full", 12)


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("scheduler", ["full", "mo_asha"])
def test_a_trial_of_which_only_the_end_is_missing_is_trained_again(cluster, tmp_path, executor, scheduler):
    settings = {"trials.executor": executor, "scheduler": scheduler, "train.epochs": 3, "trials.concurrent": 1}
    run = small_search(tmp_path, run="cut", **settings)
    lines = (run.path / "events.jsonl").read_text().splitlines(keepends=True)
    completed = [at for at, line in enumerate(lines) if '"completed"' in line]
    (run.path / "events.jsonl").write_text("".join(lines[: completed[-1]]))
    small_search(tmp_path, run="cut", resume=True, **settings)
    check_whole(run.path, 4)


@pytest.mark.parametrize("written", [0, 7])
def test_an_event_that_does_not_fit_ends_the_search_and_is_not_missed(tmp_path, monkeypatch, written):
    appended, count = RunStore.append, iter(range(100))

    def full(self, *events):
        if next(count) < 20:
            return appended(self, *events)
        with (self.path / "events.jsonl").open("a") as log:
            log.write('{"event"'[:written])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RunStore, "append", full)
    with pytest.raises(Failed, match=r"cannot be written: No space left on device\. What was judged is kept"):
        small_search(tmp_path, run="full", budget=9)
    monkeypatch.undo()
    small_search(tmp_path, run="full", budget=9, resume=True)
    check_whole(tmp_path / "full", 9)


def too_large(process: Path, times: int, device: str) -> Callable[..., None]:
    """Asks for more memory than a device has in the training of trial 1, `times` times; notes who trains what."""

    def keep(trial: int) -> None:
        with process.open("a") as log:
            log.write(f"{trial} {os.getpid()}\n")
        tried = process.read_text().split("\n")
        if trial == 1 and sum(line.startswith("1 ") for line in tried) <= times:
            torch.empty(10**15, device=device)

    return keep


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("times", [1, 2])
def test_a_trial_without_memory_is_tried_once_more_in_a_new_process(cluster, tmp_path, monkeypatch, times, device):
    from nas.tune import ray_executor

    note = too_large(tmp_path / "processes", times, device)

    def judge(assignment, worker):
        note(assignment.trial)
        yield from trained(assignment, worker)

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(ray_executor, "run_with_ray", partial(ray_executor.run_with_ray, judge=judge))
    one = {"trials.executor": "ray", "trials.concurrent": 1, "device": device}
    run = small_search(tmp_path / "runs", run="a", budget=4, **one)
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    where = [line.split() for line in (tmp_path / "processes").read_text().splitlines()]
    trials, processes = [int(trial) for trial, _ in where], [process for _, process in where]
    assert trials[:3] == [0, 1, 1] and processes[1] != processes[2]
    failed = run.trials[run.trials["state"] == "failed"]
    assert failed["trial"].tolist() == ([] if times == 1 else [1])
    assert failed["reason"].str.contains("memory").all()
    assert (run.trials["state"] == "completed").sum() == (4 if times == 1 else 3)


@pytest.mark.parametrize("device", DEVICES)
def test_without_ray_a_trial_without_memory_fails_and_the_next_one_is_judged(tmp_path, monkeypatch, device):
    note, build = too_large(tmp_path / "processes", 1, device), pipeline.fuse
    trial = iter(range(9))

    def fuse(network):
        note(next(trial))
        return build(network)

    monkeypatch.setattr(pipeline, "fuse", fuse)
    run = small_search(tmp_path, budget=4, device=device)
    assert run.trials["state"].tolist() == ["completed", "failed", "completed", "completed"]
    assert run.trials["reason"][1].startswith("out of memory: ")


def test_a_clock_that_is_set_back_costs_nothing(tmp_path, monkeypatch):
    now, before = time.time, iter(range(1000))
    monkeypatch.setattr("nas.store.time.time", lambda: now() - (86_400 if next(before) > 12 else 0))
    run = small_search(tmp_path, budget=6, time_budget="10m")
    monkeypatch.undo()
    assert run.reason == "budget"
    times = [event["time"] for event in events_of(run)]
    assert min(times) < times[0] - 80_000
    ends = list(RunStore.open(run.path).end_times().values())
    assert ends == sorted(ends) and ends[0] > 0 and ends[-1] < 600

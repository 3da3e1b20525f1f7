"""The quiet lane between real processes; nothing here depends on how fast the machine is."""

import contextlib
import fcntl
import multiprocessing
import os
import signal
import time

import pytest

from nas.latency import lane as lanes
from nas.latency.lane import Lane
from tests.lanes import PATIENCE_S, enter_and_leave, in_time, is_free, lockable

SPAWN = multiprocessing.get_context("spawn")


def note(log, kind, begin):
    with log.open("a") as file:
        file.write(f"{kind} {begin} {time.monotonic()}\n")


def work_until(folder, log, stop):
    lanes.CHUNK_S = lanes.LONGEST_CHUNK_S = 0.01
    lane = Lane("cpu", folder=folder)
    with lane.working():
        while not stop.is_set():
            begin = time.monotonic()
            time.sleep(0.002)
            note(log, f"work-{os.getpid()}", begin)
            lane.breathe()


def measure_until(folder, log, stop):
    lane = Lane(folder=folder)
    while not stop.is_set():
        with lane.measuring("cpu"):
            begin = time.monotonic()
            time.sleep(0.005)
            note(log, f"measure-{os.getpid()}", begin)


def hold(folder, how, ready):
    """Takes the lane and keeps it until it is killed."""
    lane = Lane("cpu", folder=folder)
    with lane.working() if how == "work" else lane.measuring("cpu"):
        ready.set()
        time.sleep(PATIENCE_S)


@contextlib.contextmanager
def process(target, *args):
    started = SPAWN.Process(target=target, args=args, daemon=True)
    started.start()
    try:
        yield started
    finally:
        if started.is_alive():
            os.kill(started.pid, signal.SIGKILL)
        started.join(PATIENCE_S)


def intervals(log):
    lines = (line.split() for line in log.read_text().splitlines()) if log.exists() else ()
    return sorted((float(begin), float(end), kind) for kind, begin, end in lines)


def test_no_work_overlaps_a_measurement_and_nobody_starves(tmp_path):
    log, stop = tmp_path / "log", SPAWN.Event()

    def counts():
        kinds = [kind for *_, kind in intervals(log)]
        return [kinds.count(kind) for kind in set(kinds)]

    with contextlib.ExitStack() as stack:
        args = tmp_path / "lane", log, stop
        started = [stack.enter_context(process(each, *args)) for each in [work_until] * 2 + [measure_until] * 2]
        in_time(lambda: len(counts()) == 4 and min(counts()) >= 8)
        stop.set()
        for each in started:
            each.join(PATIENCE_S)
        assert [each.exitcode for each in started] == [0] * 4
    latest = {"work": 0.0, "measure": 0.0}
    for begin, end, kind in intervals(log):
        alone = kind.startswith("measure")
        assert begin >= latest["measure"] and (not alone or begin >= latest["work"])
        name = "measure" if alone else "work"
        latest[name] = max(latest[name], end)
    assert is_free(tmp_path / "lane")


@pytest.mark.parametrize("how", ["work", "measure"])
def test_who_is_killed_leaves_the_lane_free(tmp_path, how):
    ready = SPAWN.Event()
    with process(hold, tmp_path, how, ready) as held:
        assert ready.wait(PATIENCE_S)
        assert not is_free(tmp_path)
        os.kill(held.pid, signal.SIGKILL)
        enter_and_leave(tmp_path)


def test_who_is_killed_while_it_waits_leaves_the_lane_free(tmp_path):
    ready = SPAWN.Event()
    with Lane("cpu", folder=tmp_path).working(), process(hold, tmp_path, "measure", ready) as waiting:
        turnstile = tmp_path / "cpu.turnstile"
        in_time(lambda: not lockable(turnstile, fcntl.LOCK_SH))  # it has the turnstile and waits for the room
        assert not ready.is_set()
        os.kill(waiting.pid, signal.SIGKILL)
        waiting.join(PATIENCE_S)
        assert lockable(turnstile, fcntl.LOCK_EX)
    enter_and_leave(tmp_path)


def test_a_child_that_was_forked_meanwhile_does_not_keep_the_lane(tmp_path):
    end, begin = os.pipe()
    with Lane("cpu", folder=tmp_path).working():
        child = os.fork()
        if not child:
            os.close(begin)
            os.read(end, 1)
            os._exit(0)
    try:
        assert is_free(tmp_path)
    finally:
        os.close(begin)
        os.waitpid(child, 0)

"""The quiet lane within a process: each `Lane` has locks of its own, as another process would have."""

import contextlib
import fcntl
import os
import shutil
import stat
import threading

import pytest

from nas.latency import lane as lanes
from nas.latency.lane import Lane
from tests.lanes import PATIENCE_S, enter_and_leave, in_time, is_free, lockable, thread


def test_several_workers_are_in_the_room_together(tmp_path):
    first, second = (Lane("cpu", folder=tmp_path) for _ in range(2))
    with first.working(), second.working():
        assert not is_free(tmp_path)
    assert is_free(tmp_path)


def test_a_measurement_waits_for_the_last_worker_and_keeps_new_ones_out(tmp_path):
    story = []

    def measure():
        with Lane(folder=tmp_path).measuring("cpu"):
            story.append("measured")

    def work():
        with Lane("cpu", folder=tmp_path).working():
            story.append("worked")

    first = Lane("cpu", folder=tmp_path).working()
    first.__enter__()
    with thread(measure):
        in_time(lambda: not lockable(tmp_path / "cpu.turnstile", fcntl.LOCK_SH))
        with thread(work):
            story.append("first")
            first.__exit__(None, None, None)
    assert story == ["first", "measured", "worked"]


def test_who_measures_within_its_own_work_lets_go_and_comes_back(tmp_path):
    lane, other = (Lane("cpu", folder=tmp_path) for _ in range(2))
    with lane.working():
        with lane.measuring("cpu"):
            assert not lockable(tmp_path / "cpu.room", fcntl.LOCK_SH)
        assert lockable(tmp_path / "cpu.room", fcntl.LOCK_SH)
        assert not lockable(tmp_path / "cpu.room", fcntl.LOCK_EX)
        with other.working():
            pass
    assert is_free(tmp_path)


@pytest.fixture
def awaited(monkeypatch):
    """Somebody is always at the turnstile."""
    monkeypatch.setattr(Lane, "_is_awaited", lambda self: True)


def test_the_lane_is_kept_where_nobody_waits_and_let_go_where_somebody_does(tmp_path, monkeypatch):
    now, settled = [100.0], []
    monkeypatch.setattr(lanes.time, "monotonic", lambda: now[0])
    lane = Lane("cpu", folder=tmp_path)
    with lane.working(lambda: settled.append(None)):
        now[0] += 2 * lanes.LONGEST_CHUNK_S
        lane.breathe()
        assert settled == []
        now[0] += 2 * lanes.LONGEST_CHUNK_S
        with (tmp_path / "cpu.turnstile").open() as waiting:
            fcntl.flock(waiting, fcntl.LOCK_EX)
            release = threading.Timer(0.2, lambda: fcntl.flock(waiting, fcntl.LOCK_UN))
            release.start()
            lane.breathe()
            release.join()
        assert len(settled) == 1
        assert not is_free(tmp_path)


def test_the_lane_is_let_go_once_a_chunk_is_over_and_no_sooner(tmp_path, monkeypatch, awaited):
    now, settled = [100.0], []
    monkeypatch.setattr(lanes.time, "monotonic", lambda: now[0])
    lane = Lane("cpu", folder=tmp_path)
    lane.breathe()  # no work, nothing to let go
    with lane.working(lambda: settled.append(is_free(tmp_path))):
        for step_s in (0.0, 0.5, 0.4, 0.2, 0.7, 0.4, 0.0):
            now[0] += step_s * lanes.CHUNK_S
            lane.breathe()
        assert len(settled) == 2
    assert settled == [False] * 3  # each time before it was let go
    assert is_free(tmp_path)


@pytest.mark.parametrize(("waited_s", "chunk_s"), [(0.0, lanes.CHUNK_S), (0.4, 0.4), (30.0, lanes.LONGEST_CHUNK_S)])
def test_after_a_wait_work_goes_on_as_long_as_it_waited(tmp_path, monkeypatch, awaited, waited_s, chunk_s):
    now, settled, locked = [100.0], [], fcntl.flock
    waits = iter([waited_s])

    def flock(file, operation):
        now[0] += next(waits, 0.0)
        return locked(file, operation)

    monkeypatch.setattr(lanes.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(lanes.fcntl, "flock", flock)
    lane = Lane("cpu", folder=tmp_path)
    with lane.working(lambda: settled.append(now[0])):
        for _ in range(2):
            assert settled == []
            now[0] += 0.6 * chunk_s
            lane.breathe()
        assert len(settled) == 1
    assert lane.waited_s == pytest.approx(waited_s)


def test_what_is_waited_for_measurements_counts(tmp_path, monkeypatch):
    now, asked, held = [100.0], threading.Event(), threading.Event()

    def clock():
        if threading.current_thread() is threading.main_thread():
            asked.set()
        return now[0]

    def measure():
        with Lane(folder=tmp_path).measuring("cpu"):
            held.set()
            asked.wait(PATIENCE_S)
            now[0] += 5

    lane = Lane("cpu", folder=tmp_path)
    monkeypatch.setattr(lanes, "time", type("Clock", (), {"monotonic": staticmethod(clock)}))
    with thread(measure):
        assert held.wait(PATIENCE_S)
        with lane.working():
            now[0] += 3  # its own
            lane.breathe()
    assert lane.waited_s == 5


def test_devices_have_lanes_of_their_own(tmp_path):
    with Lane(folder=tmp_path).measuring("cuda:0"):
        enter_and_leave(tmp_path, "cpu")
        with Lane("cpu", "cuda:1", folder=tmp_path).working():
            assert not is_free(tmp_path, "cpu")
    with Lane("cuda:0", "cpu", folder=tmp_path).working():
        assert not is_free(tmp_path, "cpu") and not is_free(tmp_path, "cuda-0")


# --- what goes wrong


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("how", ["working", "measuring", "measuring within", "settling"])
def test_an_error_inside_leaves_the_lane_free(tmp_path, error, how):
    def fail():
        raise error

    lane = Lane("cpu", "cuda:0", folder=tmp_path)
    with pytest.raises(error), contextlib.ExitStack() as stack:
        if how != "measuring":
            stack.enter_context(lane.working(fail if how == "settling" else None))
        if how.startswith("measuring"):
            stack.enter_context(lane.measuring("cpu"))
        fail()
    assert is_free(tmp_path) and is_free(tmp_path, "cuda-0")
    enter_and_leave(tmp_path)


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("how", ["working", "measuring", "breathing", "measuring within"])
def test_ctrl_c_while_waiting_leaves_the_lane_free(tmp_path, monkeypatch, how, number):
    lane, locked, waits = Lane("cpu", "cuda:0", folder=tmp_path), fcntl.flock, []

    def flock(file, operation):
        if operation != fcntl.LOCK_UN:
            waits.append(file)
            if len(waits) == number + 1:
                raise KeyboardInterrupt
        return locked(file, operation)

    def interrupt():
        monkeypatch.setattr(lanes.fcntl, "flock", flock)

    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        monkeypatch.setattr(lanes, "LONGEST_CHUNK_S", -1.0)  # every chunk is over
        if how in ("breathing", "measuring within"):
            stack.enter_context(lane.working())
        interrupt()
        if how == "breathing":
            lane.breathe()
        else:
            stack.enter_context(lane.working() if how == "working" else lane.measuring("cpu"))
    monkeypatch.undo()
    assert waits
    assert is_free(tmp_path) and is_free(tmp_path, "cuda-0")
    enter_and_leave(tmp_path)


def test_files_that_cannot_be_written_lock_as_well(tmp_path):
    folder = tmp_path / "lane"
    enter_and_leave(folder)
    for file in folder.iterdir():
        file.chmod(0o444)
    folder.chmod(0o555)
    try:
        enter_and_leave(folder)
        with Lane("cpu", folder=folder).working():
            assert not is_free(folder)
    finally:
        folder.chmod(0o755)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_another_user_takes_the_same_lane(monkeypatch):
    folder = lanes.Path(lanes.tempfile.mkdtemp())
    folder.chmod(0o755)
    try:
        own = folder / "lanes"
        monkeypatch.setattr(lanes, "FOLDER", own)
        with Lane("cpu").working():
            os.seteuid(65534)
            try:
                assert not lockable(own / "cpu.room", fcntl.LOCK_EX)
                with Lane("cpu").working(), Lane(folder=own).measuring("cuda:0"):  # a device that is new to the lane
                    assert (own / "cuda-0.room").stat().st_uid == 65534
            finally:
                os.seteuid(0)
        enter_and_leave(own, "cuda:0")
    finally:
        shutil.rmtree(folder)


def test_a_folder_that_is_everyones_is_open_to_everyone(tmp_path, monkeypatch):
    folder = tmp_path / "lanes"
    monkeypatch.setattr(lanes, "FOLDER", folder)
    with Lane("cpu").working():
        pass
    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777
    assert {file.name for file in folder.iterdir()} == {"cpu.room", "cpu.turnstile"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o666}


def test_a_folder_that_was_cleared_away_is_made_again(tmp_path):
    folder = tmp_path / "deep" / "lane"
    lane = Lane("cpu", folder=folder)
    with lane.working():
        shutil.rmtree(folder)
        with lane.measuring("cpu"):
            assert not is_free(folder)
    enter_and_leave(folder)

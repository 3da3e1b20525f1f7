"""The quiet lane: while a latency is measured on a device, everything else of ours on that device pauses.

Two files a device, locked by the operating system (`flock`), so there is no server, and the locks of a process that
is killed are free at once. Whoever works holds the *room* shared, for short chunks, and lets go in between; a
measurement takes it exclusively. Both pass the *turnstile* first: a measurement keeps it while it waits for the
room, so that no new chunk begins and it waits for the current ones alone; and workers queue there like measurements
do, so that neither side starves.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

CHUNK_S = 0.1  # how long work holds the lane before it lets waiting measurements pass
LONGEST_CHUNK_S = 1.0  # the same after it has waited: as long as that, so that work gets its half of a busy lane
# One for all processes of the machine, whatever folder each was given for its own temporary files.
FOLDER = (Path("/tmp") if Path("/tmp").is_dir() else Path(tempfile.gettempdir())) / "nas-lanes"


class Lane:
    """One process's place in the lanes of this machine's devices; not for several threads.

    Attributes:
        folder: where the lanes' files are.
        waited_s: seconds that this process has waited for others in its lanes so far.
    """

    def __init__(self, *devices: str, folder: Path | None = None) -> None:
        """A place for work on `devices`, named by `machine.lane_of`; `folder` is for lanes that are not everyone's."""
        self.folder = folder or FOLDER
        self._devices = sorted(set(devices))  # one order for all, so that nobody waits in a circle
        self._settle: Callable[[], object] = _nothing
        self._rooms: list[int] = []
        self._working = False
        self._since, self._chunk_s = 0.0, CHUNK_S
        self.waited_s = 0.0

    @contextlib.contextmanager
    def working(self, settle: Callable[[], object] | None = None) -> Iterator[None]:
        """Work that measurements wait for; `breathe` is to be called now and then.

        Args:
            settle: waits for work that was handed to the device, before the lane is let go.
        """
        assert not self._working, "work within work"
        self._settle = settle or _nothing
        try:
            self._enter()  # within, since Ctrl-C while it waits for one device must let go of the others
            self._working = True
            yield
        finally:
            self._working = False
            self._leave()

    def breathe(self) -> None:
        """Between two steps of work: once a chunk is over, lets measurements that wait go first.

        Where nobody waits the lane is kept: to let it go, one has to wait for the device.
        """
        if self._working and time.monotonic() - self._since > self._chunk_s:
            if self._is_awaited():
                self._leave()
                self._enter()
            else:
                self._since, self._chunk_s = time.monotonic(), CHUNK_S

    @contextlib.contextmanager
    def measuring(self, device: str) -> Iterator[None]:
        """A device for a measurement alone. Work of this process that is in a lane lets go meanwhile."""
        with self.resting(), contextlib.ExitStack() as locks:
            begin = time.monotonic()
            locks.enter_context(self._locked(f"{device}.turnstile", fcntl.LOCK_EX))
            locks.enter_context(self._locked(f"{device}.room", fcntl.LOCK_EX))
            self.waited_s += time.monotonic() - begin
            yield

    @contextlib.contextmanager
    def resting(self) -> Iterator[None]:
        """Work of this process that is in a lane lets go for a while."""
        if self._working:
            self._leave()
        try:
            yield
        finally:
            if self._working:
                self._enter()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Work of this process that is in a lane lets go while another machine measures for it."""
        begin = time.monotonic()
        try:
            with self.resting():
                yield
        finally:
            self.waited_s += time.monotonic() - begin

    def _is_awaited(self) -> bool:
        """Whether somebody is at the turnstile of one of the devices."""
        for device in self._devices:
            file = self._open(f"{device}.turnstile")
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            finally:
                _release(file)
        return False

    def _enter(self) -> None:
        begin = time.monotonic()
        for device in self._devices:
            with self._locked(f"{device}.turnstile", fcntl.LOCK_EX):
                self._rooms.append(self._take(f"{device}.room", fcntl.LOCK_SH))
        self._since = time.monotonic()
        waited_s = self._since - begin
        self.waited_s += waited_s
        self._chunk_s = min(max(CHUNK_S, waited_s), LONGEST_CHUNK_S)

    def _leave(self) -> None:
        rooms, self._rooms = self._rooms, []
        try:
            self._settle()
        finally:
            for room in rooms:
                _release(room)

    @contextlib.contextmanager
    def _locked(self, name: str, how: int) -> Iterator[None]:
        file = self._take(name, how)
        try:
            yield
        finally:
            _release(file)

    def _take(self, name: str, how: int) -> int:
        file = self._open(name)
        try:
            fcntl.flock(file, how)
        except BaseException:  # Ctrl-C while it waits
            os.close(file)
            raise
        return file

    def _open(self, name: str) -> int:
        """A file of the lane, whoever made it: locks need no right to write."""
        file = self.folder / name.replace(":", "-")
        try:
            return os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self.folder.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(PermissionError):
                self.folder.chmod(0o1777)  # every user of the machine takes the same lane
            made = os.open(file, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
            with contextlib.suppress(PermissionError):
                os.fchmod(made, 0o666)
            return made


def _release(file: int) -> None:
    fcntl.flock(file, fcntl.LOCK_UN)  # closing alone would leave the lock with children that were forked meanwhile
    os.close(file)


def _nothing() -> None:
    return None

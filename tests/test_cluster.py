"""A search on Ray nodes that stand for several machines: each sees neither the run's folder nor this package."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from nas.store import RunStore
from nas.trial import TrialState
from tests.documents import REPOSITORY
from tests.processes import children, wait_for
from tests.searching import SMALL
from tests.test_faults import check_whole

HIDE = 'for each in $HIDDEN; do mount -t tmpfs tmpfs "$each" || exit; done; cd / && exec "$@"'
APART = ["unshare", "--mount", "--propagation", "private"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        subprocess.run([*APART, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True).returncode != 0,
        reason="needs leave to hide folders from a process",
    ),
]


def free_port() -> int:
    """One that Ray gives to no worker: those are 10002 to 19999."""
    for port in range(25_000, 32_000):
        with contextlib.suppress(OSError), socket.socket() as tried:
            tried.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


class Cluster:
    """Nodes that `ray start` starts on this machine.

    Attributes:
        address: of the head.
        client: of its server for Ray Client.
        environment: of commands that use it.
    """

    def __init__(self, folder: Path, runs_dir: Path) -> None:
        self.nodes: list[int] = []
        self._folder, self._runs_dir = folder, runs_dir
        self.environment = {**os.environ, "HOME": str(folder), "RAY_AUTH_MODE": "token"}
        self.environment |= {"RAY_AUTH_TOKEN": "a" * 64, "MPLCONFIGDIR": str(folder)}
        port, client = free_port(), 0
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", port))
            client = free_port()
        self.address, self.client = f"127.0.0.1:{port}", f"ray://127.0.0.1:{client}"
        measures = ["--num-cpus=0", "--resources", '{"latency": 1}']
        self._start(
            ["--head", "--include-dashboard=false", f"--port={port}", f"--ray-client-server-port={client}", *measures],
            hidden="",
        )

    def add_worker(self) -> None:
        """Starts a node that has neither the run's folder nor this package, and waits until it is there."""
        self._start([f"--address={self.address}", "--num-cpus=1"], hidden=f"{self._runs_dir} {REPOSITORY}")

    def kill(self, node: int) -> None:
        """Has a node and all its processes die at once, as a machine does."""
        for process in {*children(self.nodes[node]), self.nodes[node]}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def _start(self, words: list[str], hidden: str) -> None:
        said = self._folder / f"node{len(self.nodes)}.txt"
        ray = ["ray", "start", "--block", f"--temp-dir={self._folder}", *words]
        environment = {name: value for name, value in self.environment.items() if name != "PYTHONPATH"}
        with said.open("w") as out:
            process = subprocess.Popen(
                [*APART, "bash", "-c", HIDE, "bash", *ray],
                env={**environment, "HIDDEN": hidden},
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self.nodes.append(process.pid)
        wait_for(lambda: "Ray runtime started" in said.read_text() or process.poll() is not None)
        assert process.poll() is None, said.read_text()


@pytest.fixture
def cluster(tmp_path):
    """A head that measures and trains nothing, and two nodes that train."""
    runs_dir = tmp_path / "runs"
    runs_dir.mkdir()
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # sockets in it must have short names
    made = Cluster(folder, runs_dir)
    try:
        made.add_worker()
        made.add_worker()
        yield made, runs_dir
    finally:
        for node in range(len(made.nodes)):
            made.kill(node)
        shutil.rmtree(folder, ignore_errors=True)


def search(cluster: Cluster, runs_dir: Path, **settings: object) -> subprocess.Popen[str]:
    """The command of a search there."""
    words = {**SMALL, "trials.executor": "ray", "runs_dir": runs_dir, "run": "there", **settings}
    command = [sys.executable, "-m", "nas.search", *(f"{key}={value}" for key, value in words.items())]
    return subprocess.Popen(command, env=cluster.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def completed(runs_dir: Path) -> int:
    """Trials of the run that have ended."""
    events = runs_dir / "there" / "events.jsonl"
    return events.read_text().count('"ended"') if events.exists() else 0


def test_a_cluster_that_loses_a_node_and_gains_one_judges_every_trial_once(cluster):
    nodes, runs_dir = cluster
    settings = {"ray.address": nodes.address, "budget": 14, "train.epochs": 25}
    process = search(nodes, runs_dir, **settings)
    wait_for(lambda: completed(runs_dir) >= 3 or process.poll() is not None)
    assert process.poll() is None
    nodes.kill(1)
    nodes.add_worker()
    printed, problems = process.communicate(timeout=600)
    assert process.returncode == 0, problems
    said = re.findall(r"the cluster has (\d) nodes now: (\d) trials at a time", printed)
    assert len(said) >= 2 and said[-1] == ("3", "2")  # by way of 2, or of 4 where the loss is noticed late
    check_whole(runs_dir / "there", 14)
    assert {record.state for record in RunStore.open(runs_dir / "there").records()} == {TrialState.COMPLETED}


def test_through_ray_client_a_run_is_the_same(cluster):
    nodes, runs_dir = cluster
    process = search(nodes, runs_dir, **{"ray.address": nodes.client, "budget": 3})
    assert process.communicate(timeout=600)[1] == ""
    assert process.returncode == 0
    again = search(nodes, runs_dir, **{"ray.address": nodes.address, "budget": 5, "resume": True})
    assert again.communicate(timeout=600)[1] == "" and again.returncode == 0
    check_whole(runs_dir / "there", 5)


def test_what_a_cluster_lacks_is_said_in_one_line_before_a_run_is_made(cluster):
    nodes, runs_dir = cluster
    for settings, said in (
        ({"ray.address": nodes.address, "trials.cpus": 3}, "trials.cpus=3"),
        ({"ray.address": "127.0.0.1:9"}, "Ray cannot be reached"),
    ):
        process = search(nodes, runs_dir, **settings)
        _, problems = process.communicate(timeout=300)
        assert process.returncode == 2 and said in problems and problems.count("\n") == 1
    assert not any(runs_dir.iterdir())

"""Fixtures that several test files ask for by name."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from threadpoolctl import threadpool_limits

from nas.config import LatencyConfig
from nas.latency import sampling
from nas.latency.lane import Lane

LONGEST = (
    "test_search_ray.py",
    "test_estimator.py",
    "test_search_rungs.py",
    "test_search_inline.py",
    "test_search_latency.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first: a worker that began one last would keep all others waiting."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="session", autouse=True)
def a_core_each() -> None:
    """Every worker of the suite, and every command that it starts, keeps to one core: there are as many workers."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    threadpool_limits(1)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Small networks on one thread: two threads on a busy machine wait for each other, up to a hundred times longer."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def lane(tmp_path: Path) -> Lane:
    """A place in a quiet lane that is the test's alone."""
    return Lane(folder=tmp_path / "lane")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> LatencyConfig:
    """Measurements by real runs, few of them, whatever the machine does."""
    monkeypatch.setattr(sampling, "ROUND_S", 0.001)
    monkeypatch.setattr(sampling, "WARM_UP_BLOCK_S", 0.001)
    return LatencyConfig(tolerance=1.0)


@pytest.fixture(scope="module")
def measuring_cluster() -> Iterator[None]:
    """One Ray for all tests of a file, since starting it takes seconds; its node declares that it measures."""
    from nas.config import RayConfig, SearchConfig
    from nas.tune.ray_session import ray_session

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_OVERRIDE_RESOURCES", '{"latency": 1}')
        with ray_session(SearchConfig(ray=RayConfig(dashboard=False))):
            yield


@pytest.fixture
def cluster(measuring_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, but whoever trains measures, as on one machine."""
    monkeypatch.setattr("nas.tune.ray_measuring.measuring_node", lambda: None)

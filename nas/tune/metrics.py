"""Figures on a search while it goes on, for whoever shows them (`nas.tune.ray_metrics`)."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from types import TracebackType

import moocore
import numpy as np

from nas.config import SearchConfig, first_line
from nas.results import make_constraints
from nas.store import RunStore
from nas.trial import Ended, EpochEnded, Event, Rung, Started, TrialRecord, TrialState
from nas.tune.figures import SearchFigures, Show
from nas.tune.search_state import SearchState

SHOW_EVERY_S = 1.0
WINDOW_S = 60.0  # over which images are counted
RUNNING, AT_A_RUNG = "running", "at_a_rung"  # states of trials that have not ended


class SearchMetrics:
    """Follows a search by its events, and shows its figures; if that fails they are left, and the search goes on."""

    def __init__(
        self, config: SearchConfig, store: RunStore, images: int, show: Show, say: Callable[[str], None]
    ) -> None:
        """Begins with what earlier sessions have judged.

        Args:
            config: of the search.
            store: its run.
            images: how many a training sees in an epoch.
            show: shows figures.
            say: prints a line.
        """
        self._names, self._limits = config.objectives, {e.name: e.limit for e in make_constraints(config.constraints)}
        self._show: Show | None = show
        self._say = say
        self._speed = _Speed(images)
        self._ended = Counter[str]()
        self._best: float | None = None
        self._highest: np.ndarray | None = None  # of each objective, of completed trials
        self._waited_s, self._shown_at = 0.0, -SHOW_EVERY_S
        self._state: SearchState | None = None
        for record in store.records():
            self._take_in(record)

    def __enter__(self) -> SearchMetrics:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._show_now()

    def watch(self, event: Event, state: SearchState) -> None:
        """Takes in what an event changed, and shows it, though not more than once in a second."""
        self._state = state
        self._speed.watch(event)
        if isinstance(event, Ended):
            assert state.last is not None
            self._take_in(state.last)
        if time.monotonic() - self._shown_at >= SHOW_EVERY_S:
            self._show_now()

    def _take_in(self, record: TrialRecord) -> None:
        self._ended[record.state.value] += 1
        self._waited_s += record.waited_s
        if record.state is TrialState.COMPLETED:
            values = np.array(record.values(self._names))
            self._highest = values if self._highest is None else np.maximum(self._highest, values)
            self._best = max(self._best or 0.0, record.accuracy or 0.0)

    def _show_now(self) -> None:
        if self._show is None or self._state is None:
            return
        self._shown_at = time.monotonic()
        try:
            self._show(self._figures(self._state))
        except Exception as error:  # whatever a library raises
            self._show = None
            self._say(f"live metrics are given up, the search goes on: {first_line(error)}")

    def _figures(self, state: SearchState) -> SearchFigures:
        unfinished = {RUNNING: state.live, AT_A_RUNG: state.waiting}
        return SearchFigures(
            trials=unfinished | {each.value: self._ended[each.value] for each in TrialState},
            best_accuracy_ratio=self._best,
            hypervolume_ratio=self._hypervolume(state),
            front_size=len(state.front),
            training_images_per_second=self._speed.images_per_second,
            lane_waited_seconds=self._waited_s,
        )

    def _hypervolume(self, state: SearchState) -> float:
        """It never falls: where a reference grows, what is added to the box is dominated to a larger share than was."""
        if self._highest is None or not state.front:
            return 0.0
        limits = {"error": 1.0, **self._limits}
        reference = np.array([limits.get(name, high) for name, high in zip(self._names, self._highest, strict=True)])
        points = np.array([record.values(self._names) for record in state.front])
        return float(moocore.hypervolume(points / reference, ref=np.ones(len(reference))))


class _Speed:
    """Images that trainings went through, as far as was heard of them."""

    def __init__(self, images: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._images, self._clock, self._began = images, clock, clock()
        self._epochs: dict[int, int] = {}  # of each training that goes on
        self._seen: deque[tuple[float, int]] = deque()

    def watch(self, event: Event) -> None:
        """Counts the epochs since the last event of the same training."""
        if isinstance(event, Started):
            self._epochs[event.trial] = event.epochs
        elif isinstance(event, EpochEnded | Rung):
            images = self._images * (event.epochs - self._epochs.get(event.trial, 0))
            self._seen.append((self._clock(), images))
            self._epochs[event.trial] = event.epochs
        if isinstance(event, Rung | Ended):
            self._epochs.pop(event.trial, None)

    @property
    def images_per_second(self) -> float:
        """In the last minute, or since the search began."""
        now = self._clock()
        while self._seen and self._seen[0][0] < now - WINDOW_S:
            self._seen.popleft()
        return sum(images for _, images in self._seen) / max(1.0, min(WINDOW_S, now - self._began))

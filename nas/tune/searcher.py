"""The driver's side in Ray: what Ray Tune asks and tells, passed on to the search's state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayError
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from nas.store import RunStore
from nas.tune.search_state import GIVEN_UP, SearchState

UNFIT = "unfit"  # key of a result: why the worker can judge no trial at all, as where its disk is full

FETCH_S = 600.0  # longest wait for the weights of a trial from another machine
NODE_LOST = ("node has died", "node was terminated")  # in Ray's words on an actor: no fault of its trial


class StateSearcher(Searcher):
    """Hands out the state's trials to Ray Tune: as many calls at a time as `room` says, of at most `per_call` trials.

    What is a trial to Ray is a call here: some trials that one worker judges one after another. Not Ray's own
    OptunaSearch: that one tells stopped trials as complete, leaves failed ones running and hides constraints from the
    sampler.
    """

    def __init__(self, state: SearchState, room: Callable[[], int], per_call: int) -> None:
        super().__init__()
        self._state, self._room, self._per_call = state, room, per_call
        self._calls: set[str] = set()

    def suggest(self, trial_id: str) -> Any:
        """The next call's config, None to be asked again later, or that the search is over."""
        if len(self._calls) >= self._room() and not self._state.time_is_up:
            return None
        assignments = []
        while len(assignments) < self._per_call and (assignment := self._state.next_trial()) is not None:
            assignments.append(assignment)
            if assignment.alone:
                break
        if assignments:
            self._calls.add(trial_id)
            return {"assignments": tuple(assignments)}
        return Searcher.FINISHED if self._state.over else None

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray pickles what it is given, and this run is never restored from Ray's pickles."""
        return {}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Makes room for another call; what became of its trials, `StateScheduler` has from their events."""
        self._calls.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the run's own events are the truth, not Ray's state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as `save`."""


class StateScheduler(FIFOScheduler):
    """Takes in the events that workers report, and ends a call when the state has no more use for it.

    A trial that is taken off at a rung and promoted later comes back in another call, since its next training begins
    anew: in the meantime its process serves others.
    """

    def __init__(self, state: SearchState, store: RunStore) -> None:
        super().__init__()
        self._state, self._store = state, store

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as in `StateSearcher`."""
        return {}

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Records the events of a result, the files that they need before them; returns whether the call goes on."""
        if UNFIT in result:
            self._state.give_up(result[UNFIT])
            return TrialScheduler.STOP
        try:
            files = ray.get(result["files"], timeout=FETCH_S) if result["files"] else ()
            self._store.receive(files)
        except RayError:  # lost with the node that sent it
            self._state.hand_back(_left_of(trial, self._state))
            return TrialScheduler.STOP
        except OSError as error:
            self._state.give_up_writing(error)
            return TrialScheduler.STOP
        self._state.record(*result["events"])
        return TrialScheduler.CONTINUE if _left_of(trial, self._state) else TrialScheduler.STOP

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Lets go of what nobody will ask of a call that is over: Ray keeps every one of them until the run's end."""
        trial.evaluated_params = {}
        known = trial.run_metadata
        known.last_result, known.metric_analysis, known.metric_n_steps = {"done": True}, {}, {}

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """A call that waits for a worker; Ray's own looks for one among all that there ever were."""
        return next((each for each in tune_controller.get_live_trials() if each.status == Trial.PENDING), None)


class StateStopper(tune.Stopper):
    """Stops all calls at once when the time is up, or the search cannot go on."""

    def __init__(self, state: SearchState) -> None:
        self._state = state

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as in `StateSearcher`."""
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No: `StateScheduler` says when a call is over."""
        return False

    def stop_all(self) -> bool:
        """Whether nothing is waited for any more."""
        return self._state.over == GIVEN_UP or self._state.time_is_up


class LossCallback(tune.Callback):
    """Takes back the trials of a call whose worker was lost, until one was lost too often for reasons of its own."""

    def __init__(self, state: SearchState, retries: int) -> None:
        self._state, self._retries = state, retries
        self._lost: Counter[int] = Counter()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as in `StateSearcher`."""
        return {}

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Has the trials tried again, each by itself: of several, whose fault it was is not known."""
        left, words = _left_of(trial, self._state), _words_on(trial)
        if len(left) == 1 and not any(each in words for each in NODE_LOST):
            self._lost[left[0]] += 1
            if self._lost[left[0]] > self._retries:
                self._state.fail(left[0], f"worker lost: {_last_line(words)}"[:500])
        self._state.hand_back(left)


def _left_of(call: Trial, state: SearchState) -> list[int]:
    """The trials of a call that have not ended, nor wait at a rung."""
    return [each.trial for each in call.config["assignments"] if state.works_on(each.trial)]


def _words_on(call: Trial) -> str:
    """What Ray wrote down of a call's failure."""
    file = Path(call.error_file) if call.error_file else None
    return file.read_text(encoding="utf-8", errors="replace") if file and file.exists() else ""


def _last_line(words: str) -> str:
    """The message, where an exception was the reason."""
    return (words.strip().splitlines() or ["Ray does not say why"])[-1].strip()

"""The driver's side in Ray: what Ray Tune asks and tells, passed on to the search's state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from nas.tune.search_state import GIVEN_UP, SearchState

FULL = "full"  # key of a result: the worker's disk is, so that none of its trials can be judged


class StateSearcher(Searcher):
    """Hands out the state's trials to Ray Tune: `concurrent` calls at a time, of at most `per_call` trials each.

    What is a trial to Ray is a call here: some trials that one worker judges one after another. Not Ray's own
    OptunaSearch: that one tells stopped trials as complete, leaves failed ones running and hides constraints from the
    sampler.
    """

    def __init__(self, state: SearchState, concurrent: int, per_call: int) -> None:
        super().__init__()
        self._state, self._concurrent, self._per_call = state, concurrent, per_call
        self._calls: set[str] = set()

    def suggest(self, trial_id: str) -> Any:
        """The next call's config, None to be asked again later, or that the search is over."""
        if len(self._calls) >= self._concurrent:
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

    def __init__(self, state: SearchState) -> None:
        super().__init__()
        self._state = state

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as in `StateSearcher`."""
        return {}

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Records the events of a result, and returns whether the call goes on."""
        if FULL in result:
            self._state.give_up(result[FULL])
        else:
            self._state.record(*result["events"])
        # If its worker is lost, Ray begins the call anew with this config: what has ended is not judged again.
        left = tuple(each for each in trial.config["assignments"] if self._state.works_on(each.trial))
        trial.set_config({**trial.config, "assignments": left})
        return TrialScheduler.CONTINUE if left else TrialScheduler.STOP

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Lets go of what nobody will ask of a call that is over: Ray keeps every one of them until the run's end."""
        trial.evaluated_params = {}
        known = trial.run_metadata
        known.last_result, known.metric_analysis, known.metric_n_steps = {"done": True}, {}, {}

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """A call that waits for a worker; Ray's own looks for one among all that there ever were."""
        return next((each for each in tune_controller.get_live_trials() if each.status == Trial.PENDING), None)


class StateStopper(tune.Stopper):
    """Stops all calls at once when the time is up, or the run cannot be written to."""

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
    """Ends the trial of a call whose worker was lost once too often; schedulers are told of every loss."""

    def __init__(self, state: SearchState) -> None:
        self._state = state

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as in `StateSearcher`."""
        return {}

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Records why; of several, whose fault it was is not known, and each is tried by itself."""
        left = [each.trial for each in trial.config["assignments"] if self._state.works_on(each.trial)]
        if len(left) > 1:
            self._state.hand_back(left)
        elif left:
            self._state.fail(left[0], f"worker lost: {_last_words(trial)}"[:500])


def _last_words(trial: Trial) -> str:
    """The last line of what Ray wrote down of a trial's failure: the message, where an exception was the reason."""
    file = Path(trial.error_file) if trial.error_file else None
    text = file.read_text(encoding="utf-8", errors="replace") if file and file.exists() else ""
    return (text.strip().splitlines() or ["Ray does not say why"])[-1].strip()

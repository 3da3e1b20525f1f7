"""The driver's side in Ray: what Ray Tune asks and tells, passed on to the search's state."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from nas.trial import EpochEnded, Rung, event_from_dict
from nas.tune.search_state import SearchState

EVENT = "event/"  # what Ray flattens the keys of an event to


class StateSearcher(Searcher):
    """Hands out the state's trials to Ray Tune, at most `concurrent` at a time.

    Not Ray's own OptunaSearch: that one tells stopped trials as complete, leaves failed ones running and hides
    constraints from the sampler.
    """

    def __init__(self, state: SearchState, concurrent: int) -> None:
        super().__init__()
        self._state, self._concurrent = state, concurrent

    def suggest(self, trial_id: str) -> Any:
        """The next trial's config, None to be asked again later, or that the search is over."""
        if self._state.live >= self._concurrent:
            return None
        assignment = self._state.next_trial()
        if assignment is None:
            return Searcher.FINISHED if self._state.over else None
        return {
            "trial": assignment.trial,
            "arch_id": assignment.arch_id,
            "architecture": json.dumps(assignment.architecture),
            "known": json.dumps(dataclasses.asdict(assignment.known)),
            "rungs": json.dumps(assignment.rungs),
        }

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray pickles what it is given, and this run is never restored from Ray's pickles."""
        return {}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: `EventCallback` has it from the events."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the run's own events are the truth, not Ray's state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as `save`."""


class RungScheduler(FIFOScheduler):
    """Lets a trial go on from a rung, or takes it off, as the state decides.

    One that is taken off and promoted later comes back as another trial of Ray's, since its next training begins anew:
    in the meantime its process serves others.
    """

    def __init__(self, state: SearchState) -> None:
        super().__init__()
        self._state = state

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as in `StateSearcher`."""
        return {}

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Records a rung, and returns whether to go on; `result` is flat."""
        words = {name.removeprefix(EVENT): value for name, value in result.items() if name.startswith(EVENT)}
        if words.get("event") != Rung.kind:
            return TrialScheduler.CONTINUE
        self._state.record(event_from_dict(words))
        return TrialScheduler.CONTINUE if self._state.works_on(trial.config["trial"]) else TrialScheduler.STOP


class EventCallback(tune.Callback):
    """Passes the events that trials report on to the state, but for rungs, which `RungScheduler` does."""

    def __init__(self, state: SearchState) -> None:
        self._state = state

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as in `StateSearcher`."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Records the event of a result."""
        if "event" in result:
            if result["event"]["event"] != Rung.kind:
                self._state.record(event_from_dict(result["event"]))
        elif "epochs" in result:
            self._state.record(EpochEnded(trial.config["trial"], result["epochs"], result["loss"]))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Ends a trial whose worker died."""
        self._state.fail(trial.config["trial"], f"worker lost: {_last_words(trial)}"[:500])


def _last_words(trial: Trial) -> str:
    """The last line of what Ray wrote down of a trial's failure: the message, where an exception was the reason."""
    file = Path(trial.error_file) if trial.error_file else None
    text = file.read_text(encoding="utf-8", errors="replace") if file and file.exists() else ""
    return (text.strip().splitlines() or ["Ray does not say why"])[-1].strip()

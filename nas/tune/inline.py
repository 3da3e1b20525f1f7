"""The inline executor: trials one by one in this process, for debugging, tests and notebooks."""

from __future__ import annotations

import torch

from nas.config import first_line
from nas.exhausted import out_of_memory, out_of_space
from nas.interrupts import Terminated
from nas.pipeline import Events
from nas.store import RunStore
from nas.training.allocator import keep_freed_memory
from nas.trial import Ended, TrialState
from nas.tune.judging import Judge, make_worker, trained
from nas.tune.plan import Plan
from nas.tune.search_state import SearchState


def run_inline(plan: Plan, state: SearchState, store: RunStore, judge: Judge = trained) -> None:
    """Runs trials until the search is over; Ctrl-C or the time budget leave the trial in flight unjudged."""
    before = torch.get_num_threads()
    torch.set_num_threads(plan.threads)
    keep_freed_memory()
    worker = make_worker(plan.job, None, store)
    try:
        while (assignment := state.next_trial()) is not None:
            events = _judged(judge(assignment, worker), assignment.trial)
            for event in events:
                state.record(event)
                if state.time_is_up or not state.works_on(assignment.trial):
                    events.close()
                    break
    except Terminated:
        raise
    except KeyboardInterrupt:
        state.over = "interrupted"
    except Exception as error:
        if not out_of_space(error):
            raise
        state.give_up_writing(error)
    finally:
        torch.set_num_threads(before)
    state.over = state.over or "time_budget"


def _judged(events: Events, trial: int) -> Events:
    """The events of a trial, which fails where memory is lacking: there is no other process to try it in."""
    try:
        yield from events
    except Exception as error:
        if not out_of_memory(error):
            raise
        yield Ended(trial, TrialState.FAILED, f"out of memory: {first_line(error)}")

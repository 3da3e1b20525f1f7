"""The inline executor: trials one by one in this process, for debugging, tests and notebooks."""

from __future__ import annotations

import torch

from nas.store import RunStore
from nas.training.allocator import keep_freed_memory
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
            events = judge(assignment, worker)
            for event in events:
                state.record(event)
                if state.time_is_up or not state.works_on(assignment.trial):
                    events.close()
                    break
    except KeyboardInterrupt:
        state.over = "interrupted"
    finally:
        torch.set_num_threads(before)
    state.over = state.over or "time_budget"

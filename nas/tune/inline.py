"""The inline executor: trials one by one in this process, for debugging, tests and notebooks."""

from __future__ import annotations

from functools import partial

import torch

from nas.architecture import architecture_from_dict
from nas.deploy import keep_deployed
from nas.pipeline import judge
from nas.store import RunStore
from nas.training.allocator import keep_freed_memory
from nas.training.checkpoint import Checkpoint
from nas.tune.plan import Plan
from nas.tune.search_state import SearchState


def run_inline(plan: Plan, state: SearchState, store: RunStore) -> None:
    """Runs trials until the search is over; Ctrl-C or the time budget leave the trial in flight unjudged."""
    before = torch.get_num_threads()
    torch.set_num_threads(plan.threads)
    keep_freed_memory()
    job = plan.job.on_device()
    meter = job.meter()
    try:
        while (assignment := state.next_trial()) is not None:
            trial, arch = assignment.trial, architecture_from_dict(assignment.architecture)
            keep = partial(keep_deployed, file=store.weights_file(trial))
            checkpoint = Checkpoint(store.checkpoint_file(trial))
            events = judge(trial, arch, job, assignment.known, keep, meter, checkpoint, assignment.rungs)
            for event in events:
                state.record(event)
                if state.time_is_up or not state.works_on(trial):
                    events.close()
                    break
    except KeyboardInterrupt:
        state.over = "interrupted"
    finally:
        torch.set_num_threads(before)
    state.over = state.over or "time_budget"

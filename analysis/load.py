"""Loading runs as tables."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from nas.results import trial_table
from nas.store import RunStore


def load_run(path: str | Path) -> pd.DataFrame:
    """The trials of a run that have ended, derived from its events: one row a trial.

    The columns are those of `nas.results.COLUMNS` (units in their names; `on_front` marks the Pareto front by
    the latest latencies), then one for each choice of the search space. `attrs["objectives"]` holds the
    names of the run's objectives, `attrs["metric"]` what its accuracy is taken of.

    Args:
        path: the run's folder, e.g. `runs/latest`.

    Raises:
        ValueError: no run is there, or its events are damaged before their last line.
    """
    store = RunStore.open(path)
    config = store.config()
    table = trial_table(store.records(), config)
    table.attrs["objectives"] = list(config.objectives)
    table.attrs["metric"] = config.metric
    return table

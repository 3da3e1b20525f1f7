"""Reading runs with pandas: no torch, no ray.

import analysis
trials = analysis.load_run("runs/latest")
analysis.at_latency(trials, ms=0.1)      # the most accurate network that is as fast
analysis.knee(trials)                    # where the front bulges most
analysis.importance(trials)              # which choices matter for which objective
analysis.compare({"exact_cost": ["a", "b", "c"], "tpe": ["d", "e", "f"]})  # names of runs

Every function returns a table, a number or a figure. `analysis/example.ipynb` asks five questions of a run that lies
beside it; `python -m analysis.runs` lists runs and removes them.
"""

from analysis.attainment import attainment, plot_attainment
from analysis.comparison import compare, hypervolumes
from analysis.effects import importance, marginals
from analysis.front import at_latency, hypervolume, knee, pareto_front, plot_front
from analysis.load import load_run, load_runs
from analysis.progress import progress

__all__ = [
    "at_latency",
    "attainment",
    "compare",
    "hypervolume",
    "hypervolumes",
    "importance",
    "knee",
    "load_run",
    "load_runs",
    "marginals",
    "pareto_front",
    "plot_attainment",
    "plot_front",
    "progress",
]

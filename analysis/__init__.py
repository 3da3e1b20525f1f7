"""Reading runs with pandas: no torch, no ray.

import analysis
trials = analysis.load_run("runs/latest")
trials[trials.on_front].sort_values("latency_ms")
"""

from analysis.front import hypervolume, pareto_front, plot_front
from analysis.load import load_run

__all__ = ["hypervolume", "load_run", "pareto_front", "plot_front"]

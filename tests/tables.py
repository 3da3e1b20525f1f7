"""Small tables of whole search spaces, with a made-up error and cost."""

import itertools

import numpy as np
import pandas as pd

OPERATIONS = ["skip", "conv1", "conv3", "pool"]
WIDTHS = [8, 16, 32]


def made_up_table(noise: float = 0.0, seed: int = 0) -> pd.DataFrame:
    """4 operations and 3 widths in two places each: 144 rows; skipping both operations is one architecture."""
    rng = np.random.default_rng(seed)
    rows = []
    for a, b, w, v in itertools.product(OPERATIONS, OPERATIONS, WIDTHS, WIDTHS):
        work = {"skip": 0.0, "pool": 0.3, "conv1": 1.0, "conv3": 9.0}
        power = {"skip": 0.0, "pool": 0.2, "conv1": 0.5, "conv3": 1.0}
        cost = 5.0 + work[a] * w + work[b] * w * v / 8
        learned = power[a] + 0.8 * power[b] + 0.2 * np.log2(w) * (a != "skip") + 0.15 * np.log2(v) * (b != "skip")
        error = 0.6 * np.exp(-learned)
        same = f"{a},{b},{w if a != 'skip' or b != 'skip' else 0},{v if b != 'skip' else 0}"
        rows.append({"a": a, "b": b, "w": w, "v": v, "cost": cost, "error": error, "same": same})
    table = pd.DataFrame(rows)
    noises = {same: float(rng.normal(0, noise)) for same in sorted(set(table["same"]))}
    table["error"] *= np.exp(table["same"].map(noises))
    table["accuracy"] = 100 * (1 - table["error"])
    return table

"""A random forest of errors over choices and costs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import RandomForestRegressor

from nas.samplers.gaussian_process import Array, Normal

TREES = 50
FEATURES = 1 / 3  # share of the columns that a split is chosen among
LEAST_SPREAD = 0.05  # deviations are at least this share of the forest's usual error


@dataclass(frozen=True, eq=False)
class Forest:
    """A forest that has seen its rows (Breiman 2001); its uncertainty is how far its trees differ.

    Attributes:
        held_out: of each row, as the trees predict it that have not seen it.
    """

    held_out: Normal
    _forest: RandomForestRegressor
    _least: float

    def predict(self, rows: Array) -> Normal:
        """The target of rows (n, columns)."""
        each = _by_tree(self._forest, rows)
        return Normal(each.mean(axis=0), each.std(axis=0) + self._least)


def fit_forest(seen: Array, target: Array, seed: int) -> Forest:
    """The forest of rows (n, columns) and their targets (n,)."""
    forest = RandomForestRegressor(TREES, max_features=FEATURES, random_state=seed).fit(seen, target)
    outside = np.ones((TREES, len(target)), dtype=bool)
    for tree, inside in enumerate(forest.estimators_samples_):
        outside[tree, inside] = False
    each, votes = _by_tree(forest, seen), np.maximum(outside.sum(axis=0), 1)
    mean = np.where(outside.any(axis=0), (each * outside).sum(axis=0) / votes, target.mean())
    spread = np.sqrt((np.square(each - mean) * outside).sum(axis=0) / votes)
    least = LEAST_SPREAD * float(np.sqrt(np.mean(np.square(target - mean))))
    return Forest(Normal(mean, spread + least), forest, least)


def _by_tree(forest: RandomForestRegressor, rows: Array) -> Array:
    single = rows.astype(np.float32)  # which each tree would make of them anew
    return np.stack([tree.predict(single, check_input=False) for tree in forest.estimators_])

"""Who proposes architectures: Optuna samplers by name.

Constraints reach them with the trials (`optuna.Trial.set_constraint`), so a factory needs no more than a seed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import optuna


def _tpe(seed: int) -> optuna.samplers.BaseSampler:
    """TPE over groups of parameters: sampling each alone, its default, proposes far more repeats."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)


def _nsga2(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.NSGAIISampler(population_size=20, seed=seed)


def _random(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


SAMPLERS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "tpe": _tpe,
    "nsga2": _nsga2,
    "random": _random,
}


def make_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """The sampler of a name, its random numbers seeded.

    Raises:
        ValueError: an unknown name.
    """
    if name not in SAMPLERS:
        raise ValueError(f"sampler={name} is unknown; known: {', '.join(SAMPLERS)}")
    return SAMPLERS[name](seed)

"""Who proposes architectures: Optuna samplers by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import optuna

SampleConstraints = Callable[[optuna.trial.FrozenTrial], Sequence[float]] | None
SamplerFactory = Callable[[int, SampleConstraints], optuna.samplers.BaseSampler]


def _tpe(seed: int, constraints: SampleConstraints) -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(seed=seed, constraints_func=constraints, constant_liar=True)


def _nsga2(seed: int, constraints: SampleConstraints) -> optuna.samplers.BaseSampler:
    return optuna.samplers.NSGAIISampler(population_size=20, seed=seed, constraints_func=constraints)


def _random(seed: int, constraints: SampleConstraints) -> optuna.samplers.BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


SAMPLERS: dict[str, SamplerFactory] = {"tpe": _tpe, "nsga2": _nsga2, "random": _random}


def make_sampler(name: str, seed: int, constraints: SampleConstraints) -> optuna.samplers.BaseSampler:
    """The sampler of a name.

    Args:
        name: a name in `SAMPLERS`.
        seed: of its random numbers.
        constraints: for a trial, how far each cost is above its limit (at most 0: kept); None without limits.

    Raises:
        ValueError: an unknown name.
    """
    if name not in SAMPLERS:
        raise ValueError(f"sampler={name} is unknown; known: {', '.join(SAMPLERS)}")
    return SAMPLERS[name](seed, constraints)

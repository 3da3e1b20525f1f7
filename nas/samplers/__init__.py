"""Who proposes architectures: Optuna samplers by name.

Constraints reach the stock ones with the trials (`optuna.Trial.set_constraint`); ours knows what members cost before
they are proposed, and asks for none that breaks one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import optuna

from nas.objectives import Constraint
from nas.samplers.candidates import PricedSpace
from nas.samplers.exact_cost import ExactCostSampler


@dataclass(frozen=True)
class SearchTask:
    """What is searched, for a sampler.

    Attributes:
        space: prices its members before they are judged.
        objectives: names, in the study's order.
        constraints: hard limits.
        seed: of the sampler's random numbers.
    """

    space: PricedSpace
    objectives: Sequence[str]
    constraints: Sequence[Constraint]
    seed: int


def _exact_cost(task: SearchTask) -> optuna.samplers.BaseSampler:
    return ExactCostSampler(task.space, task.objectives, task.constraints, task.seed)


def _tpe(task: SearchTask) -> optuna.samplers.BaseSampler:
    """TPE over groups of parameters: sampling each alone, its default, proposes far more repeats."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=task.seed, multivariate=True, group=True, constant_liar=True)


def _nsga2(task: SearchTask) -> optuna.samplers.BaseSampler:
    return optuna.samplers.NSGAIISampler(population_size=20, seed=task.seed)


def _nsga3(task: SearchTask) -> optuna.samplers.BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.NSGAIIISampler(population_size=20, seed=task.seed)


def _gp(task: SearchTask) -> optuna.samplers.BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.GPSampler(seed=task.seed)


def _random(task: SearchTask) -> optuna.samplers.BaseSampler:
    return optuna.samplers.RandomSampler(seed=task.seed)


def _qmc(task: SearchTask) -> optuna.samplers.BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.QMCSampler(seed=task.seed, scramble=True, warn_independent_sampling=False)


SAMPLERS: dict[str, Callable[[SearchTask], optuna.samplers.BaseSampler]] = {
    "exact_cost": _exact_cost,
    "tpe": _tpe,
    "nsga2": _nsga2,
    "nsga3": _nsga3,
    "gp": _gp,
    "random": _random,
    "qmc": _qmc,
}


def check_sampler(name: str, objectives: Sequence[str]) -> None:
    """Holds that there is such a sampler, and that it is for such objectives.

    Raises:
        ValueError: an unknown name, or objectives that are all known beforehand.
    """
    if name not in SAMPLERS:
        raise ValueError(f"sampler={name} is unknown; known: {', '.join(SAMPLERS)}")
    if name == "exact_cost" and "error" not in objectives:
        raise ValueError(
            f"objectives={list(objectives)} is not allowed with sampler=exact_cost, which learns the error; allowed: "
            "error and others"
        )


def make_sampler(name: str, task: SearchTask) -> optuna.samplers.BaseSampler:
    """The sampler of a name, its random numbers seeded.

    Raises:
        ValueError: see `check_sampler`.
    """
    check_sampler(name, task.objectives)
    return SAMPLERS[name](task)

"""What each choice of a search space does to the objectives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.front import objectives_of
from analysis.load import BESIDE

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

ABSENT = "absent"  # stands for the option of a choice that a trial did not have


def choices_of(trials: pd.DataFrame) -> list[str]:
    """The columns of a table of trials that are choices of the search space."""
    return [str(column) for column in trials.columns if column not in BESIDE]


def importance(trials: pd.DataFrame, objectives: Sequence[str] | None = None) -> pd.DataFrame:
    """Which choices matter for which objective: each choice's share of what single choices explain.

    Computed by Optuna's fANOVA (Hutter, Hoos and Leyton-Brown, "An efficient approach for assessing hyperparameter
    importance", ICML 2014): a random forest learns the objective from the choices of the completed trials, and its
    variance over the whole space is attributed to them. Options count as equally frequent, whichever the search
    preferred; what only a combination of choices does is left out. A choice that exists for some trials only has one
    more option, "absent", so that its importance includes that of having it at all. Of few trials, only the first
    few choices are to be relied on.

    Args:
        trials: a table of trials.
        objectives: one or more, or other columns of numbers; by default the objectives of the run.

    Returns:
        A row for each choice (index `choice`), a column for each objective, which adds up to 1; by the first objective,
        largest first. A choice that was always the same has 0. A column is empty where nothing can be told: fewer
        than two completed trials, or none that differ.

    Raises:
        ValueError: a column that is not there, or holds no numbers.
    """
    names = list(objectives_of(trials, objectives))
    choices = choices_of(trials)
    columns = {name: _shares(_with_numbers(trials, name), choices, name) for name in names}
    table = pd.DataFrame(columns, index=pd.Index(choices, name="choice"), dtype=float)
    return table.sort_values(names[0], ascending=False, kind="stable")


def marginals(trials: pd.DataFrame, objective: str = "error") -> pd.DataFrame:
    """The mean of an objective over the completed trials with each option of each choice.

    These are means over what the search proposed, which prefers good options of several choices at once: differences
    tell what goes with an option, not what it does by itself.

    Returns:
        Columns `choice`, `option` ("absent" where trials did not have the choice), `count`, `mean` and
        `standard_error` of the mean (empty for one trial); options in ascending order.

    Raises:
        ValueError: a column that is not there, or holds no numbers.
    """
    done = _with_numbers(trials, objective)
    rows = []
    for choice in choices_of(trials):
        given = given_options(done, choice)
        for option in _in_order(given):
            values = done.loc[[each == option for each in given], objective].astype(float)
            rows.append((choice, option, len(values), values.mean(), values.sem()))
    return pd.DataFrame(rows, columns=["choice", "option", "count", "mean", "standard_error"])


def _with_numbers(trials: pd.DataFrame, objective: str) -> pd.DataFrame:
    """The completed trials that have the objective."""
    if objective not in trials.columns or not pd.api.types.is_numeric_dtype(trials[objective]):
        raise ValueError(f"objective={objective!r} is no column of numbers of these trials")
    return trials.loc[trials["state"] == "completed"].dropna(subset=[objective])


def _shares(done: pd.DataFrame, choices: Sequence[str], objective: str) -> dict[str, float]:
    """The share of each choice; empty where nothing can be told."""
    import optuna  # only now: it takes a second, which `import analysis` should not

    coded = {choice: _coded(given_options(done, choice)) for choice in choices}
    varied = {choice: codes for choice, codes in coded.items() if len(set(codes)) > 1}
    values = done[objective].to_numpy(dtype=float)
    if not varied or len(set(values)) < 2:
        return dict.fromkeys(choices, np.nan)
    kinds = {choice: _distribution(codes) for choice, codes in varied.items()}
    # A study without storage or log lines: only a place for trials.
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    optuna.logging.set_verbosity(verbosity)
    for i, value in enumerate(values):
        params = {choice: codes[i] for choice, codes in varied.items()}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=kinds, value=float(value)))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {choice: found.get(choice, 0.0) for choice in choices}


def _coded(given: Sequence[Any]) -> list[Any]:
    """A choice's options as the forest gets them: ranks of numbers, absence before them; words as they are."""
    order = _in_order(given)
    if not all(_is_number(option) for option in order if option != ABSENT):
        return [str(option) for option in given]
    rank = {option: float(place) for place, option in enumerate(sorted(order, key=lambda each: each != ABSENT))}
    return [rank[option] for option in given]


def _distribution(codes: Sequence[Any]) -> BaseDistribution:
    """Where codes come from; each rank has an interval of one, so that all count the same."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if isinstance(codes[0], float):
        return FloatDistribution(-0.5, max(codes) + 0.5)
    return CategoricalDistribution(sorted(set(codes)))


def given_options(trials: pd.DataFrame, choice: str) -> list[Any]:
    """The options that trials had, with a word for absence."""
    return [ABSENT if pd.isna(option) else option for option in trials[choice].astype(object)]


def _is_number(option: Any) -> bool:
    return isinstance(option, (int, float, np.number))


def _in_order(given: Sequence[Any]) -> list[Any]:
    """The distinct options: numbers by size, then words by the alphabet, then absence."""
    distinct = set(given)
    numbers = sorted(option for option in distinct if _is_number(option))
    words = sorted(str(option) for option in distinct if not _is_number(option) and option != ABSENT)
    return [*numbers, *words, *([ABSENT] if ABSENT in distinct else [])]

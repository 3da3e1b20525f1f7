"""How well accuracies are known: by the number of images that they are shares of."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import pandas as pd
from scipy.stats import binomtest

LEVEL = 0.95  # of the intervals of accuracies
MOST_IMAGES = 1_000_000  # so many are not told from the accuracies that they gave


@dataclass(frozen=True)
class Images:
    """How many images accuracies are of; None where it is not known, or where the metric is no share of images.

    Attributes:
        validation: that decide.
        test: that are looked at once, for the front.
        inferred: whether the numbers are the least that the accuracies can be shares of, since none are recorded.
    """

    validation: int | None
    test: int | None
    inferred: bool


def wilson(share: float, images: int | None) -> tuple[float, float]:
    """The 95 % interval of a share of images, by Wilson's score; NaNs where it is none, or of unknown images.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927.
    """
    if not images or math.isnan(share):
        return math.nan, math.nan
    low, high = binomtest(round(share * images), images).proportion_ci(LEVEL, "wilson")
    return float(low), float(high)


def least_images(shares: Iterable[float]) -> int | None:
    """The least number of images that all these can be shares of; None if there is no such number."""
    known = [share for share in shares if not math.isnan(share)]
    fractions = [Fraction(share).limit_denominator(MOST_IMAGES) for share in known]
    images = math.lcm(*(each.denominator for each in fractions)) if known else 0
    exact = 1 < images <= MOST_IMAGES and all(abs(share * images - round(share * images)) < 1e-6 for share in known)
    return images if exact else None


def images_of(environment: dict[str, Any], trials: pd.DataFrame, metric: str) -> Images:
    """How many images a run's accuracies are of."""
    if metric != "accuracy":
        return Images(None, None, False)
    recorded = environment.get("images")
    if isinstance(recorded, dict):
        return Images(recorded.get("validation"), recorded.get("test"), False)
    return Images(least_images(trials["accuracy"]), least_images(trials["test_accuracy"]), True)

"""Repeats of a timing until its median is known: warm-up, rounds, a confidence interval without assumptions.

Repeats that follow each other share the machine's mood, so their number proves little. They are taken in rounds, and
the interval is that of the rounds' medians by order statistics (Conover, Practical Nonparametric Statistics, 3.2):
it holds for every distribution, and a burst of noise that fills a round counts once.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

CONFIDENCE = 0.95
ROUND_S = 0.015
WARM_UP_BLOCK_S = 0.01
LONGEST_WARM_UP_S = 0.25
EXACT_UP_TO = 200  # values; beyond, the binomial distribution is as good as normal
FEWEST_ROUNDS = 6  # below, no two medians enclose the true one with 95 % confidence

TimeOnce = Callable[[], float]
"""Runs once, to the end; the milliseconds that it took."""


@dataclass(frozen=True)
class Samples:
    """Repeats in rounds, in ms.

    Attributes:
        rounds_ms: the repeats of each round.
    """

    rounds_ms: tuple[tuple[float, ...], ...]

    @cached_property
    def all_ms(self) -> tuple[float, ...]:
        """Every repeat, in order."""
        return tuple(value for each in self.rounds_ms for value in each)

    @cached_property
    def median_ms(self) -> float:
        """Median of all repeats."""
        return statistics.median(self.all_ms)

    @cached_property
    def iqr_ms(self) -> float:
        """Interquartile range of all repeats."""
        low, high = np.percentile(self.all_ms, [25, 75])
        return float(high - low)

    @cached_property
    def interval_ms(self) -> tuple[float, float]:
        """95 % confidence interval of the median; infinite where there are too few rounds for one."""
        low, high = median_interval([statistics.median(each) for each in self.rounds_ms])
        return min(low, self.median_ms), max(high, self.median_ms)

    @property
    def width(self) -> float:
        """Half the interval's width over the median."""
        low, high = self.interval_ms
        return (high - low) / 2 / self.median_ms


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The order statistics between which the median of a distribution lies; (0, inf) with fewer than 6 values."""
    ordered, n = sorted(values), len(values)
    # The largest k such that fewer than k of n values are below the median at most this seldom.
    seldom, k = (1 - confidence) / 2, 0
    if n <= EXACT_UP_TO:
        while (seldom := seldom - math.comb(n, k) / 2**n) >= 0:
            k += 1
    else:
        k = int(n / 2 + statistics.NormalDist().inv_cdf(seldom) * math.sqrt(n) / 2)
    return (ordered[k - 1], ordered[-k]) if k >= 1 else (0.0, float("inf"))


def warm_up(time_once: TimeOnce, tolerance: float) -> int:
    """Runs until two blocks of repeats agree, or for a quarter of a second; the number of runs."""
    runs, before = 0, float("inf")
    end = time.perf_counter() + LONGEST_WARM_UP_S
    while runs < 2 or time.perf_counter() < end:
        block = _repeat(time_once, WARM_UP_BLOCK_S)
        runs += len(block)
        median = statistics.median(block)
        if abs(median - before) <= tolerance * median:
            break
        before = median
    return runs


def sample(times: Sequence[TimeOnce], tolerance: float, limit_s: float) -> list[Samples]:
    """Rounds of each in turn, until every median's interval is within `tolerance` of it or the time is over.

    Args:
        times: what is measured, interleaved.
        tolerance: half the interval's width over the median.
        limit_s: no rounds are begun after so many seconds, but for the first ones.
    """
    rounds: list[list[tuple[float, ...]]] = [[] for _ in times]
    end = time.perf_counter() + limit_s
    while True:
        for taken, time_once in zip(rounds, times, strict=True):
            taken.append(_repeat(time_once, ROUND_S))
        samples = [Samples(tuple(each)) for each in rounds]
        enough = len(rounds[0]) >= FEWEST_ROUNDS and all(each.width <= tolerance for each in samples)
        if enough or time.perf_counter() > end:
            return samples


def _repeat(time_once: TimeOnce, at_least_s: float) -> tuple[float, ...]:
    values = [time_once()]
    end = time.perf_counter() + at_least_s - values[0] / 1e3
    while time.perf_counter() < end:
        values.append(time_once())
    return tuple(values)

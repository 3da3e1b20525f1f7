"""Measuring a few networks before a search, so that all others have a price from its first proposal on."""

from __future__ import annotations

import random

import numpy as np

from nas.latency.meter import Meter
from nas.pipeline import Job, price
from nas.space import SearchSpace, random_choose
from nas.tune.forecast import FEWEST_NETWORKS
from nas.tune.pricing import PricedArchitectures

MOST_SHARE = 4  # of the budget at most one in so many is measured beforehand
DRAWN = 10  # networks are drawn for each one that is measured


def scout(prices: PricedArchitectures, space: SearchSpace, job: Job, meter: Meter, budget: int, seed: int) -> int:
    """Measures networks that are spread over multiply-adds, as many as a prediction needs but not many for the budget.

    Nothing is trained, and what was measured in earlier runs is remembered.

    Returns:
        How many were measured or remembered.
    """
    wanted = min(FEWEST_NETWORKS, budget // MOST_SHARE)
    drawn = prices.candidates([random_choose(random.Random(seed * 1_000_003 + i)) for i in range(wanted * DRAWN)])
    distinct = {each.identity: each for each in drawn if each is not None}
    ordered = sorted(distinct.values(), key=lambda each: each.costs["macs"])
    chosen = np.unique(np.linspace(0, len(ordered) - 1, min(wanted, len(ordered))).astype(int)) if ordered else []
    scouted = 0
    for place in chosen:
        arch = space.architecture(ordered[place].choices)
        try:
            cost = price(arch, job, prices.known(arch), meter).cost
        except Exception:  # whatever a runtime raises: if it is proposed, its trial will say so
            continue
        prices.learn(arch, cost.macs, cost.latency)
        scouted += 1
    return scouted

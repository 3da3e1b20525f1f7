"""What a sampler believes of members that were not judged, learned from those that were.

No one model of the error carries every space. A Gaussian process learns smooth spaces from a handful of trials; where
many members are equal, or broken, a forest does better. So both are asked, and weighed by how well each ranks what it
was not fitted to. That costs nothing more: a process predicts each of its rows from all others in closed form, a forest
from the trees that have not seen it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import kendalltau
from sklearn.linear_model import RidgeCV

from nas.samplers.candidates import Candidate
from nas.samplers.encoding import Encoding, logarithms
from nas.samplers.forest import fit_forest
from nas.samplers.gaussian_process import Array, Columns, GaussianProcess, Normal, fit_process
from nas.samplers.history import Judged

SHARPNESS = 4.0  # of the weights: times the root of the rows, since a rank correlation is known better from more
SMOOTHER = 0.03  # by how much a process ranks better than its held-out rows say, in searches through whole tables
GROWTH = 1.05  # of the number of rows, after which hyperparameters are searched anew
FEW_PAIRS = 4.0  # networks judged by a shorter and a longer training, before these say how errors correspond
FEWEST_TRAINED = 8  # trainings before the work of others is predicted
MOST_WORK = 10.0  # times as much as usual that is believed
# A normal distribution as equally spaced points with weights, in standard deviations.
POINTS = np.linspace(-5, 5, 65)
DENSITY = np.exp(-(POINTS**2) / 2) / np.exp(-(POINTS**2) / 2).sum()


class Model(Protocol):
    """A regression that has seen its rows."""

    @property
    def held_out(self) -> Normal:
        """Of each row that it has seen, what it would have said without it."""
        ...

    def predict(self, rows: Array) -> Normal:
        """The target of other rows."""
        ...


class Beliefs(NamedTuple):
    """What is believed of candidates.

    Attributes:
        errors: (n, k), what each candidate's error may be.
        weights: (k,), how probable each of the k is; they add up to 1.
        expected: (m,), errors of what was not judged in full: those that run, then those that were judged in part.
        price: (n,), how many times as much work a training is expected to be as is usual at its costs; 1 if not known.
    """

    errors: Array
    weights: Array
    expected: Array
    price: Array


class Learner:
    """Learns from trials as they end. Hyperparameters are kept from proposal to proposal."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._theta: Array | None = None
        self._columns: Columns | None = None
        self._searched = 0

    def believe(
        self,
        judged: Sequence[Judged],
        running: Sequence[Candidate],
        partial: Sequence[Candidate],
        candidates: Sequence[Candidate],
        doubt: float = 1.0,
    ) -> Beliefs:
        """What is believed of candidates after what was judged; what still runs counts as if it had ended as expected.

        Args:
            judged: two at least, after a full training or a part of it.
            running: without results.
            partial: those of `judged` that were not trained in full.
            candidates: what might be proposed.
            doubt: by what deviations are multiplied.
        """
        encoding = Encoding([*(each.candidate for each in judged), *running, *partial, *candidates])
        shares = [each.share for each in judged]
        seen = _with_share(encoding.encoded([each.candidate for each in judged]), shares, shares)
        rows = _with_share(encoding.encoded(candidates), [1.0] * len(candidates), shares).values
        scale, target = scales(shares, [each.error for each in judged], [each.candidate.identity for each in judged])
        price = _price([each.train_macs for each in judged], seen, rows)
        process = self._process(seen, target)
        open_ends = [*running, *partial]
        also = _with_share(encoding.encoded(open_ends), [1.0] * len(open_ends), shares).values
        expected = process.predict(also).mean if open_ends else np.zeros(0)
        if running:
            seen = seen._replace(values=np.vstack([seen.values, also[: len(running)]]))
            target = np.concatenate([target, expected[: len(running)]])
            process = fit_process(seen, target, self._theta, False, self._seed)
        models = (process, fit_forest(seen.values, target, self._seed))
        weights = _weights(models, target, len(judged))
        told = [model.predict(rows) for model in models]
        errors = [scale.errors(each.mean[:, None] + doubt * each.deviation[:, None] * POINTS) for each in told]
        return Beliefs(np.hstack(errors), np.kron(weights, DENSITY), scale.errors(expected), price)

    def _process(self, seen: Columns, target: Array) -> GaussianProcess:
        if self._columns is not None and not seen.alike(self._columns):
            self._theta, self._searched = None, 0  # what was found is of the columns before
        self._columns = seen
        search = len(target) >= max(self._searched + 1, GROWTH * self._searched)
        process = fit_process(seen, target, self._theta, search, self._seed)
        self._theta, self._searched = process.theta, len(target) if search else self._searched
        return process


@dataclass(frozen=True)
class ErrorScale:
    """The scale on which errors are learned: logarithms, in robust units from their median, those above it compressed.

    The front is at the low end, where differences count; that a network is bad has to be known, but not how bad, and
    a few that learn nothing would else take all of a model's attention.

    Attributes:
        median: of the logarithms.
        unit: their standard deviation, were they normal, told from how far half of them are from the median.
        highest: of the logarithms; nothing is expected to be far above.
    """

    median: float
    unit: float
    highest: float

    @classmethod
    def of(cls, errors: ArrayLike) -> ErrorScale:
        """The scale for errors (n,)."""
        logs = logarithms(errors)
        median = float(np.median(logs))
        unit = 1.4826 * float(np.median(np.abs(logs - median))) or float(logs.std())
        return cls(median, max(unit, 1e-3), float(logs.max()))

    def matched(self, pairs: Sequence[tuple[float, float]]) -> ErrorScale:
        """The scale on which errors are where the same networks were on this one, as far as few pairs can tell.

        Args:
            pairs: where a network was on this scale, and its error after a longer training.
        """
        if not pairs:
            return self
        before, logs = np.array([each for each, _ in pairs]), logarithms([error for _, error in pairs])
        off = np.where(before > 0, np.expm1(np.clip(before, 0, 50)), before)
        centred = off - off.mean()
        # A slope of this scale's unit, as if it had been seen in so many pairs one unit apart.
        slope = (centred @ logs + FEW_PAIRS * self.unit) / (centred @ centred + FEW_PAIRS)
        unit = float(np.clip(slope, 0.1 * self.unit, 10 * self.unit))
        median = float(np.mean(logs - unit * off))
        return ErrorScale(median, unit, max(median + unit, float(logs.max())))

    def scaled(self, errors: ArrayLike) -> Array:
        """Errors on this scale."""
        off = (logarithms(errors) - self.median) / self.unit
        return np.where(off > 0, np.log1p(np.maximum(off, 0)), off)

    def errors(self, scaled: Array) -> Array:
        """The errors that `scaled` made such numbers of."""
        off = np.where(scaled > 0, np.expm1(np.clip(scaled, 0, 50)), scaled)
        return np.exp(np.minimum(self.median + self.unit * off, self.highest + self.unit))


def scales(shares: Sequence[float], errors: Sequence[float], who: Sequence[str]) -> tuple[ErrorScale, Array]:
    """The scale of full trainings' errors, and all errors (n,), each on the scale of its share of a training.

    Who is trained longer is chosen by the shorter training. So the scale of longer ones is not told from them as they
    are, but by where the same networks were on the scale below.

    Args:
        shares: (n,), of a full training.
        errors: (n,).
        who: (n,), identities of the networks.
    """
    target = np.zeros(len(errors))
    scale: ErrorScale | None = None
    below: dict[str, float] = {}
    for share in sorted({*shares, 1.0}):
        rows = [row for row, each in enumerate(shares) if each == share]
        here = [errors[row] for row in rows]
        known = [(below[who[row]], errors[row]) for row in rows if who[row] in below]
        scale = ErrorScale.of(here) if scale is None else scale.matched(known)
        target[rows] = scale.scaled(here) if rows else []
        below |= {who[row]: target[row] for row in rows}
    assert scale is not None
    return scale, target


def _with_share(columns: Columns, shares: Sequence[float], seen: Sequence[float]) -> Columns:
    """Rows with how much of a full training it was as one column more, unless only full ones were seen.

    From -1 for the shortest training seen to 0 for a full one, in logarithms: about as far apart as two options of a
    choice, so that before any pair is known the two are believed to agree well. Not linear: scales are matched already.
    """
    if min(seen) == 1:
        return columns
    values = np.column_stack([columns.values, np.log(shares) / -np.log(min(seen))])
    groups, options = np.append(columns.groups, columns.groups.max() + 1), np.append(columns.options, -1)
    return Columns(values, groups, options, np.append(columns.linear, False))


def _weights(models: Sequence[Model], target: Array, judged: int) -> Array:
    """The models' weights, by the rank correlations of what they say of held-out rows; the first rows were judged."""
    ranks = [kendalltau(model.held_out.mean[:judged], target[:judged])[0] for model in models]
    scores = np.nan_to_num(np.array(ranks, dtype=np.float64))
    scores[0] += SMOOTHER
    shares = np.exp(SHARPNESS * np.sqrt(judged) * (scores - scores.max()))
    return shares / shares.sum()


def _price(train_macs: Sequence[float], seen: Columns, rows: Array) -> Array:
    """How many times as much work trainings of rows (n, columns) are as is usual at their costs.

    What a network costs on the device is what the search is about, and a trial of the budget is a trial; so what is
    weighed is the work of its train form beyond what its deploy form explains. Multiply-adds, since seconds would make
    every search another one.
    """
    known = np.flatnonzero(train_macs)
    if len(known) < FEWEST_TRAINED:
        return np.ones(len(rows))
    x, y = seen.values[known], np.log(np.asarray(train_macs)[known])
    strengths = np.logspace(-3, 3, 13)
    whole = RidgeCV(strengths).fit(x, y).predict(rows)
    usual = RidgeCV(strengths).fit(x[:, seen.linear], y).predict(rows[:, seen.linear])
    return np.exp(np.clip(whole - usual, -np.log(MOST_WORK), np.log(MOST_WORK)))

"""The sampler `exact_cost`: costs are known before training, so that only the error is to be learned.

A proposal is the candidate that is expected to add most to the hypervolume of the front, given its known costs and what
is believed of its error, for the work of its training beyond what is usual at its costs. Trials that still run
count as if they had ended as expected. The first proposals are spread over the costs; of the others every second one
doubts its beliefs, since a model that was fitted to what a search has tried is too sure of what it has not. Where most
is learned from short trainings, every fifth is the best near a place on the axis of costs: what these say of a stretch
of it may be wrong for all that is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import moocore
import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FixedTrial, FrozenTrial
from scipy.stats.qmc import Halton
from threadpoolctl import threadpool_limits

from nas.block_fields import Value
from nas.objectives import Constraint
from nas.samplers.candidates import Candidate, CandidatePool, PricedSpace
from nas.samplers.encoding import logarithms
from nas.samplers.gaussian_process import Array
from nas.samplers.history import History, HistoryReader, Judged
from nas.samplers.improvement import Front, expected_improvement
from nas.samplers.surrogate import Beliefs, Learner

# Of the logarithms of costs, from least to most; the ends come last, when mutations have had time to find them.
FIRST = (1 / 2, 1 / 4, 3 / 4, 1 / 8, 7 / 8, 3 / 8, 0, 1)
MEASURED = ("latency_ms",)  # costs that are predicted, then measured; members have "macs" as well then
NEAR = 0.03  # share of the candidates that are near enough to such a place
ALONG_EVERY = 5  # proposals of a search by rungs, one is of a place on the axis of costs
NEAR_ALONG = 0.08  # as NEAR, for these
MOST_JUDGED = 800  # that are learned from
FEWEST_FULL = 4  # full trainings, before it is told from them what a longer training of others would give
DOUBTS = (1.0, 3.0)  # by what beliefs' deviations are multiplied, in turn: what was never tried is believed too firmly
BLAS_THREADS = 1  # on matrices of a few hundred rows several wait for one another
INTERVAL = (0.05, 0.5, 0.95)  # quantiles of what is believed, told to people
WHY = "why"  # attribute of an Optuna trial: why it was proposed, in one line


class Proposal(NamedTuple):
    """What is proposed, and why."""

    candidate: Candidate
    why: str


class ExactCostSampler(optuna.samplers.BaseSampler):
    """Proposes members of a priced space, for an error and one or more costs."""

    def __init__(
        self, space: PricedSpace, objectives: Sequence[str], constraints: Sequence[Constraint], seed: int
    ) -> None:
        """A sampler of a space.

        Args:
            space: prices its members.
            objectives: names of the study's, in order, all minimized: "error" and one or more costs.
            constraints: hard limits of costs; what breaks one is not proposed.
            seed: of all that is drawn.
        """
        assert "error" in objectives
        self._space, self._costs = space, [name for name in objectives if name != "error"]
        self._limits = {each.name: each.limit for each in constraints}
        self._reader, self._learner, self._of_longer = HistoryReader(space, objectives), Learner(seed), Learner(seed)
        self._pool = CandidatePool(space, constraints, seed)
        self._random = optuna.samplers.RandomSampler(seed=seed)
        self._ends: list[Mapping[str, Value]] = []  # choices of the cheapest and the dearest candidate so far
        self._proposal: Proposal | None = None

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Makes the proposal, and returns the distributions of its choices."""
        if "fixed_params" in trial.system_attrs:  # it was enqueued
            self._proposal = None
            return {}
        with threadpool_limits(BLAS_THREADS):
            self._proposal = self._propose(self._reader.read(study, but=trial))
        if self._proposal is None:
            return {}
        study._storage.set_trial_user_attr(trial._trial_id, WHY, self._proposal.why)
        fixed = FixedTrial(dict(self._proposal.candidate.choices))
        self._space.suggest(fixed)
        return fixed.distributions

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The choices of the proposal."""
        return dict(self._proposal.candidate.choices) if self._proposal else {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Anything: it is asked for only where nothing is left to propose."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def foreseen(self, study: optuna.Study, numbers: Sequence[int]) -> list[float] | None:
        """The errors that full trainings are expected to give of some trials that were trained in part.

        What it was judged by is known of each, and from those that were trained in full, what that says. None while
        there are too few of these.
        """
        history = self._reader.read(study)
        if len(history.judged) < FEWEST_FULL:
            return None
        asked = [self._reader.member(number) for number in numbers]
        with threadpool_limits(BLAS_THREADS):
            beliefs = self._of_longer.believe(self._seen(history), [], [], asked)
        return (beliefs.errors @ beliefs.weights).tolist()

    def _propose(self, history: History) -> Proposal | None:
        known = len(history.judged) + len(history.partly) + len(history.elsewhere)
        first = known < 2 or len(history.taken) + len(history.elsewhere) < len(FIRST)
        front = [history.judged[i] for i in np.flatnonzero(self._non_dominated(history.judged))]
        near = [*(front or history.partly), *self._best_elsewhere(history)]
        candidates = self._pool.renewed(
            self._ends if first else [each.candidate.choices for each in near], history.taken
        )
        if not candidates:
            return None
        if first:
            return self._spread(candidates, history)
        turn, last = divmod(len(history.taken), ALONG_EVERY)
        if (history.partly or history.partial) and last == ALONG_EVERY - 1:
            return self._best_along(candidates, history, turn + 1)
        return self._best(candidates, front, history)

    def _spread(self, candidates: list[Candidate], history: History) -> Proposal:
        """A candidate near the next place on the axis of costs, as unlike those before as can be."""
        before, height = history.proposed, self._height(candidates)
        order = np.argsort(height, kind="stable")
        self._ends = [candidates[order[0]].choices, candidates[order[-1]].choices]
        share = FIRST[len(history.taken) % len(FIRST)]
        off = np.abs(height - (height.min() + share * np.ptp(height)))
        near = np.argsort(off, kind="stable")[: max(1, int(NEAR * len(candidates))) if 0 < share < 1 else 1]
        chosen = max((candidates[i] for i in near), key=lambda each: _unlike(each, before))
        return Proposal(chosen, f"one of the first, spread over costs: {self._told(chosen)}")

    def _best_along(self, candidates: list[Candidate], history: History, turn: int) -> Proposal:
        """The candidate of the lowest expected error near a place on the axis of costs, another one each turn."""
        beliefs = self._learner.believe(self._seen(history), history.running, history.partial, candidates)
        height, place = self._height(candidates), float(Halton(1, scramble=False).random(turn + 1)[-1, 0])
        off = np.abs(height - (height.min() + place * np.ptp(height)))
        near = np.argsort(off, kind="stable")[: max(1, int(NEAR_ALONG * len(candidates)))]
        best = int(near[np.argmin((beliefs.errors @ beliefs.weights)[near])])
        return Proposal(candidates[best], f"{self._believed(candidates[best], best, beliefs)}: the least about there")

    def _height(self, candidates: Sequence[Candidate]) -> Array:
        """Where on the axis of costs candidates are."""
        return np.mean([logarithms([each.costs[name] for each in candidates]) for name in self._axis()], axis=0)

    def _axis(self) -> list[str]:
        """Costs that the first proposals are spread over: exact ones, so that the same search begins the same way."""
        exact = [name for name in self._costs if name not in MEASURED]
        return exact or ["macs"]

    def _best(self, candidates: list[Candidate], front: list[Judged], history: History) -> Proposal:
        """The candidate of the highest expected improvement for its price."""
        doubt = DOUBTS[len(history.taken) % len(DOUBTS)]
        beliefs = self._learner.believe(self._seen(history), history.running, history.partial, candidates, doubt)
        target = self._target(front, history, beliefs.expected)
        gain = expected_improvement(self._costs_of(candidates), beliefs.errors, beliefs.weights, target)
        order = np.argsort(-gain / beliefs.price, kind="stable")
        self._pool.keep([candidates[i] for i in order])
        best = int(order[0])
        return Proposal(candidates[best], self._why(candidates[best], best, beliefs, gain[best], target))

    def _target(self, front: list[Judged], history: History, expected: Array) -> Front:
        """The front to be improved on, what was not judged in full included as it is expected to be."""
        open_ends = [*history.running, *history.partial]
        costs = np.vstack([self._costs_of([each.candidate for each in front]), self._costs_of(open_ends)])
        errors = np.concatenate([[each.error for each in front], expected])
        # Of all that was judged: the front may yet reach further up than it does.
        known = [*history.proposed, *(each.candidate for each in history.elsewhere)]
        highest = self._costs_of(known).max(axis=0)
        limits = [self._limits.get(name, np.inf) for name in self._costs]
        seen = errors if len(errors) else [each.error for each in (*history.partly, *history.elsewhere)]
        highest_error = float(max(seen))
        return Front(costs, errors, np.minimum(limits, highest), highest_error)

    def _seen(self, history: History) -> list[Judged]:
        """Those that are learned from, where there are many: the latest half of them, and the best of the others."""
        judged = [*history.elsewhere, *history.partly, *history.judged]
        if len(judged) <= MOST_JUDGED:
            return judged
        late, early = judged[-MOST_JUDGED // 2 :], judged[: -MOST_JUDGED // 2]
        points = np.column_stack([[each.error for each in early], self._costs_of([each.candidate for each in early])])
        rank = np.asarray(moocore.pareto_rank(points))
        best = np.argsort(rank, kind="stable")[: MOST_JUDGED - len(late)]
        return [early[i] for i in sorted(best)] + late

    def _best_elsewhere(self, history: History) -> list[Judged]:
        """The front of earlier runs' full trainings."""
        full = [each for each in history.elsewhere if each.share == 1]
        return [full[i] for i in np.flatnonzero(self._non_dominated(full))]

    def _non_dominated(self, judged: list[Judged]) -> np.ndarray:
        if not judged:
            return np.zeros(0, dtype=bool)
        costs = self._costs_of([each.candidate for each in judged])
        return np.asarray(moocore.is_nondominated(np.column_stack([[each.error for each in judged], costs])))

    def _costs_of(self, candidates: Sequence[Candidate]) -> Array:
        """(n, costs), in the order of the objectives."""
        return np.array([[each.costs[name] for name in self._costs] for each in candidates]).reshape(
            -1, len(self._costs)
        )

    def _why(self, chosen: Candidate, place: int, beliefs: Beliefs, gain: float, target: Front) -> str:
        points = np.column_stack([target.errors, target.costs])
        now = moocore.hypervolume(points, ref=np.array([target.reference_error, *target.reference_costs]))
        more = f"{gain / now:+.2%} of the hypervolume expected" if now > 0 else "the first to add anything"
        return f"{self._believed(chosen, place, beliefs)}: {more}"

    def _believed(self, chosen: Candidate, place: int, beliefs: Beliefs) -> str:
        errors, likely = beliefs.errors[place], beliefs.weights
        order = np.argsort(errors, kind="stable")
        low, middle, high = errors[order][np.searchsorted(likely[order].cumsum(), INTERVAL)]
        return f"error {middle:.4f} ({low:.4f} to {high:.4f}) at {self._told(chosen)}"

    def _told(self, chosen: Candidate) -> str:
        return ", ".join(f"{name} {chosen.costs[name]:.4g}" for name in self._costs)


def foreseen(study: optuna.Study, numbers: Sequence[int]) -> list[float] | None:
    """What a study's sampler expects of trials that were trained in part (`ExactCostSampler.foreseen`).

    None where it does not know, as Optuna's own samplers never do.
    """
    sampler = study.sampler
    return sampler.foreseen(study, numbers) if isinstance(sampler, ExactCostSampler) else None


def _unlike(candidate: Candidate, others: Sequence[Candidate]) -> int:
    """In how many choices it differs from the one that is most like it."""
    made = set(candidate.choices.items())
    return min((len(made ^ set(other.choices.items())) for other in others), default=0)

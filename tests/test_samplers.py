import math
from dataclasses import replace

import moocore
import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from analysis.table_space import make_space
from nas.objectives import Constraint
from nas.samplers import SAMPLERS, SearchTask, check_sampler, make_sampler
from nas.samplers.candidates import Candidate, CandidatePool
from nas.samplers.encoding import Encoding, logarithms
from nas.samplers.exact_cost import WHY
from nas.samplers.forest import fit_forest
from nas.samplers.gaussian_process import Columns, Normal, fit_process, minus_log_posterior
from nas.samplers.history import RUNGS, HistoryReader, Judged
from nas.samplers.improvement import Front, expected_improvement, staircase
from nas.samplers.surrogate import DENSITY, POINTS, ErrorScale, Learner, scales
from tests.tables import made_up_table


@pytest.fixture(scope="module")
def space():
    table = made_up_table()
    return make_space(table, ["a", "b", "w", "v"], [table["error"].to_numpy()], table["cost"].to_numpy(), "same")


def study_of(sampler):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)


def searched(space, name, budget, seed=0, constraints=()):
    """The rows that a sampler proposes, told their error and cost."""
    study = study_of(make_sampler(name, SearchTask(space, ["error", "cost"], constraints, seed)))
    rows = []
    for _ in range(budget):
        trial = study.ask()
        rows.append(space.suggest(trial))
        study.tell(trial, [space.errors[rows[-1]], space.costs[rows[-1]]])
    return rows, study


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_proposes_what_is_in_the_space_and_the_same_for_the_same_seed(space, name):
    first, again, other = (searched(space, name, 15, seed)[0] for seed in (0, 0, 1))
    assert None not in first
    assert first == again != other


def test_what_is_no_sampler_is_refused_in_one_line():
    with pytest.raises(ValueError, match="sampler=best is unknown; known: exact_cost, tpe"):
        check_sampler("best", ["error", "macs"])
    with pytest.raises(ValueError, match=r"objectives=\['macs', 'params'\] is not allowed with sampler=exact_cost"):
        check_sampler("exact_cost", ["macs", "params"])


def test_exact_cost_never_repeats_itself_and_ends_with_the_whole_front(space):
    distinct = len(np.unique(space.same))
    rows, _ = searched(space, "exact_cost", 60)
    assert distinct > 60
    assert len({space.same[row] for row in rows}) == 60
    assert space.hypervolume(rows) > 0.999
    random, _ = searched(space, "random", 60)
    assert space.hypervolume(rows[:25]) > space.hypervolume(random)


def test_exact_cost_goes_on_where_nothing_new_is_left():
    table = made_up_table().query("w == 8 and v == 8")
    small = make_space(table, ["a", "b"], [table["error"].to_numpy()], table["cost"].to_numpy(), None)
    rows, _ = searched(small, "exact_cost", 19)
    assert sorted(rows[:16]) == list(range(16))


def test_exact_cost_never_proposes_what_breaks_a_constraint(space):
    limit = float(np.median(space.costs))
    rows, _ = searched(space, "exact_cost", 40, constraints=(Constraint("cost", limit),))
    assert max(space.costs[row] for row in rows) <= limit


def test_running_trials_are_not_proposed_again_and_count_as_expected(space):
    study = study_of(make_sampler("exact_cost", SearchTask(space, ["error", "cost"], (), 0)))
    trials = [study.ask() for _ in range(8)]
    rows = [space.suggest(trial) for trial in trials]
    for trial, row in zip(trials, rows, strict=True):
        study.tell(trial, [space.errors[row], space.costs[row]])
    running = []
    for _ in range(6):
        running.append(space.suggest(study.ask()))
    assert len({space.same[row] for row in rows + running}) == 14


def test_a_limit_that_excludes_nothing_changes_nothing(space):
    loose = Constraint("cost", 1000 * space.costs.max())
    free, limited = (searched(space, "exact_cost", 20, constraints=each)[0] for each in ((), (loose,)))
    assert free == limited


def test_failed_and_infeasible_trials_are_not_proposed_again(space):
    study = study_of(make_sampler("exact_cost", SearchTask(space, ["error", "cost"], (), 0)))
    seen = []
    for number in range(30):
        trial = study.ask()
        row = space.suggest(trial)
        seen.append(space.same[row])
        if number % 3 == 0:
            study.tell(trial, state=TrialState.FAIL)
        elif number % 3 == 1:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, [space.errors[row], space.costs[row]])
    assert len(set(seen)) == 30


def test_a_proposal_says_why(space):
    _, study = searched(space, "exact_cost", 12)
    whys = [trial.user_attrs[WHY] for trial in study.trials]
    assert all(why.startswith("one of the first, spread over costs: cost ") for why in whys[:8])
    assert all("of the hypervolume expected" in why and " at cost " in why for why in whys[8:])


def test_the_first_proposals_span_the_costs(space):
    rows, _ = searched(space, "exact_cost", 8)
    costs = sorted(space.costs[row] for row in rows)
    assert costs[0] == space.costs.min()
    assert costs[-1] == space.costs.max()


def test_errors_of_zero_and_equal_errors_do_no_harm(space):
    for errors in (np.zeros_like(space.errors), np.full_like(space.errors, 0.5)):
        rows, _ = searched(replace(space, levels=(errors,)), "exact_cost", 14)
        assert len({space.same[row] for row in rows}) == 14


# Expected improvement


def brute_force(cost, mean, deviation, front, draws=20_000):
    """The mean hypervolume that draws of the candidate's error add."""
    reference = np.array([front.reference_error, *front.reference_costs])
    points = np.column_stack([front.errors, front.costs])
    before = moocore.hypervolume(points, ref=reference)
    errors = np.exp(np.random.default_rng(0).normal(mean, deviation, draws))
    added = [moocore.hypervolume(np.vstack([points, [error, *cost]]), ref=reference) - before for error in errors]
    return float(np.mean(added))


@pytest.mark.parametrize("costs", [1, 2])
def test_expected_improvement_is_the_mean_of_what_draws_add(costs):
    rng = np.random.default_rng(costs)
    front = Front(rng.random((6, costs)), rng.uniform(0.05, 0.4, 6), np.ones(costs), 0.5)
    candidates = rng.random((5, costs))
    belief = Normal(np.log(rng.uniform(0.05, 0.4, 5)), rng.uniform(0.1, 0.6, 5))
    errors = np.exp(belief.mean[:, None] + belief.deviation[:, None] * POINTS)
    told = expected_improvement(candidates, errors, DENSITY, front)
    for i in range(5):
        truth = brute_force(candidates[i], belief.mean[i], belief.deviation[i], front, 4000)
        assert told[i] == pytest.approx(truth, rel=0.15 if costs == 2 else 0.08, abs=2e-4)


@given(st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.01, 1)), min_size=1, max_size=12), st.floats(0.05, 12))
@settings(deadline=None)
def test_a_certain_candidate_improves_by_exactly_what_it_adds(points, cost):
    costs, errors = (np.array(column) for column in zip(*points, strict=True))
    front = Front(costs[:, None], errors, np.array([11.0]), 1.0)
    told = expected_improvement(np.array([[cost]]), np.array([[0.2]]), np.ones(1), front)[0]
    reference = np.array([1.0, 11.0])
    before = moocore.hypervolume(np.column_stack([errors, costs]), ref=reference)
    after = moocore.hypervolume(np.vstack([np.column_stack([errors, costs]), [0.2, cost]]), ref=reference)
    assert told == pytest.approx(after - before, abs=1e-6)


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 1)), min_size=1, max_size=20))
def test_the_staircase_is_the_front(points):
    costs, errors = (np.array(column) for column in zip(*points, strict=True))
    steps, least = staircase(costs, errors)
    assert (np.diff(steps) >= 0).all()
    assert (np.diff(least) < 0).all()
    for cost in costs:
        assert least[steps <= cost].min() == errors[costs <= cost].min()


# Models


def smooth_rows(n=40, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, 4))
    target = np.sin(values[:, 0]) + 0.5 * values[:, 3]
    return Columns(values, np.array([0, 0, 1, 2]), np.full(4, -1), np.array([False, False, False, True])), target


def layers(n, seed=0):
    """Rows of 6 choices that have 4 options in common, of which one is as bad wherever it is taken."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, 4, (n, 6))
    them = [Candidate({f"op{i}": int(each) for i, each in enumerate(row)}, str(row), {"cost": 1.0}) for row in drawn]
    encoded = Encoding(them).encoded(them)
    return encoded, (drawn[:, :3] == 2).any(axis=1) + 0.5 * (drawn[:, 3:] == 2).any(axis=1)


def test_a_process_predicts_rows_it_has_not_seen():
    seen, target = smooth_rows(80)
    unseen, truth = smooth_rows(50, seed=1)
    told = fit_process(seen, target, None, True, 0).predict(unseen.values)
    assert np.corrcoef(told.mean, truth)[0, 1] > 0.95
    assert (np.abs(told.mean - truth) < 3 * told.deviation + 0.05).mean() > 0.9


def test_a_process_knows_its_held_out_predictions_without_fitting_again():
    seen, target = smooth_rows(15)
    whole = fit_process(seen, target, None, True, 0)
    for i in (0, 7, 14):
        others = np.arange(15) != i
        part = replace_values(seen, seen.values[others])
        alone = fit_process(part, target[others], whole.theta, False, 0)
        # It differs by the offset and unit, which all rows have a part in.
        assert whole.held_out.mean[i] == pytest.approx(alone.predict(seen.values[[i]]).mean[0], abs=0.12)


def test_a_process_learns_from_all_choices_what_an_option_that_they_have_in_common_is_worth():
    def errors(seed):
        columns, target = layers(80, seed)
        seen, unseen = replace_values(columns, columns.values[:30]), columns.values[30:]
        apart = seen._replace(options=np.full_like(seen.options, -1))
        told = [fit_process(each, target[:30], None, True, 0).predict(unseen).mean for each in (seen, apart)]
        return [np.abs(each - target[30:]).mean() for each in told]

    together, apart = np.mean([errors(seed) for seed in range(5)], axis=0)
    assert together < 0.9 * apart


def test_the_slopes_of_the_posterior_are_those_of_its_values():
    columns, target = layers(25)
    columns = columns._replace(linear=np.arange(len(columns.groups)) % 2 == 0)
    y = (target - target.mean()) / target.std()
    rng, sizes = np.random.default_rng(0), 4 + sum(columns.sizes)
    for _ in range(3):
        theta = rng.normal(size=sizes) - 1
        _, slopes = minus_log_posterior(theta, columns, y)
        step = 1e-5 * np.eye(sizes)
        ahead, behind = ([minus_log_posterior(theta + way * d, columns, y)[0] for d in step] for way in (1, -1))
        assert np.allclose(slopes, np.subtract(ahead, behind) / 2e-5, rtol=1e-4, atol=1e-5)


def replace_values(columns, values):
    return columns._replace(values=values)


def test_a_forest_predicts_rows_and_knows_which_trees_saw_them():
    seen, target = smooth_rows(120)
    forest = fit_forest(seen.values, target, 0)
    unseen, truth = smooth_rows(50, seed=1)
    assert np.corrcoef(forest.predict(unseen.values).mean, truth)[0, 1] > 0.8
    fitted = forest.predict(seen.values).mean
    assert np.abs(forest.held_out.mean - target).mean() > 1.5 * np.abs(fitted - target).mean()
    assert (forest.held_out.deviation > 0).all()


def test_the_scale_of_errors_is_linear_below_the_median_and_compressed_above():
    errors = np.array([0.05, 0.06, 0.07, 0.08, 0.09, 0.5, 0.9])
    scale = ErrorScale.of(errors)
    scaled = scale.scaled(errors)
    assert np.allclose(scale.errors(scaled), errors)
    assert scaled[3] == pytest.approx(0)
    logs = np.log(errors)
    assert (scaled[5] - scaled[3]) / (scaled[3] - scaled[0]) < 0.5 * (logs[5] - logs[3]) / (logs[3] - logs[0])
    assert (scaled[1] - scaled[0]) / (scaled[3] - scaled[0]) == pytest.approx((logs[1] - logs[0]) / (logs[3] - logs[0]))


@given(st.lists(st.floats(1e-4, 1), min_size=1, max_size=20))
def test_the_scale_of_errors_keeps_their_order_and_is_undone(errors):
    scale = ErrorScale.of(errors)
    scaled = scale.scaled(errors)
    assert (np.diff(scaled[np.argsort(errors)]) >= 0).all()
    assert np.allclose(scale.errors(scaled), errors)


def test_what_is_more_work_to_train_than_others_of_its_cost_has_a_higher_price():
    rng = np.random.default_rng(0)
    them = [
        Candidate({"wide": int(wide), "depth": int(depth)}, str(i), {"cost": 10.0 * depth})
        for i, (wide, depth) in enumerate(zip(rng.integers(0, 2, 40), rng.integers(1, 5, 40), strict=True))
    ]
    judged = [Judged(each, 0.1, 5.0 * each.choices["depth"] * (1 + 3 * each.choices["wide"])) for each in them]
    price = Learner(0).believe(judged, [], [], them).price
    wide = np.array([each.choices["wide"] == 1 for each in them])
    assert (price[wide] / price[~wide].mean()).mean() == pytest.approx(4, rel=0.2)
    depths = np.array([each.choices["depth"] for each in them])
    by_depth = [price[wide & (depths == depth)].mean() for depth in range(1, 5)]
    assert max(by_depth) / min(by_depth) < 1.5  # though the deepest are four times as much work
    assert (Learner(0).believe([replace(each, train_macs=0.0) for each in judged], [], [], them).price == 1).all()


def test_doubt_widens_what_is_believed_and_leaves_its_middle():
    them = [Candidate({"depth": depth}, str(depth), {"cost": 1.0 + depth}) for depth in range(12)]
    judged = [Judged(each, 0.5 * 0.8**place) for place, each in enumerate(them[:9])]
    sure, doubting = (Learner(0).believe(judged, [], [], them[9:], doubt) for doubt in (1.0, 3.0))
    middle, half = len(POINTS) // 2, len(POINTS)  # of the process, which comes first
    assert np.allclose(sure.errors[:, middle], doubting.errors[:, middle])
    widths = [np.ptp(np.log(each.errors[:, middle - 10 : middle]), axis=1) for each in (sure, doubting)]
    assert (widths[1] > 2 * widths[0]).all()
    assert sure.errors.shape[1] == 2 * half


# Encoding


def candidates_of(*choices):
    return [Candidate(each, str(i), {"cost": 1.0 + i}) for i, each in enumerate(choices)]


def test_candidates_that_differ_in_a_choice_are_apart_by_one_and_absent_is_an_option():
    them = candidates_of({"a": "x", "b": 1}, {"a": "y", "b": 1}, {"a": "x"}, {"a": "x", "b": 2}, {"a": "x", "b": 4})
    columns = Encoding(them).encoded(them)
    first = columns.groups == 0
    assert np.square(columns.values[0, first] - columns.values[1, first]).sum() == pytest.approx(1)
    second = columns.groups == 1
    assert np.square(columns.values[0, second] - columns.values[2, second]).sum() == pytest.approx(1)
    ranks = columns.values[:, columns.groups == 2][:, 0]
    assert ranks.tolist() == [0, 0, 0.5, 0.5, 1]
    assert columns.linear.sum() == 1


def test_shared_options_are_counted():
    them = candidates_of({"a": "x", "b": "x", "c": "y"}, {"a": "y", "b": "y", "c": "x"}, {"a": "x", "b": "y", "c": "x"})
    columns = Encoding(them).encoded(them)
    counts = columns.values[:, columns.groups == 3]
    assert np.allclose(3 * counts[:, :2], [[2, 1], [1, 2], [2, 1]])
    assert columns.options.tolist() == [0, 1, 2] * 3 + [-1] * (3 + 1)  # x, y and neither; counts; cost


def test_logarithms_of_zero_are_finite():
    assert logarithms([0.0, 0.5]).tolist() == [math.log(0.25), math.log(0.5)]
    assert (logarithms([0.0, 0.0]) < math.log(0.001)).all()  # near 0, not at 1


# Candidates


def test_the_pool_holds_new_members_of_the_space_that_keep_the_constraints(space):
    limit = float(np.quantile(space.costs, 0.6))
    pool = CandidatePool(space, (Constraint("cost", limit),), seed=0)
    first = pool.renewed([], set())
    taken = {each.identity for each in first[:20]}
    again = pool.renewed([first[30].choices, first[31].choices], taken)
    assert len({each.identity for each in again}) == len(again)
    assert not taken & {each.identity for each in again}
    assert {each.identity for each in first[20:]} <= {each.identity for each in again}
    for each in again:
        row = space.rows[tuple(each.choices[name] for name in space.options)]
        assert each.costs["cost"] == space.costs[row] <= limit


def test_errors_of_shorter_trainings_have_a_scale_of_their_own_and_tell_that_of_full_ones():
    rng = np.random.default_rng(0)
    short = np.exp(rng.normal(-1.0, 0.3, 40))
    best = np.argsort(short)[:10]  # who is trained longer is chosen by it
    full = 0.2 * short[best]
    who = [str(i) for i in range(40)]
    shares = [0.1] * 40 + [1.0] * 10
    scale, target = scales(shares, [*short, *full], who + [who[i] for i in best])
    assert np.allclose(target[40:], target[best], atol=0.15)
    assert np.allclose(scale.errors(target[best]), full, rtol=0.05)
    alone, of_full = scales([1.0] * 10, list(full), [who[i] for i in best])
    assert alone == ErrorScale.of(full) and np.allclose(of_full, alone.scaled(full))


def test_a_shorter_training_tells_of_a_full_one_before_any_pair_is_known():
    rng = np.random.default_rng(1)
    them = [
        Candidate({str(place): int(rng.integers(3)) for place in range(6)}, str(i), {"cost": 1.0 + i % 5})
        for i in range(40)
    ]
    errors = np.exp(rng.normal(-1, 0.5, 40))  # of which choices tell nothing
    judged = [Judged(each, float(error), 0.0, 0.06) for each, error in zip(them, errors, strict=True)]
    told = Learner(0).believe(judged, [], them, them).expected
    assert np.polyfit(np.log(errors), np.log(told), 1)[0] > 0.6


def test_what_was_judged_in_part_is_learned_from(space):
    study = study_of(make_sampler("exact_cost", SearchTask(space, ["error", "cost"], (), 0)))
    rows = []
    for number in range(30):
        trial = study.ask()
        rows.append(space.suggest(trial))
        error, cost = float(space.errors[rows[-1]]), float(space.costs[rows[-1]])
        trial.set_user_attr(RUNGS, [[0.25, 1.5 * error]])
        if number % 3 == 0:
            study.tell(trial, [error, cost])
        elif number % 3 == 1:
            study.tell(trial, state=TrialState.PRUNED)
    assert len({space.same[row] for row in rows}) == 30
    random, _ = searched(space, "random", 30)
    assert space.hypervolume(rows) > space.hypervolume(random)


def test_where_short_trainings_say_that_nothing_dear_is_any_good_dear_ones_are_proposed_all_the_same(space):
    """Every fifth proposal is of another place on the axis of costs, the best that is known of there."""
    study = study_of(make_sampler("exact_cost", SearchTask(space, ["error", "cost"], (), 0)))
    middle, along = np.median(np.log(space.costs)), []
    for number in range(40):
        trial = study.ask()
        row = space.suggest(trial)
        error, dear = float(space.errors[row]), np.log(space.costs[row]) > middle
        trial.set_user_attr(RUNGS, [[0.25, 0.9 if dear else error]])
        if number % 5 == 0 and not dear:
            study.tell(trial, [error, float(space.costs[row])])
        else:
            study.tell(trial, state=TrialState.PRUNED)
        told = study.trials[-1].user_attrs[WHY].endswith(": the least about there")
        assert told == (number >= 8 and number % 5 == 4)
        along += [dear] if told else []
    assert len(along) == 7 and 2 <= sum(along) <= 5


def test_improvement_on_nothing_is_the_whole_box():
    front = Front(np.zeros((0, 2)), np.zeros(0), np.array([1.0, 1.0]), 0.5)
    told = expected_improvement(np.array([[0.0, 0.0], [0.5, 0.5]]), np.array([[0.1], [0.1]]), np.ones(1), front)
    assert told == pytest.approx([0.4, 0.1], rel=0.15)


class Dearer:
    """A space of numbers 0 to 999 that cost what they are, times a factor that may change."""

    factor = 1.0

    def candidates(self, ways):
        made = [way("n", tuple(range(1000))) for way in ways]
        return [Candidate({"n": n}, str(n), {"cost": self.factor * (n + 1)}) for n in made]

    def repriced(self, candidates):
        return self.candidates([lambda name, options, each=each: each.choices["n"] for each in candidates])


def test_what_waits_is_priced_anew_and_goes_if_it_breaks_a_limit_now():
    space = Dearer()
    pool = CandidatePool(space, (Constraint("cost", 500.0),), seed=0)
    assert max(each.costs["cost"] for each in pool.renewed([], set())) > 250
    space.factor = 2.0
    for each in pool.renewed([], set()):
        assert each.costs["cost"] == 2.0 * (each.choices["n"] + 1) <= 500


def test_a_limit_that_hardly_any_member_keeps_is_come_near_to(space):
    limit = float(np.sort(np.unique(space.costs))[1])
    study = study_of(make_sampler("exact_cost", SearchTask(space, ["error", "cost"], (Constraint("cost", limit),), 3)))
    trial = study.ask()
    assert space.costs[space.suggest(trial)] <= limit


class Rising:
    """A space whose prices rise from one reading to the next."""

    def __init__(self, space):
        self._space, self.factor, self.replayed = space, 1.0, 0

    def candidates(self, ways):
        self.replayed += len(ways)
        return [each and self._priced(each) for each in self._space.candidates(ways)]

    def repriced(self, candidates):
        return self._space.repriced([self._priced(each) for each in candidates])

    def _priced(self, candidate):
        row = self._space.rows[tuple(candidate.choices[name] for name in self._space.options)]
        return replace(candidate, costs={"cost": float(self._space.costs[row]) * self.factor})


def told(history):
    """A history by value."""
    judged, *others = ([_seen(each) for each in part] for part in history[:-1])
    return judged, others, history.taken


def _seen(each):
    candidate = each.candidate if isinstance(each, Judged) else each
    return candidate.identity, dict(candidate.costs), getattr(each, "error", None), getattr(each, "share", None)


def test_a_reader_that_remembers_reads_what_a_new_one_reads(space):
    study, dearer = study_of(optuna.samplers.RandomSampler(seed=0)), Rising(space)
    remembers, fates = HistoryReader(dearer, ["error", "cost"]), np.random.default_rng(0)
    open_trials = []
    for number in range(40):
        trial = study.ask()
        dearer.factor = 1.0 + number
        before = dearer.replayed
        read = remembers.read(study, but=study.trials[-1])
        assert dearer.replayed - before <= 1  # the one that was proposed last; what still runs is only priced anew
        new = HistoryReader(dearer, ["error", "cost"]).read(study, but=study.trials[-1])
        assert [told(read)[place] for place in (0, 2)] == [told(new)[place] for place in (0, 2)]
        assert [_seen(each) for each in read.running] == [_seen(each) for each in new.running]
        row = space.suggest(trial)
        open_trials.append((trial, row))
        if number % 3:
            done, row = open_trials.pop(int(fates.integers(len(open_trials))))
            study.tell(done, [space.errors[row], space.costs[row]])

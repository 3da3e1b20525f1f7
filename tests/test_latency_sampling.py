"""The median's interval, warm-up and rounds, all by made-up clocks."""

import itertools
import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.latency import sampling
from nas.latency.sampling import FEWEST_ROUNDS, Samples, median_interval, sample, warm_up

DRAWS = {  # each with its median
    "normal": (lambda rng, n: rng.normal(5, 2, n), 5.0),
    "lognormal": (lambda rng, n: rng.lognormal(0, 1.5, n), 1.0),
    "uniform": (lambda rng, n: rng.random(n), 0.5),
    "cauchy": (lambda rng, n: 3 + rng.standard_cauchy(n), 3.0),
    "exponential": (lambda rng, n: rng.exponential(1, n), math.log(2)),
    "two moods": (lambda rng, n: rng.normal(1, 0.01, n) + 3 * (rng.random(n) < 0.2), None),
}


class Clock:
    """A clock on which each run takes the next of the given ms, and then the last for ever."""

    def __init__(self, *times_ms):
        self.now, self.times_ms, self.calls = 0.0, times_ms, 0

    def perf_counter(self):
        return self.now

    def once(self):
        took = self.times_ms[min(self.calls, len(self.times_ms) - 1)]
        self.calls += 1
        self.now += took / 1e3
        return took


@pytest.fixture
def clock_of(monkeypatch):
    def make(*times_ms):
        clock = Clock(*times_ms)
        monkeypatch.setattr(sampling, "time", clock)
        monkeypatch.setattr(sampling, "ROUND_S", 0.025)
        monkeypatch.setattr(sampling, "WARM_UP_BLOCK_S", 0.01)
        return clock

    return make


# --- the interval


@pytest.mark.parametrize("n", [6, 7, 15, 40, 201, 400])
@pytest.mark.parametrize("name", DRAWS)
def test_the_interval_covers_the_median_of_any_distribution(name, n):
    draw, median = DRAWS[name]
    rng = np.random.default_rng(n)
    if median is None:
        median = float(np.median(draw(rng, 200_001)))
    covered = 0
    for _ in range(600):
        low, high = median_interval(draw(rng, n).tolist())
        covered += low <= median <= high
    assert covered / 600 > 0.95 - 3 * math.sqrt(0.95 * 0.05 / 600)


@pytest.mark.parametrize(
    ("n", "rank"),
    [(6, 1), (8, 1), (9, 2), (11, 2), (12, 3), (15, 4), (17, 5), (20, 6), (25, 8), (30, 10), (50, 18), (100, 40)],
)
def test_ranks_are_those_of_the_tables(n, rank):
    """Tables of the sign test, two-sided at 5 %."""
    assert median_interval(range(1, n + 1)) == (rank, n + 1 - rank)


@pytest.mark.parametrize("n", range(1, FEWEST_ROUNDS))
def test_of_fewer_than_six_values_nothing_is_known(n):
    assert median_interval([1.0] * n) == (0.0, float("inf"))


@pytest.mark.parametrize("n", range(6, 200))
def test_the_ranks_are_the_narrowest_that_keep_the_confidence(n):
    rank = int(median_interval(range(1, n + 1))[0])
    outside = [2 * sum(math.comb(n, i) for i in range(k)) / 2**n for k in (rank, rank + 1)]
    assert outside[0] <= 0.05 < outside[1]


def test_more_values_never_make_the_interval_wider():
    ranks = [median_interval(range(1, n + 1)) for n in range(6, 700)]
    for (low, high), (next_low, next_high) in itertools.pairwise(ranks):
        assert low <= next_low and high <= next_high
    shares = [(high - low) / (low + high) for low, high in ranks]
    assert max(shares[100:]) < min(shares[:20])
    assert shares[-1] < 0.1


def test_a_million_values_are_no_problem():
    low, high = median_interval(np.arange(1_000_000))
    assert low + high == 999_999
    assert 1900 < high - low < 2000


VALUES = st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=60)


@given(VALUES, st.randoms(use_true_random=False))
def test_the_interval_encloses_the_median_whatever_the_order(values, random):
    low, high = median_interval(values)
    assert low <= statistics.median(values) <= high
    mixed = list(values)
    random.shuffle(mixed)
    assert median_interval(mixed) == (low, high)


@given(VALUES)
def test_the_interval_follows_a_change_of_units(values):
    low, high = median_interval(values)
    assert median_interval([8 * value for value in values]) == (8 * low, 8 * high)


@given(VALUES)
def test_a_higher_confidence_gives_no_narrower_interval(values):
    low, high = median_interval(values)
    wider = median_interval(values, 0.99)
    assert wider[0] <= low and wider[1] >= high


# --- samples


ROUNDS = st.lists(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=5), min_size=1, max_size=12)


@given(ROUNDS)
def test_median_and_spread_are_those_of_all_samples(rounds):
    samples = Samples(tuple(map(tuple, rounds)))
    flat = [value for each in rounds for value in each]
    assert samples.all_ms == tuple(flat)
    assert samples.median_ms == statistics.median(flat)
    assert samples.iqr_ms == pytest.approx(np.percentile(flat, 75) - np.percentile(flat, 25))
    low, high = samples.interval_ms
    assert low <= samples.median_ms <= high
    assert (samples.width < float("inf")) == (len(rounds) >= FEWEST_ROUNDS)


def test_median_and_spread_by_hand():
    samples = Samples(((4.0, 1.0), (2.0, 3.0, 100.0)))
    assert (samples.median_ms, samples.iqr_ms) == (3.0, 2.0)
    assert samples.interval_ms == (0.0, float("inf"))


def test_a_burst_that_fills_one_round_counts_once():
    calm = [(1.0, 1.01, 0.99)] * 11
    assert Samples(((9.0,) * 1000, *calm)).interval_ms == (1.0, 9.0)  # the median of all is the burst's
    assert Samples(((9.0,) * 3, *calm)).interval_ms == (1.0, 1.0)


def test_few_rounds_of_many_agreeing_repeats_prove_nothing():
    assert Samples(((1.0,) * 10_000,) * 5).width == float("inf")


# --- warming up


def test_warming_up_ends_once_two_blocks_agree(clock_of):
    clock = clock_of(*[5.5] * 2, *[3.2] * 4, *[2.4] * 100)
    runs = warm_up(clock.once, 0.02)
    assert runs == clock.calls == 2 + 4 + 5 + 5


def test_warming_up_gives_up_after_its_longest_time(clock_of):
    clock = clock_of(*[20.0 * 1.1**n for n in range(200)])
    runs = warm_up(clock.once, 0.02)
    spent_s = [sum(20.0 * 1.1**n for n in range(count)) / 1e3 for count in (runs - 1, runs)]
    assert spent_s[0] < sampling.LONGEST_WARM_UP_S <= spent_s[1] and runs == clock.calls


def test_what_is_slow_is_warmed_up_by_two_runs(clock_of):
    clock = clock_of(5000.0)
    assert warm_up(clock.once, 0.02) == 2


# --- rounds


def test_rounds_end_at_the_fewest_where_all_agree(clock_of):
    clock = clock_of(6.0)
    (samples,) = sample([clock.once], 0.02, 60)
    assert [len(each) for each in samples.rounds_ms] == [5] * FEWEST_ROUNDS
    assert samples.width == 0


def test_rounds_go_on_until_the_interval_is_within_the_tolerance(clock_of):
    noisy = [30.0, 20.0, 40.0, 25.0, 35.0, 22.0]
    clock = clock_of(*noisy, *[30.0] * 1000)
    (samples,) = sample([clock.once], 0.02, 60)
    assert len(samples.rounds_ms) > FEWEST_ROUNDS
    assert samples.width <= 0.02
    assert Samples(samples.rounds_ms[:-1]).width > 0.02


@pytest.mark.parametrize("tolerance", [0.001, 0.05, 0.5])
def test_a_wider_tolerance_takes_fewer_rounds(clock_of, tolerance):
    rng = np.random.default_rng(0)
    times = (30 * rng.lognormal(0, 0.1, 5000)).tolist()
    (samples,) = sample([clock_of(*times).once], tolerance, 30)
    rounds = len(samples.rounds_ms)
    assert {0.001: rounds > 500, 0.05: 6 < rounds < 300, 0.5: rounds == 6}[tolerance]


def test_the_limit_ends_what_never_agrees(clock_of):
    clock = clock_of(*[20.0 * 1.5 ** (n % 7) for n in range(10_000)])
    (samples,) = sample([clock.once], 1e-6, 2.0)
    assert 2.0 < clock.now < 2.0 + 0.5
    assert samples.width > 1e-6
    assert sum(samples.all_ms) == pytest.approx(1e3 * clock.now)


@pytest.mark.parametrize("limit_s", [0.0, -1.0])
def test_one_round_is_taken_whatever_the_limit(clock_of, limit_s):
    (samples,) = sample([clock_of(40_000.0).once], 0.02, limit_s)
    assert samples.rounds_ms == ((40_000.0,),)


def test_what_is_compared_is_taken_in_turn_until_the_worst_is_known(clock_of):
    clock, order = clock_of(30.0), []

    def timed(name, values):
        def once():
            order.append(name)
            clock.now += 0.03
            return next(values)

        return once

    noisy = itertools.chain([30.0, 60.0, 30.0, 90.0, 30.0, 45.0], itertools.repeat(30.0))
    first, second = sample([timed("a", itertools.repeat(30.0)), timed("b", noisy)], 0.02, 60)
    assert order == ["a", "b"] * (len(order) // 2)
    assert len(first.rounds_ms) == len(second.rounds_ms) > FEWEST_ROUNDS
    assert second.width <= 0.02


@given(st.lists(st.floats(0.5, 50), min_size=1, max_size=30), st.floats(0.001, 0.5))
def test_every_repeat_is_kept_in_order(times_ms, tolerance):
    clock = Clock(*times_ms)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "time", clock)
        (samples,) = sample([clock.once], tolerance, 0.5)
    padded = [*times_ms, *itertools.repeat(times_ms[-1], max(0, clock.calls - len(times_ms)))]
    assert list(samples.all_ms) == padded[: clock.calls]
    assert all(samples.rounds_ms)

"""The regression of latency: what it must recover, keep in proportion, and survive."""

import json

import numpy as np
import pytest
from sklearn.linear_model import RidgeCV

from nas.latency.regression import LatencyRegression, fit


def additive(rows: int, columns: int = 8, seed: int = 0, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Counts of kinds of layers, and latencies in ms that are sums over them."""
    random = np.random.default_rng(seed)
    x = random.integers(0, 6, (rows, columns)).astype(float)
    cost = np.random.default_rng(99).uniform(0.05, 2, columns)
    return x, (x @ cost + 0.5) * np.exp(noise * random.normal(size=rows))


def choices(rows: int, seed: int = 0) -> np.ndarray:
    """Six choices of four as zeros and ones."""
    return np.eye(4)[np.random.default_rng(seed).integers(0, 4, (rows, 6))].reshape(rows, 24)


def relative(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    return np.abs(predicted - true) / true


def test_an_additive_table_is_recovered():
    x, y = additive(100)
    new, true = additive(300, seed=1)
    assert relative(fit(x, y).predict(new).median_ms, true).max() < 0.02


def test_a_multiplicative_table_is_recovered():
    effects = np.random.default_rng(5).normal(0, 0.5, 24)
    x, new = choices(150), choices(300, seed=1)
    error = relative(fit(x, np.exp(x @ effects)).predict(new).median_ms, np.exp(new @ effects))
    assert np.median(error) < 0.02


def test_additive_choices_are_predicted_better_than_by_ridge_regression_of_the_logarithm():
    cost = np.random.default_rng(5).uniform(0.1, 3, 24)
    x, new = choices(120), choices(500, seed=1)
    y = (x @ cost) * np.exp(0.02 * np.random.default_rng(2).normal(size=120))
    ridge = RidgeCV(np.logspace(-3, 3, 25)).fit(x, np.log(y))
    ours = np.median(relative(fit(x, y).predict(new).median_ms, new @ cost))
    assert ours < 0.8 * np.median(relative(np.exp(ridge.predict(new)), new @ cost))


def test_low_latencies_are_predicted_as_well_as_high_ones():
    def table(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(seed)
        x = np.round(10 ** random.uniform(0, 3, (rows, 1)) * random.uniform(0.5, 1, (rows, 3)), 3)
        return x, x @ [0.2, 0.5, 0.1]

    x, y = table(150, 0)
    new, true = table(600, 1)
    assert y.max() / y.min() > 500
    error = relative(fit(x, y * np.exp(0.02 * np.random.default_rng(3).normal(size=150))).predict(new).median_ms, true)
    low = true < np.median(true)
    assert np.median(error[low]) < 0.04
    assert np.median(error[~low]) < 0.04


def test_the_same_rows_and_seed_give_the_same_model():
    x, y = additive(250, noise=0.05)
    a, b = fit(x, y, seed=3), fit(x, y, seed=3)
    assert json.dumps(a.to_dict()) == json.dumps(b.to_dict())
    assert (a.predict(x).high_ms == b.predict(x).high_ms).all()


def test_latencies_in_another_unit_give_predictions_in_that_unit():
    x, y = additive(80, noise=0.05)
    new, _ = additive(100, seed=1)
    one, thousand = fit(x, y).predict(new), fit(x, 1000 * y).predict(new)
    for name in ("median_ms", "low_ms", "high_ms"):
        np.testing.assert_allclose(getattr(thousand, name), 1000 * getattr(one, name), rtol=1e-3)


@pytest.mark.parametrize("rows", [5, 60, 250])
def test_a_model_survives_json(rows):
    x, y = additive(rows, noise=0.05)
    x = np.hstack([x, choices(rows)])
    model = fit(x, y)
    stored = json.loads(json.dumps(model.to_dict()))
    restored = LatencyRegression.from_dict(stored)
    for name in ("median_ms", "low_ms", "high_ms"):
        expected = getattr(model.predict(x), name)
        np.testing.assert_allclose(getattr(restored.predict(x), name), expected, rtol=1e-9)


def test_columns_are_trusted_to_be_costs_where_they_are():
    def table(seed: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(seed)
        x = random.uniform(0, 1, (60, 100)) * np.geomspace(100, 0.01, 100)
        return x, x @ np.random.default_rng(5).uniform(0.5, 2, 100)

    new, true = table(1)
    assert np.median(relative(fit(*table(0)).predict(new).median_ms, true)) < 0.01


@pytest.mark.parametrize("noise", [0.02, 0.2])
def test_intervals_hold_nine_in_ten(noise):
    inside = []
    for seed in range(4):
        x, y = additive(100, seed=seed, noise=noise)
        new, true = additive(500, seed=100 + seed, noise=noise)
        predicted = fit(x, y).predict(new)
        assert ((predicted.low_ms > 0) & (predicted.low_ms <= predicted.median_ms)).all()
        assert (predicted.median_ms <= predicted.high_ms).all()
        inside.append(((predicted.low_ms <= true) & (true <= predicted.high_ms)).mean())
    assert 0.84 < np.mean(inside) < 0.96


def test_stalled_measurements_do_not_spoil_the_others():
    x, y = additive(100, noise=0.01)
    new, true = additive(300, seed=1)
    y[::12] *= 4
    assert np.median(relative(fit(x, y).predict(new).median_ms, true)) < 0.05


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (additive(5)[0], additive(5)[1]),
        (np.zeros((2, 1)), np.array([1.0, 2.0])),
        (np.ones((30, 4)), np.linspace(1, 2, 30)),
        (additive(30)[0], np.full(30, 7.0)),
        (np.repeat(additive(4)[0], 10, axis=0), np.repeat(additive(4)[1], 10)),
        (additive(40)[0], np.maximum(1, np.round(additive(40)[1] / 10))),
        (additive(40, columns=90)[0], additive(40, columns=90)[1]),
        (np.vstack([np.zeros((250, 3)), np.eye(3)]), np.concatenate([np.full(250, 2.0), [1.0, 5.0, 9.0]])),
        (np.vstack([np.eye(3)[[0] * 300], [[2.5, 1e9, -4.0]]]), np.concatenate([np.full(300, 2.0), [1000.0]])),
    ],
    ids=["five", "two", "constant", "one latency", "copies", "whole ms", "wide", "rare", "one odd row"],
)
def test_odd_tables_are_survived(x, y):
    model = fit(x, y)
    unseen = np.vstack([x, np.zeros((1, x.shape[1])), 100 * np.ones((1, x.shape[1]))])
    predicted = model.predict(unseen)
    values = np.stack([predicted.low_ms, predicted.median_ms, predicted.high_ms])
    assert np.isfinite(values).all()
    assert (values > 0).all()
    assert (np.diff(values, axis=0) >= 0).all()


def test_an_unseen_category_is_predicted_within_what_was_seen():
    cost = np.random.default_rng(5).uniform(0.5, 3, 24)
    x = choices(120)
    new = choices(50, seed=1)
    new[:, :4] = 0
    predicted = fit(x, x @ cost).predict(new).median_ms
    assert ((0.5 * (x @ cost).min() < predicted) & (predicted < 1.5 * (x @ cost).max())).all()


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        ([[1.0]], [1.0], "two rows"),
        ([[1.0], [2.0]], [1.0], "latency_ms"),
        ([1.0, 2.0], [1.0, 2.0], "features"),
        ([[1.0], [np.nan]], [1.0, 2.0], "finite"),
        ([[1.0], [2.0]], [1.0, 0.0], "positive"),
        ([[1.0], [2.0]], [1.0, np.inf], "finite"),
    ],
)
def test_bad_rows_are_refused(x, y, words):
    with pytest.raises(ValueError, match=words):
        fit(np.array(x), np.array(y))


def test_other_columns_are_refused():
    with pytest.raises(ValueError, match="fitted on 8"):
        fit(*additive(20)).predict(np.zeros((1, 7)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda stored: stored.pop("log_theta"), "lacks log_theta"),
        (lambda stored: stored["ms_theta"].pop(), "ms_theta"),
        (lambda stored: stored.update(chosen=[1.0, float("nan"), 2.0]), "chosen"),
        (lambda stored: stored["latency_ms"].pop(), "latency_ms"),
    ],
)
def test_a_malformed_stored_model_is_refused(change, words):
    stored = fit(*additive(20)).to_dict()
    change(stored)
    with pytest.raises(ValueError, match=words):
        LatencyRegression.from_dict(stored)

"""Who is judged by `analysis.bench_predictor`: our regression, ridge regression and a random forest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import OneHotEncoder

from nas.latency.regression import fit

Array = NDArray[np.float64]
Choices = NDArray[np.str_]

PENALTIES = np.logspace(-3, 3, 25)
TREES = 300
BATCH = 10_000  # rows predicted at once
PARTS = (1, 2, 4)  # counts of choices are over the whole network, its halves and its quarters


class Guess(NamedTuple):
    """Predicted latencies in ms, with intervals where the model has them."""

    median: Array
    low: Array | None = None
    high: Array | None = None


Model = Callable[[Choices, Array, Choices, int], Guess]


def one_hot(training: Choices, rows: Choices) -> Array:
    """The choices of rows as zeros and ones, by category seen in the training rows."""
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(training)
    return np.asarray(encoder.transform(rows), dtype=np.float64)


def vocabularies(training: Choices) -> list[tuple[list[str], list[int]]]:
    """The categories that columns share, with the columns; a column joins the first that includes its own."""
    own = [set(column) for column in training.T]
    found: list[tuple[set[str], list[int]]] = []
    for column in sorted(range(len(own)), key=lambda column: -len(own[column])):
        home = next((columns for words, columns in found if own[column] <= words), None)
        if home is None:
            found.append((own[column], [column]))
        else:
            home.append(column)
    return [(sorted(words), sorted(columns)) for words, columns in found]


def counts(training: Choices, rows: Choices) -> Array:
    """How often each choice occurs in rows, over the columns of its vocabulary and over parts of these in order."""
    columns = [np.empty((len(rows), 0))]
    for words, members in vocabularies(training):
        for parts in PARTS:
            for part in np.array_split(np.array(members), parts):
                if len(part) > 1:
                    columns += [(rows[:, part] == word).sum(axis=1, keepdims=True) for word in words]
    return np.hstack(columns)


def regression(encodings: Sequence[Callable[[Choices, Choices], Array]]) -> Model:
    """Our regression of features that these functions make of choices."""

    def model(training: Choices, latency: Array, rows: Choices, seed: int) -> Guess:
        def encoded(given: Choices) -> Array:
            return np.hstack([encoding(training, given) for encoding in encodings])

        fitted = fit(encoded(training), latency, seed)
        batches = np.array_split(rows, len(rows) // BATCH + 1)
        predictions = [fitted.predict(encoded(batch)) for batch in batches]
        return Guess(
            *(
                np.concatenate([getattr(each, name) for each in predictions])
                for name in ("median_ms", "low_ms", "high_ms")
            )
        )

    return model


def ridge(training: Choices, latency: Array, rows: Choices, seed: int) -> Guess:
    """Ridge regression of log latency on one-hot choices."""
    fitted = RidgeCV(PENALTIES).fit(one_hot(training, training), np.log(latency))
    return Guess(np.exp(fitted.predict(one_hot(training, rows))))


def random_forest(training: Choices, latency: Array, rows: Choices, seed: int) -> Guess:
    """A random forest of log latency on one-hot choices."""
    forest = RandomForestRegressor(TREES, random_state=seed).fit(one_hot(training, training), np.log(latency))
    return Guess(np.exp(forest.predict(one_hot(training, rows))))


MODELS: dict[str, Model] = {
    "ours": regression([one_hot, counts]),
    "ridge": ridge,
    "random_forest": random_forest,
}

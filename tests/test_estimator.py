"""scikit-learn's front door: its own checks, and what a person does with it."""

import pickle
import subprocess
import sys
from unittest.mock import patch

import numpy as np
import onnxruntime
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import nas
from nas import results
from nas.data.images import resized
from nas.image_layout import layout_of
from tests.searching import quick_latency

# A search that is real, counts what it weighs, and does not wait until latencies are known well.
QUICK = {
    "objectives": ["error", "params"],
    "sampler": "random",
    "latency": {"limit_s": 0.05, "tolerance": 1},
    "train.learning_rate": 0.03,
}
# What a check asks that makes no sense for images, and why: nothing.
EXPECTED_FAILED_CHECKS: dict[str, str] = {}


def quick_classifier(**parameters):
    usual = {"space": "tiny", "budget": 1, "epochs": 5, "executor": "inline", "settings": QUICK, "random_state": 0}
    return nas.NASClassifier(**{**usual, **parameters})


@pytest.fixture(autouse=True, scope="module")
def quickly(tmp_path_factory):
    """Short measurements, and no picture of any front: a quarter of the time, and the matter of other tests."""
    with quick_latency(tmp_path_factory.mktemp("estimator")), patch.object(results, "plot_front"):
        yield


@parametrize_with_checks([quick_classifier()], expected_failed_checks=lambda _: EXPECTED_FAILED_CHECKS)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def digits():
    """Images (N, 8, 8) and words for their digits: to learn from, and others."""
    pixels, y = load_digits(return_X_y=True)
    words = np.array([f"digit {label}" for label in y])
    return train_test_split(pixels.reshape(-1, 8, 8), words, test_size=0.25, random_state=0, stratify=words)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def fitted(digits, runs):
    """Of a front with more than one network; tests must not change it."""
    X, _, y, _ = digits
    return quick_classifier(budget=4, epochs=10, runs_dir=runs).fit(X, y)


def copied(estimator):
    return pickle.loads(pickle.dumps(estimator))  # noqa: S301


def test_digits_are_classified_far_above_chance(fitted, digits):
    _, X, _, y = digits
    assert fitted.score(X, y) > 0.8
    shares = fitted.predict_proba(X)
    assert shares.shape == (len(X), 10) and np.allclose(shares.sum(1), 1)
    assert (fitted.classes_[shares.argmax(1)] == fitted.predict(X)).all()
    assert list(fitted.classes_) == [f"digit {label}" for label in range(10)]


def test_the_front_is_there_and_its_most_accurate_network_predicts(fitted):
    front = fitted.pareto_
    assert len(front) > 1 and {"trial", "accuracy", "latency_ms", "params"} <= set(front)
    assert "test_accuracy" not in front, "nothing was tested"
    assert fitted.best_trial_ == front.loc[front["accuracy"].idxmax(), "trial"]
    assert not fitted.best_network_.training
    assert not any(isinstance(each, torch.nn.BatchNorm2d) for each in fitted.best_network_.modules()), "it is fused"
    assert sum(each.numel() for each in fitted.best_network_.parameters()) == front["params"].max()


def test_all_images_are_trained_or_validated_on(fitted, digits):
    with np.load(fitted.run_path_.with_suffix(".npz")) as file:
        assert len(file["x"]) == len(digits[0])
    from nas.data import load_data

    data = load_data(str(fitted.run_path_.with_suffix(".npz")), ".", 0.25, 0)
    assert len(data.train) + len(data.validation) == len(digits[0]) and len(data.test) == 0


def test_select_takes_the_most_accurate_that_keeps_the_limits(fitted, digits):
    _, X, _, _ = digits
    other, smallest = copied(fitted), fitted.pareto_["params"].min()
    assert other.select(params=float(smallest)) is other
    row = fitted.pareto_.set_index("trial").loc[other.best_trial_]
    assert row["params"] == smallest and other.best_trial_ != fitted.best_trial_
    assert not np.allclose(other.predict_proba(X), fitted.predict_proba(X))
    assert (other.select().predict(X) == fitted.predict(X)).all()
    with pytest.raises(ValueError, match=r"latency_ms=1e-09: none of the front's \d networks keeps that"):
        other.select(latency_ms=1e-9)


def test_export_writes_files_that_say_the_same(fitted, digits, tmp_path):
    _, X, _, _ = digits
    folder = fitted.export(tmp_path / "model", formats="onnx")
    assert "data came without test images" in (folder / "README.md").read_text()
    x = (X[:, None].astype(np.float32) - fitted._fitted.mean[0]) / fitted._fitted.std[0]
    (logits,) = onnxruntime.InferenceSession(folder / "model.onnx").run(["logits"], {"images": x.astype(np.float32)})
    assert (fitted.classes_[logits.argmax(1)] == fitted.predict(X)).all()
    with pytest.raises(ValueError, match="is not an empty folder"):
        fitted.export(folder)


def test_a_pickle_predicts_in_another_process_without_ray(fitted, digits, tmp_path):
    _, X, _, _ = digits
    (tmp_path / "classifier.pickle").write_bytes(pickle.dumps(fitted))
    np.save(tmp_path / "x.npy", X)
    code = (
        "import pickle, sys, numpy as np; c = pickle.load(open('classifier.pickle', 'rb'));"
        "np.save('y.npy', c.predict_proba(np.load('x.npy'))); assert 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, timeout=300)
    assert np.allclose(np.load(tmp_path / "y.npy"), fitted.predict_proba(X), atol=1e-6)


def test_without_runs_dir_the_run_goes_with_the_estimator(digits):
    X, _, y, _ = digits
    classifier = quick_classifier(epochs=1, budget=np.int64(1)).fit(X[:200], y[:200])  # numpy's: of a grid, say
    other, folder = copied(classifier), classifier.run_path_
    assert folder.is_dir()
    classifier.fit(X[:200], y[:200])
    assert not folder.exists(), "the next fit has its own"
    expected, folder = classifier.predict(X), classifier.run_path_
    other = copied(classifier)
    del classifier
    assert not folder.parent.exists()
    assert (other.predict(X) == expected).all()
    for act in (other.select, lambda: other.export("nowhere")):
        with pytest.raises(ValueError, match="is gone; give runs_dir=FOLDER"):
            act()


def test_a_clone_is_unfitted_and_has_the_same_parameters(fitted, digits):
    other = clone(fitted)
    assert other.get_params() == fitted.get_params() and other.settings == QUICK
    with pytest.raises(NotFittedError):
        other.predict(digits[1])


def test_images_are_resized_as_they_were_for_training(digits, tmp_path):
    X, X_other, y, _ = digits
    images, other = (part[:100].astype(np.uint8) for part in (X, X_other))
    settings = {**QUICK, "data.image_size": 4}
    classifier = quick_classifier(epochs=1, settings=settings, runs_dir=tmp_path).fit(images, y[:100])
    with np.load(classifier.run_path_.with_suffix(".npz")) as file:
        assert file["x"].dtype == np.uint8
    network = classifier._fitted
    x = (resized(torch.from_numpy(other[:, None]).float(), (4, 4)) - network.mean[0]) / network.std[0]
    with torch.no_grad():
        expected = classifier.best_network_(x).softmax(1)
    assert np.allclose(classifier.predict_proba(other), expected, atol=1e-6)


def test_a_fit_that_fails_leaves_what_was_fitted(fitted, digits):
    _, X, _, _ = digits
    other = copied(fitted)
    with pytest.raises(ValueError, match="one class"):
        other.fit(X[:, :5], np.zeros(len(X)))
    assert (other.predict(X) == fitted.predict(X)).all()


def test_in_a_pipeline(digits):
    X, X_other, y, y_other = digits
    flat, scale = FunctionTransformer(lambda x: x.reshape(len(x), -1)), StandardScaler()
    pipeline = make_pipeline(flat, scale, quick_classifier(image_shape=(8, 8), epochs=5)).fit(X, y)
    assert pipeline.score(X_other, y_other) > 0.5
    assert pipeline[-1].n_features_in_ == 64


def test_grid_search_over_spaces(digits, tmp_path):
    X, X_other, y, y_other = digits
    own = tmp_path / "own.yaml"
    own.write_text("stages: [{block: basic, stride: 2, out_channels: [8, 16]}]\nhead: [{block: classifier}]\n")
    grid = GridSearchCV(quick_classifier(epochs=20), {"space": ["tiny", str(own)]}, cv=2, error_score="raise")
    grid.fit(X[:400], y[:400])
    assert grid.best_params_["space"] in ("tiny", str(own))
    assert len(grid.cv_results_["mean_test_score"]) == 2
    assert (grid.cv_results_["mean_test_score"] > 0.2).all() and grid.score(X_other, y_other) > 0.2


@pytest.mark.parametrize(
    ("shape", "image_shape", "expected"),
    [
        ((5, 8, 9), None, (1, 8, 9)),
        ((5, 8, 9, 3), None, (3, 8, 9)),
        ((5, 7), None, (7, 1, 1)),
        ((5, 72), (8, 9), (1, 8, 9)),
        ((5, 216), (3, 8, 9), (3, 8, 9)),
        ((5, 3, 8, 9), (3, 8, 9), (3, 8, 9)),
        ((5, 3, 3, 3), None, (3, 3, 3)),
    ],
)
def test_how_arrays_are_read_as_images(shape, image_shape, expected):
    x = np.arange(np.prod(shape)).reshape(shape)
    images = layout_of(shape, image_shape).images(x)
    assert images.shape[1:] == expected
    colour_last = image_shape is None and len(shape) == 4
    assert (images == (np.moveaxis(x, -1, 1) if colour_last else x.reshape(5, *expected))).all()


@pytest.mark.parametrize(
    ("shape", "parameters", "said"),
    [
        ((20, 3, 8, 8), {}, r"X of shape \(20, 3, 8, 8\) is not allowed; allowed: .*image_shape=\(C, H, W\)"),
        ((20, 63), {"image_shape": (8, 8)}, r"allowed: \(N, 64\) or \(N, 8, 8\)"),
        ((20, 64), {"image_shape": (64,)}, r"image_shape=\(64,\) is not allowed; allowed: \(H, W\) or \(C, H, W\)"),
        ((20, 8, 8, 3), {"image_shape": (8, 8, 3)}, r"looks like \(H, W, C\); allowed: \(C, H, W\), or None"),
        ((20, 8, 8), {"settings": "epochs"}, "settings='epochs' is not allowed; allowed: a dict"),
        ((20, 8, 8), {"settings": {"verbose": 1}}, "settings: verbose is not allowed; give verbose instead"),
        ((20, 8, 8), {"settings": {"val_share": 0.05}}, "^X, y, val_share=0.05: cannot be split"),
        ((20, 8, 8), {"settings": {"seed": 1}}, "settings: seed is not allowed; give random_state instead"),
        ((20, 8, 8), {"settings": {"config": "absent.yaml"}}, "settings: config is not allowed: every fit is a run of"),
        ((20, 8, 8), {"settings": {"train": {"epoch": 1}}}, "unknown key 'train.epoch'"),
        ((20, 8, 8), {"space": "tinny"}, "tinny"),
        ((20, 8, 8), {"budget": 0}, "budget=0 is not allowed"),
        ((20, 8, 8), {"latency_ms": 1e-9}, "latency_ms"),
    ],
)
def test_bad_input_is_refused_and_leaves_nothing(shape, parameters, said, tmp_path):
    classifier = quick_classifier(runs_dir=tmp_path, **parameters)
    X = np.random.default_rng(0).random(shape)
    with pytest.raises(ValueError, match=said):
        classifier.fit(X, np.arange(20) % 2)
    assert not [each.name for each in tmp_path.iterdir() if not each.name.startswith(".")]
    assert not hasattr(classifier, "classes_")


def test_images_of_another_shape_are_refused(fitted):
    with pytest.raises(ValueError, match=r"X of shape \(2, 9, 8\) is not allowed; allowed: \(N, 8, 8\), as in fit"):
        fitted.predict(np.zeros((2, 9, 8)))
    with pytest.raises(ValueError, match=r"X of shape \(2, 8\) is not allowed; allowed: \(N, 8, 8\)"):
        fitted.predict(np.zeros((2, 8)))
    with pytest.raises(ValueError, match=r"X of shape \(2, 9, 8\) is not allowed; allowed: \(N, 8, 8\)"):
        fitted.predict(np.zeros((2, 9, 8)).tolist())
    with pytest.raises(ValueError, match=r"too large for dtype.*float32"):
        fitted.predict(np.full((2, 8, 8), 1e100))


@pytest.mark.parametrize(
    ("y", "said"),
    [
        ([1] * 20, "one class"),
        ([1] * 19 + [2], "class 2 has one image"),
        (np.array(["a", 1] * 10, dtype=object), "kinds that cannot be sorted: int, str"),
        (np.array([9, 10] * 10, dtype="timedelta64[D]"), "classes of timedelta64.* such as 9 days are not allowed"),
    ],
)
def test_classes_that_cannot_be_learned_are_refused(y, said):
    with pytest.raises(ValueError, match=said):
        quick_classifier().fit(np.zeros((20, 8, 8)), y)

"""Latencies of proposals: when they are predicted, from what, and what they teach."""

import numpy as np
import pytest

import nas
from nas.architecture import Architecture
from nas.blocks import Classifier, Conv
from nas.latency.calibrate import distinct
from nas.latency.conditions import Conditions
from nas.latency.predictor import LatencyPredictor, rows_of
from nas.latency.regression import Prediction, fit
from nas.layers import deploy_layers
from nas.reading import Reading
from nas.tune import forecast
from nas.tune.forecast import FEWEST_NETWORKS, Forecast
from tests.helpers import reading

WHERE = Conditions("a processor", "torch 2", "float32", 1, 1, "auto", (3, 32, 32), 10, "macs")
ARCHS = distinct(nas.load_space("resnet"), 60, 0)
UNSEEN = ARCHS[40:]
UNFIT = Architecture((Conv(out_channels=8, groups=2),), (), (Classifier(),))  # of 3 channels


def latency_ms(arch):
    """A latency that is a sum over layers, of what each takes and of what it computes."""
    layers = deploy_layers(arch, WHERE.num_classes, WHERE.input_shape, WHERE.merge)
    return 0.05 + sum(0.005 + 1e-7 * layer.macs for layer in layers)


def taught(count, source="measured", calibrated=None):
    """A forecast that has seen so many networks."""
    made = Forecast(WHERE, calibrated)
    for arch in ARCHS[:count]:
        made.learn(arch, reading(latency_ms(arch), source=source))
    return made


def calibrated(factor=1.0, networks=9):
    """A predictor of latencies that are `factor` times what they are."""
    archs = ARCHS[:networks]
    regression = fit(rows_of(archs, WHERE), [factor * latency_ms(arch) for arch in archs])
    return LatencyPredictor(WHERE, regression, {})


def told(made, arch):
    """What a forecast predicts, which is something."""
    found = made.predict([arch])[0]
    assert found is not None
    return found


@pytest.fixture
def fits(monkeypatch):
    """How many rows each regression is fitted to; all of them predict 2 ms, within 1 to 4 ms."""
    sizes = []

    class Stub:
        def predict(self, rows):
            return Prediction(*(np.full(len(rows), value) for value in (2.0, 1.0, 4.0)))

    def stub(rows, latencies):
        assert len(rows) == len(latencies)
        sizes.append(len(rows))
        return Stub()

    monkeypatch.setattr(forecast, "fit", stub)
    return sizes


def test_nothing_is_predicted_while_few_networks_are_known():
    assert Forecast(WHERE, None).predict([UNSEEN[0]])[0] is None
    made = taught(FEWEST_NETWORKS - 1)
    assert made.predict([UNSEEN[0]])[0] is None
    made.learn(ARCHS[-1], reading(latency_ms(ARCHS[-1])))
    assert made.predict([UNSEEN[0]])[0] is not None


def test_latencies_of_unseen_networks_are_predicted():
    made = taught(40)
    readings = [told(made, arch) for arch in UNSEEN]
    true = np.array([latency_ms(arch) for arch in UNSEEN])
    assert all(0 < each.low_ms <= each.median_ms <= each.high_ms for each in readings)
    assert {(each.source, each.doubt, each.iqr_ms, each.merges) for each in readings} == {("predicted", "", 0.0, ())}
    assert true.max() > 3 * true.min()
    assert np.median(np.abs([each.median_ms for each in readings] / true - 1)) < 0.05
    assert np.mean([each.low_ms <= value <= each.high_ms for each, value in zip(readings, true, strict=True)]) >= 0.7


def test_a_prediction_is_that_of_the_regression(fits):
    assert taught(30).predict([UNSEEN[0]])[0] == Reading(2.0, 0.0, 1.0, 4.0, source="predicted")


@pytest.mark.parametrize(("source", "teaches"), [("measured", True), ("remembered", True), ("predicted", False)])
def test_predictions_teach_nothing(fits, source, teaches):
    made = taught(40, source)
    assert (made.predict([UNSEEN[0]])[0] is not None) is teaches
    assert fits == [40] * teaches


def test_a_latency_of_nothing_teaches_nothing(fits):
    made = Forecast(WHERE, None)
    for arch in ARCHS:
        made.learn(arch, reading(0.0))
    assert made.predict([UNSEEN[0]])[0] is None and fits == []


def test_it_is_fitted_anew_as_often_as_its_knowledge_has_grown_by_half(fits):
    made = Forecast(WHERE, None)
    for arch in [*ARCHS, *ARCHS]:
        made.learn(arch, reading(latency_ms(arch)))
        made.predict([UNSEEN[0]])[0]
    assert fits == [20, 30, 45]  # of 60: those that are met again teach nothing


# --- from a calibration


def test_a_calibration_predicts_from_the_first_network_on():
    predictor = calibrated()
    made = Forecast(WHERE, predictor)
    for arch in UNSEEN:
        found, expected = told(made, arch), predictor.predict([arch])
        assert (found.median_ms, found.low_ms, found.high_ms) == tuple(each[0] for each in vars(expected).values())
        assert found.source == "predicted"


def test_what_is_measured_is_added_to_a_calibration(fits):
    made = taught(10, calibrated=calibrated(networks=9))
    assert told(made, UNSEEN[0]).median_ms != 2.0 and fits == []
    for arch in ARCHS[10:40]:
        made.learn(arch, reading(latency_ms(arch)))
    assert told(made, UNSEEN[0]).median_ms == 2.0 and fits == [9 + 40]


def test_measurements_outweigh_a_calibration_that_is_off():
    wrong, arch = calibrated(factor=3.0), UNSEEN[0]
    before = told(Forecast(WHERE, wrong), arch).median_ms
    after = told(taught(40, calibrated=wrong), arch).median_ms
    assert abs(after / latency_ms(arch) - 1) < 0.2 < abs(before / latency_ms(arch) - 1)


def test_a_calibration_is_not_changed():
    predictor = calibrated()
    before = predictor.predict(UNSEEN).median_ms
    taught(40, calibrated=predictor).predict([UNSEEN[0]])[0]
    assert len(predictor.regression.features) == 9
    np.testing.assert_array_equal(predictor.predict(UNSEEN).median_ms, before)


# --- what cannot be predicted


def test_an_architecture_that_does_not_fit_the_images_is_not_predicted():
    made = Forecast(WHERE, calibrated())
    assert made.predict([UNFIT])[0] is None
    assert made.predict([UNSEEN[0]])[0] is not None


def test_an_architecture_that_does_not_fit_spoils_nothing_that_was_learnt(fits):
    made = taught(20)
    assert made.predict([UNFIT])[0] is None
    assert made.predict([UNSEEN[0]])[0] == Reading(2.0, 0.0, 1.0, 4.0, source="predicted")


def test_a_regression_that_cannot_be_solved_predicts_nothing(monkeypatch):
    def singular(rows, latencies):
        raise np.linalg.LinAlgError("singular")

    monkeypatch.setattr(forecast, "fit", singular)
    assert taught(30).predict([UNSEEN[0]])[0] is None


def test_what_is_expected_is_near_from_few_networks_on_and_is_never_absurd():
    assert Forecast(WHERE, None).expected_ms(UNSEEN) == [None] * len(UNSEEN)
    truth = np.array([latency_ms(arch) for arch in UNSEEN])
    for count in (8, 20, 40):
        expected = np.array(taught(count).expected_ms(UNSEEN))
        assert np.abs(np.log(expected / truth)).max() < 0.7, count
    assert taught(8).expected_ms([UNFIT, UNSEEN[0]])[0] is None


def test_what_is_expected_is_what_a_regression_says_that_is_sure_of_itself(fits):
    summed = np.array(taught(FEWEST_NETWORKS - 1).expected_ms(UNSEEN))
    assert fits == []
    between = np.array(taught(FEWEST_NETWORKS).expected_ms(UNSEEN))  # the stub says 2 ms, between 1 and 4
    assert fits == [FEWEST_NETWORKS]
    assert (np.abs(np.log(between / 2)) < np.abs(np.log(summed / 2))).all()


def test_only_the_latest_networks_are_fitted_to_and_no_others_are_kept(fits, monkeypatch):
    monkeypatch.setattr(forecast, "MOST_FITTED", 25)
    made = taught(0)
    for count, arch in enumerate(ARCHS[:50], 1):
        made.learn(arch, reading(latency_ms(arch)))
        made.predict([UNSEEN[0]])
        assert len(made._rows) == len(made._latency_ms) == min(count, 25)
    assert fits == [20, 25, 25]  # of 20, 30 and 45 that were measured

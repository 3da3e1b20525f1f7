"""Calibrating a device: networks of a space are measured, a predictor is fitted, and judged on others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau, spearmanr

from nas.architecture import Architecture
from nas.config import LimitsConfig
from nas.latency.conditions import Conditions
from nas.latency.measurement import LatencyMeasurement
from nas.latency.meter import Meter
from nas.latency.predictor import LatencyPredictor, rows_of
from nas.latency.prepared import NotSupported
from nas.latency.regression import Array, fit
from nas.networks.bounds import check_limits
from nas.networks.builder import build
from nas.space import SearchSpace

FEWEST_NETWORKS = 10
CANDIDATES = 1000  # that are predicted, to see how long it takes

Say = Callable[[str], None]


@dataclass(frozen=True)
class Calibration:
    """What a calibration found.

    Attributes:
        predictor: fitted to all measured networks but those held out.
        held_out: (n,) first measurements of the networks held out, ms.
        again: (n,) second ones: how well the measurement agrees with itself.
        predicted: (n,) what the predictor says, ms.
        predict_s: seconds that `CANDIDATES` take.
        doubtful: measurements that were not stable.
    """

    predictor: LatencyPredictor
    held_out: Array
    again: Array
    predicted: Array
    predict_s: float
    doubtful: int


def calibrate(
    space: SearchSpace,
    where: Conditions,
    meter: Meter,
    sizes: tuple[int, int],
    seed: int,
    say: Say,
    limits: LimitsConfig = LimitsConfig(),  # noqa: B008 (it is frozen)
) -> Calibration:
    """Measures networks of a space and fits a predictor.

    Args:
        space: what is sampled.
        where: conditions of the measurements.
        meter: measures under them.
        sizes: networks to fit to, and networks to judge by.
        seed: of the sampling.
        say: takes lines for people.
        limits: how large its networks may be.

    Raises:
        ValueError: a space that has too few different networks, one above the limits, or none that can be built for
            these images.
    """
    wanted, held = sizes
    archs = distinct(space, wanted + held, seed)
    if len(archs) < FEWEST_NETWORKS:
        raise ValueError(
            f"space={space.name} has {len(archs)} different deploy forms; a predictor needs {FEWEST_NETWORKS} at least"
        )
    for arch in archs:
        check_limits(arch, where.num_classes, where.input_shape, limits)
    held = min(held, len(archs) // 3)
    say(f"measuring {len(archs)} networks of space {space.name}, {held} of them to judge by (twice)")
    # Those held out are measured among the others, and again at the end.
    archs, measured = _measurable(archs, where, meter, say)
    held = min(held, len(archs) // 3)
    again = [_measured(arch, where, meter) for arch in archs[:held]]
    latency_ms = np.array([each.median_ms for each in measured])
    rows = rows_of(archs, where)
    regression = fit(rows[held:], latency_ms[held:], seed)
    told = regression.predict(rows[:held])
    within = (told.low_ms <= latency_ms[:held]) & (latency_ms[:held] <= told.high_ms)
    second = np.array([each.median_ms for each in again])
    error = {**agreement(told.median_ms, latency_ms[:held]), "covered": float(np.mean(within))}
    predictor = LatencyPredictor(where, regression, error)
    candidates = [space.sample((seed + 1) * 1_000_003 + draw) for draw in range(CANDIDATES)]
    begin = time.perf_counter()
    predictor.predict(candidates)
    predict_s = time.perf_counter() - begin
    doubtful = sum(not each.stable for each in (*measured, *again))
    return Calibration(predictor, latency_ms[:held], second, told.median_ms, predict_s, doubtful)


def distinct(space: SearchSpace, count: int, seed: int) -> list[Architecture]:
    """Random architectures with different deploy forms, at most `count`: as many as are found."""
    found: dict[str, Architecture] = {}
    for draw in range(20 * count):
        if len(found) == count:
            break
        arch = space.sample(seed * 1_000_003 + draw)
        found.setdefault(arch.deploy_id, arch)
    return list(found.values())


def agreement(told: Array, measured: Array) -> dict[str, float]:
    """How latencies agree: median and 90th percentile of the relative error, Spearman's and Kendall's correlation."""
    off = np.abs(told / measured - 1)
    return {
        "median_error": float(np.median(off)),
        "p90_error": float(np.percentile(off, 90)),
        "spearman": float(np.asarray(spearmanr(told, measured))[0]),
        "kendall": float(np.asarray(kendalltau(told, measured))[0]),
    }


def _measurable(
    archs: Sequence[Architecture], where: Conditions, meter: Meter, say: Say
) -> tuple[list[Architecture], list[LatencyMeasurement]]:
    """The architectures that the runtime can run, and their latencies.

    Raises:
        ValueError: there are too few of them.
    """
    able: list[tuple[Architecture, LatencyMeasurement]] = []
    reasons: dict[str, int] = {}
    for arch in archs:
        try:
            able.append((arch, _measured(arch, where, meter)))
        except NotSupported as error:
            reasons[str(error)] = reasons.get(str(error), 0) + 1
    for reason, times in reasons.items():
        say(f"{times} networks left out: {reason}")
    if len(able) < FEWEST_NETWORKS:
        raise ValueError(f"{len(able)} networks could be measured; a predictor needs {FEWEST_NETWORKS} at least")
    return [arch for arch, _ in able], [measured for _, measured in able]


def _measured(arch: Architecture, where: Conditions, meter: Meter) -> LatencyMeasurement:
    deployed = build(arch, num_classes=where.num_classes, input_shape=where.input_shape, form="deploy")
    merged = meter.merged(deployed, where.merge)
    return merged.measurement or meter.measure(merged.network)[0]


def report(found: Calibration) -> Iterator[str]:
    """What a calibration found, in lines."""
    rows: Sequence[tuple[str, dict[str, float]]] = (
        ("predicted, of networks not seen", found.predictor.error),
        ("measured again (the ceiling)", agreement(found.again, found.held_out)),
    )
    yield f"{'':34}{'median error':>13}{'90 %':>8}{'Spearman':>10}{'Kendall':>9}"
    for name, each in rows:
        errors = f"{each['median_error']:>13.1%}{each['p90_error']:>8.1%}"
        yield f"{name:34}{errors}{each['spearman']:>10.3f}{each['kendall']:>9.3f}"
    span = f"{found.held_out.min():.3f} to {found.held_out.max():.3f} ms"
    covered = found.predictor.error["covered"]
    yield f"{len(found.held_out)} networks held out, {span}; {covered:.0%} in their 90 % interval"
    yield f"{CANDIDATES} candidates take {found.predict_s:.2f} s; {found.doubtful} measurements were not stable"

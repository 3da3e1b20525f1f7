"""Measuring latency: a network made ready, the lane to itself, a reference beside it, rounds until it is known."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import nn

from nas.config import LatencyConfig
from nas.config_fields import validate
from nas.cores import cores
from nas.latency.backends import backend_for
from nas.latency.conditions import timed_device
from nas.latency.lane import Lane
from nas.latency.machine import check_threads, cpu_time, device_named, lane_of, load_between
from nas.latency.measurement import LatencyMeasurement, Shape
from nas.latency.prepared import TABLE, Prepared, fastest, not_supported
from nas.latency.reference import batch_of_noise, reference, reference_name
from nas.latency.sampling import FEWEST_ROUNDS, Samples, sample, warm_up
from nas.latency.usual import Speeds, note_reading, speeds
from nas.networks.onnx_file import OnnxNetwork
from nas.networks.quantized import quantize

MOST_ATTEMPTS = 2  # at a median that can be relied on: most disturbances are bursts, or go on for minutes
FAR_OFF = 0.06  # of its usual speed: so far the reference was found to tell by how much all networks are off
IDLE_LOAD = 0.25  # cores; what a machine that does nothing else has


def measure(
    deployed: nn.Module,
    config: LatencyConfig | None = None,
    *,
    input_shape: Shape | None = None,
    device: str | None = None,
    lane: Lane | None = None,
    reference_ms: float | None = None,
) -> LatencyMeasurement:
    """Measures the latency of a network in eval mode, as it stands: pass the deploy form. It is not changed.

    While it lasts, no search on this machine trains on the device (`Lane`). What cannot be relied on, because the
    interval is too wide, others load the machine or it drifts, is measured anew while there is time, and says so.

    Args:
        deployed: takes (N, C, H, W).
        config: how; by default one image on one thread of the device's usual runtime.
        input_shape: (C, H, W); None takes the network's attribute of that name.
        device: "cpu" or "cuda", with a number or without; None takes `config.device`, and with that on auto the
            device of the network's weights.
        lane: the caller's place in the device's lane, where it has one.
        reference_ms: what the reference network usually takes on this device; None takes the median of the readings
            of all processes of this machine. Where it takes longer or shorter now, that is taken out of the latency
            (`LatencyMeasurement.scale`); by more than the tolerance, and unlike its last reading, all is measured
            anew, and flagged unless the machine is as fast then.

    Raises:
        ValueError: a backend that is not installed or cannot run the network (`NotSupported`), a device that is
            not there, sizes that cannot be.
    """
    variant = Variant(deployed, config or LatencyConfig(), input_shape)
    return measure_interleaved([variant], device=device, lane=lane, reference_ms=reference_ms)[0]


@dataclass(frozen=True)
class Variant:
    """One of several things to measure in turn: a network, how, and on images of which shape (None: its own)."""

    network: nn.Module
    config: LatencyConfig
    input_shape: Shape | None = None


def measure_interleaved(
    variants: Sequence[Variant],
    *,
    device: str | None = None,
    lane: Lane | None = None,
    reference_ms: float | None = None,
) -> list[LatencyMeasurement]:
    """Measures several networks in turn, round by round, so that the machine's mood is the same for all.

    Args:
        variants: what is measured; all on one device, with one number of threads, tolerance and limit.
        device: see `measure`, as for the rest.
        lane: see `measure`.
        reference_ms: see `measure`.

    Raises:
        ValueError: see `measure`; or configurations that cannot be interleaved.
    """
    first = variants[0].config
    own = str(next((parameter.device for parameter in variants[0].network.parameters()), "cpu"))
    where = device_named(device or (own if first.device == "auto" else first.device))
    for each in variants:
        validate(each.config, "latency.")
        alike = [(config.threads, config.tolerance, config.limit_s) for config in (each.config, first)]
        if alike[0] != alike[1]:
            raise ValueError("what is interleaved must have one number of threads, one tolerance and one limit")
    check_threads(first.threads)
    with contextlib.ExitStack() as stack:
        if where != "cpu":
            stack.enter_context(torch.cuda.device(where))  # events and graphs are those of the current device
        place = lane or Lane()
        # On a GPU, libraries choose their algorithms by timing them.
        with place.measuring(lane_of(where)) if where != "cpu" else contextlib.nullcontext():
            ready = [_prepare(stack, each, where) for each in variants]
        if all(each.prepared.clock == TABLE for each in ready):
            return [_read_off(each) for each in ready]
        beside = stack.enter_context(reference(first, where))
        name = reference_name(first, where)
        known = speeds(place.folder, name)
        usual = reference_ms or known.usual_ms
        known = known._replace(usual_ms=usual)
        last = _attempts(beside, [each.prepared for each in ready], first, (place, where), known)
    calm = last.reference
    if not _overloaded(last.load, first):
        note_reading(place.folder, name, calm.median_ms)
    scale = usual / calm.median_ms if usual and abs(calm.median_ms / usual - 1) <= FAR_OFF else 1.0
    return [
        replace(
            each.unmeasured,
            samples=samples,
            reference=calm,
            scale=scale,
            doubt=doubt,
            memory_format=way.memory_format,
            measure_s=last.measure_s,
            load=last.load,
        )
        for each, samples, way, doubt in zip(ready, last.taken, last.ways, last.doubts, strict=True)
    ]


class _Ready(NamedTuple):
    prepared: Prepared
    unmeasured: LatencyMeasurement


def _prepare(stack: contextlib.ExitStack, variant: Variant, device: str) -> _Ready:
    """A network ready to be timed, and what is known of its measurement by then."""
    started = time.perf_counter()
    config, shape = variant.config, _shape(variant.network, variant.input_shape)
    name, backend = backend_for(config, device)
    network = copy.deepcopy(variant.network).to(device).eval()
    images = batch_of_noise(shape, config.batch_size, device)
    if config.dtype == "int8" and not isinstance(network, OnnxNetwork):
        try:
            network = quantize(network, images[:1])  # the scales matter for its outputs, not for its time
        except Exception as error:  # exporter and quantizer raise their own kinds
            raise not_supported(name, error) from None
    prepared = stack.enter_context(backend.prepare(network, images, config))
    unmeasured = LatencyMeasurement(
        samples=Samples(()),
        reference=None,
        scale=1.0,
        doubt="",
        backend=name,
        version=backend.version,
        device=timed_device(config, device),
        dtype=config.dtype,
        memory_format=prepared.memory_format,
        batch_size=config.batch_size,
        threads=config.threads,
        input_shape=shape,
        clock=prepared.clock,
        prepare_s=time.perf_counter() - started,
        measure_s=0.0,
        load=None,
    )
    return _Ready(prepared, unmeasured)


def _read_off(ready: _Ready) -> LatencyMeasurement:
    """What a table says, as if it had been measured without spread."""
    return replace(ready.unmeasured, samples=Samples(((ready.prepared.time_once(),),) * FEWEST_ROUNDS))


class _Attempt(NamedTuple):
    """Samples of the reference, and of each variant as it is run; why each is not to be relied on; load and seconds."""

    reference: Samples
    taken: list[Samples]
    ways: list[Prepared]
    doubts: list[str]
    load: float | None
    measure_s: float


def _attempts(
    beside: Prepared, ready: list[Prepared], config: LatencyConfig, place: tuple[Lane, str], known: Speeds
) -> _Attempt:
    """The first attempt that leaves no doubt, or the last; with the seconds of all."""
    lane, device = place
    limit_s = config.limit_s * len(ready)
    spent_s, attempt, ways = 0.0, 1, ready
    while True:
        with lane.measuring(lane_of(device)):
            begin, started = cpu_time(), time.monotonic()
            ways = [fastest(each) for each in ways]
            times = [each.time_once for each in (beside, *ways)]
            for time_once in times:
                warm_up(time_once, config.tolerance)
            left_s = limit_s - spent_s - (time.monotonic() - started)
            calm, *taken = sample(times, config.tolerance, left_s)
            end = cpu_time()
        spent_s += end.at - begin.at
        load = load_between(begin, end)
        disturbance = _disturbance(calm, known, load, config)
        doubts = [_imprecision(samples, config, limit_s) or disturbance for samples in taken]
        # With less than half the time left, another attempt would hardly be better.
        if not any(doubts) or 2 * spent_s > limit_s or attempt == MOST_ATTEMPTS:
            return _Attempt(calm, taken, ways, doubts, load, spent_s)
        attempt, known = attempt + 1, known._replace(last_ms=calm.median_ms)


def _imprecision(samples: Samples, config: LatencyConfig, limit_s: float) -> str:
    """Why a median is not known well enough; nothing where it is."""
    if len(samples.rounds_ms) < FEWEST_ROUNDS:
        return f"only {len(samples.rounds_ms)} rounds in {limit_s:g} s (latency.limit_s)"
    if samples.width > config.tolerance:
        return f"the median is known to {samples.width:.1%} only, after {limit_s:g} s (latency.limit_s)"
    return ""


def _disturbance(reference: Samples, known: Speeds, load: float | None, config: LatencyConfig) -> str:
    """What was wrong with the machine meanwhile; nothing where all was quiet.

    A machine may be faster or slower than usual. As long as its speed is steady, which its last reading tells, the
    reference tells what it does to a latency.
    """
    if _overloaded(load, config):
        return f"other processes kept {load:.1f} of {cores()} cores busy"
    now_ms, usual, last = reference.median_ms, known.usual_ms, known.last_ms
    drift = now_ms / usual - 1 if usual else 0.0
    steady = last is not None and abs(now_ms / last - 1) <= config.tolerance
    if abs(drift) > (FAR_OFF if steady else config.tolerance):
        return f"the machine drifts: the reference network's time is {drift:+.1%} off"
    return ""


def _overloaded(load: float | None, config: LatencyConfig) -> bool:
    """Whether others kept more cores busy than the measurement left them."""
    return load is not None and load - IDLE_LOAD > cores() - config.threads


def _shape(network: nn.Module, input_shape: Shape | None) -> Shape:
    shape = getattr(network, "input_shape", None) if input_shape is None else input_shape
    if shape is None or len(shape) != 3 or not all(isinstance(size, int) and size > 0 for size in shape):
        raise ValueError(f"input_shape={shape} is not allowed; allowed: (C, H, W), all positive")
    channels, height, width = shape
    return channels, height, width

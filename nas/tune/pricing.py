"""What members of a search space cost before they are proposed: sizes exactly, latency as far as it is known."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import NamedTuple

import numpy as np
import optuna
from scipy.optimize import nnls

from nas.architecture import Architecture
from nas.block_fields import Value
from nas.job import Job
from nas.latency.memory import LatencyMemory
from nas.layers import described
from nas.limits import check_depth, check_params
from nas.networks.builder import build
from nas.networks.merging import apply_merges, merge_plan
from nas.pipeline import Known
from nas.reading import Reading, Size
from nas.samplers.candidates import Candidate
from nas.space import Choose, SearchSpace
from nas.tune.forecast import Forecast

OPTIONAL = ("peak_memory_mb", "latency_ms")  # costs that members have where they are asked for
USUAL_MS = (0.01, 1e-7)  # of a network and for each multiply-add, before any is known; only the order counts then


class _Member(NamedTuple):
    architecture: Architecture
    choices: dict[str, Value]
    size: Size


class PricedArchitectures:
    """A search space whose members have prices; see `nas.samplers.candidates.PricedSpace`.

    Parameters, multiply-adds and peak memory are counted. Latency is what was measured, else what is expected from
    other networks' layers, else (of a plugin's block that lists none) a constant and so much for each multiply-add.
    """

    def __init__(
        self, space: SearchSpace, job: Job, memory: LatencyMemory, forecast: Forecast, wanted: Container[str]
    ) -> None:
        """A space whose members have the costs that are `wanted`, parameters and multiply-adds.

        What is not asked for is left out, since samplers learn from all that a member costs: a search that weighs
        only what is counted must not depend on measurements.
        """
        self._space, self._job, self._memory, self._forecast = space, job, memory, forecast
        self._wanted = [name for name in OPTIONAL if name in wanted]
        self._met: dict[str, Reading] = {}
        self._timed: list[tuple[int, float]] = []  # multiply-adds and milliseconds

    def suggest(self, trial: optuna.trial.BaseTrial) -> Architecture:
        """Asks a trial for all choices."""
        return self._space.suggest(trial)

    def candidates(self, ways: Sequence[Choose]) -> list[Candidate | None]:
        """The members that these make, with their prices; None for what cannot be built for the images."""
        made = [self._member(choose) for choose in ways]
        priced = iter(self._priced([each for each in made if each is not None]))
        return [None if each is None else next(priced) for each in made]

    def repriced(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The same with the latencies of now."""
        members = [each.member for each in candidates if isinstance(each.member, _Member)]
        assert len(members) == len(candidates)
        return self._priced(members)

    def learn(self, arch: Architecture, macs: int, reading: Reading) -> None:
        """Takes in a measured latency."""
        self._memory.remember(arch.deploy_id, reading)
        self._forecast.learn(arch, reading)
        if reading.source != "predicted" and reading.median_ms > 0 and arch.deploy_id not in self._met:
            self._met[arch.deploy_id] = reading
            self._timed.append((macs, reading.median_ms))

    def known(self, arch: Architecture) -> Known:
        """What is known of an architecture's latency; it is predicted only where a limit may make that worth it."""
        remembered = self._memory.get(arch.deploy_id)
        predicted = not remembered and self._job.constraints
        return Known(remembered, self._forecast.predict([arch])[0] if predicted else None)

    def _member(self, choose: Choose) -> _Member | None:
        choices: dict[str, Value] = {}

        def recording(name: str, options: tuple[Value, ...]) -> Value:
            choices[name] = choose(name, options)
            return choices[name]

        try:
            arch = self._space.assemble(recording)
            return _Member(arch, choices, size_of(arch, self._job))
        except ValueError:
            return None

    def _priced(self, members: Sequence[_Member]) -> list[Candidate]:
        latencies = self._latencies(members) if "latency_ms" in self._wanted else [0.0] * len(members)
        return [self._candidate(each, ms) for each, ms in zip(members, latencies, strict=True)]

    def _candidate(self, member: _Member, latency_ms: float) -> Candidate:
        known = {"peak_memory_mb": member.size.peak_memory_mb, "latency_ms": latency_ms}
        costs = {"params": float(member.size.params), "macs": float(member.size.macs)}
        costs |= {name: known[name] for name in self._wanted}
        return Candidate(member.choices, member.architecture.arch_id, costs, member)

    def _latencies(self, members: Sequence[_Member]) -> list[float]:
        """Of what this run has met, not of all that is remembered: a repeated search is to propose the same."""
        met = [self._met.get(each.architecture.deploy_id) for each in members]
        unknown = [each.architecture for each, reading in zip(members, met, strict=True) if reading is None]
        expected = iter(self._forecast.expected_ms(unknown))
        known = [next(expected) if reading is None else reading.median_ms for reading in met]
        constant, each_mac = _affine(self._timed) if None in known else USUAL_MS
        return [
            constant + each_mac * each.size.macs if ms is None else ms for each, ms in zip(members, known, strict=True)
        ]


def size_of(arch: Architecture, job: Job) -> Size:
    """What a deploy form costs on any device, merged as far as that is known without measuring.

    Raises:
        ValueError: it cannot be built for the job's images, or is above the job's limits.
    """
    data, merge = job.data, "macs" if job.merge == "latency" else job.merge
    check_depth(arch, job.limits)
    try:
        layers, footprint = described(arch, data.num_classes, data.input_shape, merge)
    except ValueError:  # of a plugin's block that lists no layers, the network is to be built; or it cannot be
        job.check(arch)
        return counted(arch, job, merge)
    params = sum(each.params for each in layers)
    check_params(params, "deploy", job.limits)
    peak_mb = footprint.peak_mb(job.latency.batch_size, job.latency.dtype)
    return Size(params, sum(each.macs for each in layers), peak_mb)


def counted(arch: Architecture, job: Job, merge: str) -> Size:
    """The same of the network itself, merged as `merge` says.

    Raises:
        ValueError: as `size_of`.
    """
    deployed = build(arch, num_classes=job.data.num_classes, input_shape=job.data.input_shape, form="deploy")
    return job.size(apply_merges(deployed, merge_plan(deployed, merge)))


def _affine(timed: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Milliseconds of a network and for each multiply-add, neither below 0, of the least relative error."""
    if not timed:
        return USUAL_MS
    macs, ms = np.array(timed, dtype=np.float64).T
    constant, each_mac = nnls(np.column_stack([1 / ms, macs / ms]), np.ones(len(ms)))[0]
    return float(constant), float(each_mac)

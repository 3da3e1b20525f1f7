"""Whether a space has any network that keeps the constraints, found out before a run is made."""

from __future__ import annotations

from dataclasses import replace

from nas.architecture import Architecture
from nas.block_fields import Value
from nas.latency.meter import Meter
from nas.latency.prepared import NotSupported
from nas.limits import AboveLimits
from nas.pipeline import Job, Known, at_best, broken_constraint, price
from nas.reading import Cost, Reading, cost_at
from nas.space import Choices, SearchSpace, random_choose
from nas.tune.pricing import counted, size_of

MOST_PROBES = 400
MOST_TIMED_PROBES = 60  # a quarter of a minute
MOST_SWEEPS = 4
LIMIT_PROBES = 30


def check_within_limits(space: SearchSpace, job: Job) -> None:
    """Looks for a network that is within the limits: the smallest first, then with many groups, then any.

    Raises:
        ValueError: none was found; none of the space's networks may be looked at any further.
    """
    ways = (_smallest, _grouped, *(random_choose(seed) for seed in range(LIMIT_PROBES)))
    refused: AboveLimits | None = None
    for choose in ways:
        try:
            size_of(space.assemble(choose), job)
            return
        except AboveLimits as error:
            refused = refused or error
        except ValueError:  # it cannot be built for these images, as its trial will say
            return
    raise ValueError(f"space={space.name}: none of its networks that were counted can be built: {refused}")


def _smallest(name: str, options: tuple[Value, ...]) -> Value:
    return min(options, key=_size)


def _grouped(name: str, options: tuple[Value, ...]) -> Value:
    return (max if name.endswith("groups") else min)(options, key=_size)


def check_feasible(space: SearchSpace, job: Job, meter: Meter) -> None:
    """Looks for a network that keeps all constraints, by coordinate descent from the space's smallest.

    Costs fall with nearly every choice taken alone, so descent finds the cheapest network or one close to it. A
    space too large to descend in is not refused: its search finds out.

    Raises:
        ValueError: even the cheapest network that was found breaks a constraint.
    """
    if not job.constraints:
        return
    timed = any(each.name == "latency_ms" for each in job.constraints)
    most_probes = MOST_TIMED_PROBES if timed else MOST_PROBES
    choices = space.choices_made(_smallest)
    cost, excess = _probe(space.architecture(choices), job, meter, timed)
    probes = 1
    for _ in range(MOST_SWEEPS):
        before = excess
        for name in list(choices):
            options = _options(space, choices).get(name, ())
            # The smallest is where the descent begins; what helps in large (groups) helps most at its end.
            for option in {options[-1], options[0], options[len(options) // 2]} if options else ():
                if excess <= 0 or probes >= most_probes:
                    return
                if option == choices.get(name):
                    continue
                changed = _with(space, choices, name, option)
                if space.architecture(changed).deploy_id == space.architecture(choices).deploy_id:
                    continue  # what only its training feels costs the same
                new_cost, new_excess = _probe(space.architecture(changed), job, meter, timed)
                probes += 1
                if new_excess < excess:
                    choices, cost, excess = changed, new_cost, new_excess
        if excess <= 0:
            return
        if excess == before:
            break
    broken = broken_constraint(cost, job.constraints)
    raise ValueError(
        f"every network of space={space.name} breaks a constraint: {broken} even for the cheapest of {probes} that "
        "were priced"
    )


def _probe(arch: Architecture, job: Job, meter: Meter, timed: bool) -> tuple[Cost, float]:
    """The cost, and by how much it breaks the constraints, its latency at best; measured only if it is one of them.

    What the runtime cannot run breaks nothing: its trial says so, and the search goes on.
    """
    try:
        cost = price(arch, job, Known(), meter).cost if timed else _untimed(arch, job)
    except NotSupported:
        cost = _untimed(arch, job)
    cost = replace(cost, latency=at_best(cost.latency))
    costs = cost.by_name()
    return cost, sum(max(0.0, each.excess(costs)) for each in job.constraints)


def _untimed(arch: Architecture, job: Job) -> Cost:
    merge = "none" if job.merge == "latency" else job.merge
    return cost_at(counted(arch, job, merge), Reading(0.0, 0.0, 0.0, 0.0))


def _options(space: SearchSpace, choices: Choices) -> dict[str, tuple[Value, ...]]:
    met: dict[str, tuple[Value, ...]] = {}

    def choose(name: str, options: tuple[Value, ...]) -> Value:
        met[name] = options
        return choices[name]

    space.assemble(choose)
    return met


def _with(space: SearchSpace, choices: Choices, name: str, option: Value) -> dict[str, Value]:
    """Choices with one changed; choices that only now exist take their smallest option."""
    wanted = {**choices, name: option}
    return space.choices_made(
        lambda each, options: wanted[each] if wanted.get(each) in options else min(options, key=_size)
    )


def _size(option: Value) -> float:
    return float(option) if isinstance(option, int | float) else 0.0

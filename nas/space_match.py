"""From an architecture back to the choices that make it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nas.block_fields import Value
from nas.blocks import Block
from nas.choice import Choice, Shared
from nas.space_weight import Steps
from nas.stage import Stage

Demand = tuple[Choice, int, Value]  # a setting, the block's place in its stage, the value that it has to have


def encoding_of(blocks: tuple[Block, ...], stages: tuple[Stage, ...], shared: Shared) -> dict[str, Value] | None:
    """The choices under which `stages` make `blocks`, or None. `blocks` are divided by trying every depth."""
    steps = Steps("find those that make an architecture")
    dead: set[tuple[int, int, frozenset[tuple[str, Value]]]] = set()
    needed: list[set[str]] = [{c.given for c in stage.choices() if c.given} for stage in stages]
    for i in reversed(range(len(stages) - 1)):
        needed[i] |= needed[i + 1]

    def search(i: int, start: int, bound: dict[str, Value]) -> dict[str, Value] | None:
        steps.take(1, "the space")
        if i == len(stages):
            return bound if start == len(blocks) else None
        # What is bound matters to later stages only where they refer to it.
        state = (i, start, frozenset((name, value) for name, value in bound.items() if name in needed[i]))
        if state in dead:
            return None
        for depth in map(int, stages[i].depth.options):
            demands = _demands(stages[i], blocks[start : start + depth]) if start + depth <= len(blocks) else None
            for extended in _ways(stages[i].name, demands, bound, shared, steps) if demands else ():
                found = search(i + 1, start + depth, extended)
                if found is not None:
                    return found
        dead.add(state)
        return None

    found = search(0, 0, {})
    if found is None:
        return None
    # A shared choice that no block of this network asks for is free: its first option will do.
    made = {name: options[0] for name, options in shared.items()} | found
    return {name: value for name, value in made.items() if len(shared.get(name, ())) != 1}


def train_encoding_of(
    settings: tuple[tuple[str, Value], ...], options: Mapping[str, tuple[Value, ...]]
) -> dict[str, Value] | None:
    """The choices under which a space with these `options` says just these settings of a training, or None."""
    said = dict(settings)
    if said.keys() != options.keys() or any(said[name] not in options[name] for name in said):
        return None
    return {f"train.{name}": said[name] for name in options if len(options[name]) > 1}


def _demands(stage: Stage, run: tuple[Block, ...]) -> list[Demand] | None:
    """What a stage's settings have to be so that it makes these blocks, those that are given last; None: it can't."""
    demands: list[Demand] = [(stage.depth, 0, len(run))]
    for i, block in enumerate(run):
        if block.name not in stage.settings:
            return None
        settings = stage.settings[block.name]
        values = {field: getattr(block, field) for field in settings if field != "stride" or i == 0}
        # Fields that the file does not mention, and later strides, must have their defaults.
        if type(block)(**values) != block:
            return None
        demands += [(stage.block, i, block.name), *((settings[field], i, value) for field, value in values.items())]
    if any(value not in choice.options for choice, _, value in demands):
        return None
    return sorted(demands, key=lambda demand: demand[0].given is not None)


def _ways(
    stage: str, demands: list[Demand], bound: dict[str, Value], shared: Shared, steps: Steps
) -> Iterator[dict[str, Value]]:
    """`bound` with the choices that meet the demands, in every way that the shared choices they need can be made."""
    steps.take(1, stage)
    bound = dict(bound)
    for done, (choice, i, value) in enumerate(demands):
        if choice.given and choice.given not in bound:
            for option in shared[choice.given]:
                yield from _ways(stage, demands[done:], {**bound, choice.given: option}, shared, steps)
            return
        case = choice.under(bound)
        if case is None or value not in case.options or bound.get(case.name(stage, i), value) != value:
            return
        if len(case.options) > 1:
            bound[case.name(stage, i)] = value
    yield bound

"""All that a report tells of a run, gathered from what the run has written down."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.effects import choices_of, given_options, importance, marginals
from analysis.front import completed, reference_of
from analysis.load import load_run
from analysis.progress import progress
from analysis.report.images import Images, images_of, wilson
from analysis.report.timing import Timing, timing_of
from nas.architecture import Architecture
from nas.blocks import Block
from nas.config import SearchConfig, first_line
from nas.exporting.choose import WORDS
from nas.results import front_table
from nas.space_file import load_architecture, zoo_names
from nas.store import RunStore
from nas.trial import TrialRecord, records_of, unfinished


@dataclass(frozen=True)
class Pick:
    """A network of the front that a report names first.

    Attributes:
        words: what it is: best, knee, fastest.
        word: what `nas.export` calls it.
        row: of the front's table.
    """

    words: tuple[str, ...]
    word: str
    row: dict[str, Any]


@dataclass(frozen=True)
class Values:
    """What a report tells of one run.

    Attributes:
        store: the run.
        config: of its search.
        environment: as it was recorded.
        end: why the search ended; None while it has not.
        trials: as `analysis.load_run` gives them, with the columns `architecture` (lines of text), `published` (the
            name of a network of the zoo, or ""), `error_low`, `error_high`, `test_low`, `test_high` (of test
            accuracy; empty where the number of images is not known), `unfused_latency_ms`, `unfused_low_ms` and
            `unfused_high_ms`.
        front: the rows on the front, by the last objective.
        picks: of the front, the most accurate first.
        images: that accuracies are of.
        progress: see `analysis.progress`, with `share`, of the hypervolume at the end.
        importance: see `analysis.importance`.
        marginals: see `analysis.marginals`, by objective.
        common: a row a choice that varied: `choice`, `option` (the front's commonest), its shares `on_front` and
            `trained` (of completed trials); what sets the front apart most comes first.
        timing: where time went.
        reasons: how many trials ended so, and for instance which, by state and reason; completed ones have none.
        unfinished: trials that were proposed and have not ended.
    """

    store: RunStore
    config: SearchConfig
    environment: dict[str, Any]
    end: str | None
    trials: pd.DataFrame
    front: pd.DataFrame
    picks: tuple[Pick, ...]
    images: Images
    progress: pd.DataFrame
    importance: pd.DataFrame
    marginals: dict[str, pd.DataFrame]
    common: pd.DataFrame
    timing: Timing
    reasons: dict[tuple[str, str], tuple[int, int]]
    unfinished: int

    @property
    def title(self) -> str:
        """Of the report."""
        return f"{self.store.name}: space {Path(self.config.space).stem}, data {Path(self.config.data).name}"

    @property
    def objectives(self) -> list[str]:
        """Names of the run's objectives."""
        return list(self.config.objectives)


def collect(store: RunStore) -> Values:
    """The values of a run's report.

    Raises:
        ValueError: a file of the run is missing or damaged; the message names the run.
    """
    try:
        timed = store.timed_events()
        config, environment, end = store.config(), store.environment(), store.end_reason()
        store.space_text()
        records = records_of(event for event, _ in timed)
        trials = load_run(store.path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"run={store.name} is damaged: {first_line(error)}") from None
    images = images_of(environment, trials, config.metric)
    trials = _with_more(trials, records, images)
    names, done = list(config.objectives), completed(trials, config.objectives)
    front = front_table(trials, names)
    plain = done.drop(columns=MORE)
    return Values(
        store,
        config,
        environment,
        end,
        trials,
        front,
        _picks(front, names),
        images,
        _progress(trials, names),
        importance(plain, names) if len(done) else pd.DataFrame(columns=names, dtype=float),
        {name: marginals(plain, name) for name in names if len(done)},
        common(front.drop(columns=MORE), plain),
        timing_of(timed, records),
        reasons_of(records),
        len(unfinished(event for event, _ in timed)),
    )


MORE = [
    *("architecture", "published", "error_low", "error_high", "test_low", "test_high"),
    *("unfused_latency_ms", "unfused_low_ms", "unfused_high_ms"),
]


def lines_of(arch: Architecture) -> str:
    """An architecture for people: a line a part, settings at their defaults left out, equal blocks told together."""
    parts = [
        ("stem", arch.stem),
        *((f"stage {i}", stage) for i, stage in enumerate(arch.stages, 1)),
        ("head", arch.head),
    ]
    lines = [f"{name}: {_blocks(blocks)}" for name, blocks in parts if blocks]
    training = ", ".join(f"{name} {value}" for name, value in arch.train)
    return "\n".join([*lines, *([f"training: {training}"] if training else [])])


def _blocks(blocks: Sequence[Block]) -> str:
    said: list[list[Any]] = []
    for block in blocks:
        words = {each.name: getattr(block, each.name) for each in fields(block)}
        words = {each.name: words[each.name] for each in fields(block) if words[each.name] != each.default}
        text = f"{block.name} {words.pop('out_channels', '')}".strip()
        text += f" ({', '.join(f'{key} {value}' for key, value in words.items())})" if words else ""
        if said and said[-1][1] == text:
            said[-1][0] += 1
        else:
            said.append([1, text])
    return ", ".join(f"{times} x {text}" if times > 1 else text for times, text in said)


def reasons_of(records: Sequence[TrialRecord]) -> dict[tuple[str, str], tuple[int, int]]:
    """Of trials that did not complete: how many ended by each state and reason, and the first that did."""
    kinds = [((record.state.value, _reason(record.reason)), record.trial) for record in records if record.reason]
    first: dict[tuple[str, str], int] = {}
    for kind, trial in kinds:
        first.setdefault(kind, trial)
    return {kind: (times, first[kind]) for kind, times in Counter(kind for kind, _ in kinds).most_common()}


def _reason(reason: str) -> str:
    """A reason without what is each trial's own: by how much it broke a constraint."""
    return re.sub(r"^(\w+) \S+ is above ", r"\1 is above ", reason)


def common(front: pd.DataFrame, done: pd.DataFrame) -> pd.DataFrame:
    """See `Values.common`."""
    rows = []
    for choice in choices_of(done):
        trained, on_front = given_options(done, choice), given_options(front, choice)
        if len(set(trained)) > 1 and on_front:
            option = Counter(on_front).most_common(1)[0][0]
            shares = (given.count(option) / len(given) for given in (on_front, trained))
            rows.append((choice, option, *shares))
    rows.sort(key=lambda row: row[3] - row[2])
    return pd.DataFrame(rows, columns=["choice", "option", "on_front", "trained"])


def _with_more(trials: pd.DataFrame, records: Sequence[TrialRecord], images: Images) -> pd.DataFrame:
    """The trials with the columns `MORE`."""
    validated = [wilson(share, images.validation) for share in trials["accuracy"]]
    tested = [wilson(share, images.test) for share in trials["test_accuracy"]]
    nothing = (math.nan, math.nan, math.nan)
    unfused = [(r.unfused.median_ms, r.unfused.low_ms, r.unfused.high_ms) if r.unfused else nothing for r in records]
    columns = [
        [lines_of(record.architecture) for record in records],
        [_published().get(record.architecture.arch_id, "") for record in records],
        *([1 - high for _, high in validated], [1 - low for low, _ in validated]),
        *([low for low, _ in tested], [high for _, high in tested]),
        *([each[i] for each in unfused] for i in range(3)),
    ]
    more = pd.DataFrame(dict(zip(MORE, columns, strict=True)), index=trials.index)
    found = pd.concat([trials, more], axis=1)
    found.attrs.update(trials.attrs)
    return found


@cache
def _published() -> dict[str, str]:
    """The zoo's networks by their `arch_id`."""
    return {load_architecture(name).arch_id: name for name in zoo_names()}


def _picks(front: pd.DataFrame, objectives: Sequence[str]) -> tuple[Pick, ...]:
    """The most accurate network, the knee, and the fastest one, or the least by the last objective."""
    if front.empty:
        return ()
    rows = {word: WORDS[word](front, objectives) for word in ("best", "knee")}
    timed = "latency_ms" in objectives
    last = "fastest" if timed else f"least {objectives[-1]}"
    rows[last] = WORDS["fastest"](front, objectives) if timed else front.nsmallest(1, objectives[-1])
    by_trial: dict[int, list[str]] = {}
    for word, row in rows.items():
        by_trial.setdefault(int(row["trial"].iloc[0]), []).append(word)
    table = {int(row["trial"]): row for row in front.to_dict("records")}
    named = {trial: next((word for word in words if word in WORDS), str(trial)) for trial, words in by_trial.items()}
    return tuple(Pick(tuple(words), named[trial], table[trial]) for trial, words in by_trial.items())


def _progress(trials: pd.DataFrame, objectives: Sequence[str]) -> pd.DataFrame:
    done = completed(trials, objectives)
    found = progress(trials, reference_of(done, objectives) if len(done) else None, objectives)
    last = found["hypervolume"].iloc[-1] if len(found) else 0.0
    return found.assign(share=found["hypervolume"] / last if last > 0 else 0.0)

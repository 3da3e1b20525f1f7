"""What a report says, in its order."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.report.chart import Chart
from analysis.report.compared import FEWEST, Comparison
from analysis.report.part import Card, Cards, Code, Part, Pictures, Section, Table, Text
from analysis.report.values import Pick, Values
from analysis.report.words import NOT_RECORDED, any_known, duration, figure, interval, plain, time_parts
from nas.config import SearchConfig
from nas.config_fields import leaves

FRONT_COLUMNS = {
    "trial": "trial",
    "accuracy": "accuracy",
    "latency_ms": "latency ms",
    "unfused_latency_ms": "unfused ms",
    "params": "params",
    "macs": "MACs",
    "peak_memory_mb": "memory MB",
    "train_params": "train params",
}
MOST_COMMON = 15


def document(values: Values, comparison: Comparison | None, charts: Sequence[Chart]) -> list[Section]:
    """The sections of a report, those without content left out."""
    drawn = {chart.stem for chart in charts}
    sections = [
        Section("found", "What the search found", _found(values)),
        Section("front", "The front", _pictures(drawn, "front")),
        Section("progress", "How it came along", _pictures(drawn, "hypervolume_trials", "hypervolume_seconds")),
        Section("compared", "Beside other runs", _compared(comparison, drawn) if comparison else ()),
        Section("common", "What the front has in common", _common(values, charts)),
        Section("time", "Where time went", _time(values, drawn)),
        Section("failures", "How trials ended", _failures(values, drawn)),
        Section("table", "The front as a table", _table(values)),
        Section("environment", "Environment and settings", _environment(values)),
    ]
    return [section for section in sections if section.parts]


def _pictures(drawn: set[str], *stems: str) -> tuple[Part, ...]:
    known = tuple(stem for stem in stems if stem in drawn)
    return (Pictures(known),) if known else ()


def _found(values: Values) -> tuple[Part, ...]:
    states = Counter(values.trials["state"])
    trained = len(values.trials) - states["infeasible"]
    ended = (
        f"The search ended ({values.end})" if values.end else "The search has not ended: this is what there is so far"
    )
    full = f"{states['completed']:,} of them in full, {len(values.front)} on the front"
    told = f"{ended}: {trained:,} trials trained, {full}."
    if values.unfinished:
        told += f" {values.unfinished} trials had begun and not ended."
    if values.timing.search_s is not None:
        told += f" It took {duration(values.timing.search_s)}."
    if values.front.empty:
        reason = next(iter(values.reasons), None)
        why = f" The commonest reason: {reason[1]} ({reason[0]})." if reason else ""
        return (Text(told), Text(f"No trial on the front, so there is no network to name.{why}"))
    parts: list[Part] = [Text(told), Cards(tuple(_card(values, pick) for pick in values.picks))]
    return (*parts, Text(_accuracies(values)), *_doubts(values))


def _card(values: Values, pick: Pick) -> Card:
    row = pick.row
    of = {key: _of(row, key, low, high) for key, low, high in _INTERVALS}
    facts = [
        (f"validation {values.config.metric}", of["accuracy"]),
        ("test " + values.config.metric, of["test_accuracy"] or NOT_RECORDED),
        ("latency", f"{of['latency_ms']} ms" + (", doubtful" if row["latency_doubt"] else "")),
        ("unfused", f"{figure('latency_ms', row['unfused_latency_ms'])} ms" if row["unfused_latency_ms"] > 0 else ""),
        ("parameters", figure("params", row["params"])),
        ("files", _files(values, row["trial"])),
    ]
    title = f"{', '.join(pick.words)}: trial {row['trial']}"
    return Card(title, tuple((name, said) for name, said in facts if said), export_command(values, pick.word))


_INTERVALS = (
    ("accuracy", "accuracy_low", "accuracy_high"),
    ("test_accuracy", "test_low", "test_high"),
    ("latency_ms", "latency_low_ms", "latency_high_ms"),
)


def _of(row: dict[str, Any], name: str, low: str, high: str) -> str:
    """A figure with its interval."""
    ends = {**row, "accuracy_low": 1 - row["error_high"], "accuracy_high": 1 - row["error_low"]}
    within = interval(name, ends[low], ends[high])
    return figure(name, row[name]) + (f" ({within})" if within else "")


def export_command(values: Values, word: str) -> str:
    """The command that exports a network of the run."""
    store = values.store
    elsewhere = store.path.parent != Path("runs").absolute()
    folder = f" runs_dir={shlex.quote(str(store.path.parent))}" if elsewhere else ""
    return f"python -m nas.export run={store.name}{folder} trial={word}"


def _files(values: Values, trial: int, nothing: str = "none; the command below makes them") -> str:
    there = values.store.model_dir(trial).is_dir()
    return f"models/{trial}/" if there else nothing


def _accuracies(values: Values) -> str:
    images, metric = values.images, values.config.metric
    if metric != "accuracy":
        return f"{metric} is no share of images, so no interval of it is told."
    if images.validation is None:
        said = "How many validation images there were is not recorded, so no interval of accuracies is told."
    else:
        least = "at least " if images.inferred else ""
        tested = f", {least}{images.test:,} test images" if images.test else ""
        said = (
            f"Ranges of accuracies: 95 % intervals (Wilson), of {least}{images.validation:,} validation images{tested}"
        )
        said += (
            " (the least that the accuracies can be shares of; the run records no number)." if images.inferred else "."
        )
    return (
        said
        + " The best of many on few validation images is lucky: go by the test accuracy, which nothing was chosen by."
    )


def _doubts(values: Values) -> tuple[Part, ...]:
    doubtful = values.front.loc[values.front["latency_doubt"] != ""]
    if doubtful.empty or "latency_ms" not in values.objectives:
        return ()
    commonest = Counter(doubtful["latency_doubt"]).most_common(1)[0][0]
    return (
        Text(f"{len(doubtful)} of the front's {len(values.front)} latencies are doubtful, for instance: {commonest}."),
    )


def _table(values: Values) -> tuple[Part, ...]:
    if values.front.empty:
        return ()
    rows, head = [], [name for key, name in FRONT_COLUMNS.items() if any_known(values.front, key)]
    for row in values.front.to_dict("records"):
        of = {key: _of(row, key, low, high) for key, low, high in _INTERVALS}
        cells = [of.get(key) or figure(key, row[key]) for key, name in FRONT_COLUMNS.items() if name in head]
        rows.append(
            (*cells, of["test_accuracy"], row["latency_doubt"], _files(values, row["trial"], ""), row["arch_id"])
        )
    head += ["test " + values.config.metric, "doubt of the latency", "files", "arch_id"]
    plain_columns = [name for name in values.front.columns if name != "architecture"]
    csv = values.front[plain_columns].dropna(axis=1, how="all").to_csv(index=False)
    architectures = "\n\n".join(
        f"trial {row['trial']}\n{row['architecture']}" for row in values.front.to_dict("records")
    )
    return (
        Table(tuple(head), tuple(rows), left=0),
        Code(csv, fold="As CSV, with every choice, to copy"),
        Code(architectures, fold="The architectures, block by block"),
    )


def _common(values: Values, charts: Sequence[Chart]) -> tuple[Part, ...]:
    drawn = [chart.stem for chart in charts]
    parts: list[Part] = []
    if len(values.common):
        rows = [
            (row["choice"], plain(row["option"]), f"{row['on_front']:.0%}", f"{row['trained']:.0%}")
            for row in values.common.to_dict("records")
        ]
        head = ("choice", "option", "front", "all")
        parts.append(
            Text("The front's commonest option of each choice: its share on the front, and of all trained in full.")
        )
        parts.append(Table(head, tuple(rows[:MOST_COMMON]), left=2))
        if rows[MOST_COMMON:]:
            parts.append(Table(head, tuple(rows[MOST_COMMON:]), left=2, fold=f"{len(rows) - MOST_COMMON} more choices"))
    effects = tuple(stem for stem in drawn if stem == "importance" or stem.startswith("marginal_"))
    parts += [Pictures(effects)] if effects else []
    return (*parts, *_effects_table(values))


def _effects_table(values: Values) -> tuple[Part, ...]:
    if values.importance.empty:
        return ()
    names = list(values.importance.columns)
    rows = [
        (str(choice), *("" if pd.isna(share) else f"{share:.3f}" for share in row))
        for choice, row in zip(values.importance.index, values.importance.to_numpy(dtype=float), strict=True)
    ]
    return (Table(("choice", *(f"for {name}" for name in names)), tuple(rows), fold="Importance of every choice"),)


def _time(values: Values, drawn: set[str]) -> tuple[Part, ...]:
    timing = values.timing
    rows = [
        ("search, by the clock", duration(timing.search_s)),
        ("front measured again and tested", duration(timing.after_s)),
    ]
    rows += [("all trials, added up", duration(timing.trials_s))]
    rows += [(f"of these: {name}", duration(seconds)) for name, seconds in time_parts(timing)]
    said = "Pauses before a run was resumed are counted as overhead of the trials that they interrupted."
    if timing.search_s and timing.trials_s is not None:
        at_work = (timing.trials_s - timing.resting_s) / timing.search_s
        said = f"On average {at_work:.2g} trials were in work at a time. {said}"
    return (*_pictures(drawn, "time"), Table(("", "time"), tuple(rows)), Text(said)) if len(values.trials) else ()


def _failures(values: Values, drawn: set[str]) -> tuple[Part, ...]:
    states = ", ".join(f"{times:,} {state}" for state, times in Counter(values.trials["state"]).most_common())
    if not states:
        return (Text("No trial has ended."),)
    rows = [(state, reason, str(times), str(trial)) for (state, reason), (times, trial) in values.reasons.items()]
    if not rows:
        return (Text(f"{states}: none failed."),)
    table = Table(("state", "reason", "trials", "for instance trial"), tuple(rows), left=2)
    return (Text(f"{states}."), *_pictures(drawn, "reasons"), table)


def _compared(comparison: Comparison, drawn: set[str]) -> tuple[Part, ...]:
    reached = comparison.hypervolumes.set_index("run")
    rows = []
    for run in comparison.runs:
        trials = comparison.trials.loc[comparison.trials["run"] == run]
        share = f"{reached.loc[run, 'hypervolume']:.4f}" if run in reached.index else ""
        best = figure("accuracy", trials.loc[trials["state"] == "completed", "accuracy"].max())
        counts = (str(len(trials)), str((trials["state"] == "completed").sum()), str(trials["on_front"].sum()))
        rows.append((run, *counts, best, share))
    head = ("run", "trials", "in full", "on its front", "best accuracy", "hypervolume")
    parts: list[Part] = [
        Text("Hypervolumes are shares of that of all these runs' fronts together; its reference is a tenth of that "
             "front's range beyond its worst values."),
        Table(head, tuple(rows)),
    ]  # fmt: skip
    differing = comparison.differing
    if len(differing.columns):
        settings = [
            (str(run), *(str(each) for each in row))
            for run, row in zip(differing.index, differing.to_numpy(), strict=True)
        ]
        parts += [Text("Settings that differ:"), Table(("run", *differing.columns), tuple(settings), left=9)]
    parts += _tests(comparison)
    return (*parts, *_pictures(drawn, "attainment"))


def _tests(comparison: Comparison) -> list[Part]:
    if comparison.tests is None:
        fewest = f"{FEWEST} or more runs each, that differ in their seed only"
        return [Text(f"Whether searches differ is told from {fewest}; single runs differ by chance as well.")]
    columns = {"a": "a", "b": "b", "runs_a": "runs of a", "runs_b": "runs of b", "mean_a": "mean of a"}
    columns |= {"mean_b": "mean of b", "p_value": "p", "a12": "A12"}
    rows = [
        tuple(each if isinstance(each, str) else f"{each:.4g}" for each in (row[key] for key in columns))
        for row in comparison.tests.to_dict("records")
    ]
    test = "p of the two-sided Mann-Whitney U test; A12 is the chance that a run of a has more"
    return [Text(f"Hypervolumes of groups of runs: {test}."), Table(tuple(columns.values()), tuple(rows), left=2)]


def _environment(values: Values) -> tuple[Part, ...]:
    known = values.environment
    rows = [(name, _value(value)) for name, value in known.items() if not isinstance(value, dict)]
    packages = known.get("packages")
    if isinstance(packages, dict):
        rows.append(("packages", ", ".join(f"{name} {version}" for name, version in packages.items() if version)))
    parts: list[Part] = [Table(("environment", ""), tuple(rows), left=2)]
    for name in ("latency", "recipe", "images"):
        if isinstance(part := known.get(name), dict):
            title = {"latency": "Latency was measured under", "recipe": "Networks were trained by"}.get(name, name)
            parts.append(
                Table((title, ""), tuple((key, _value(value)) for key, value in part.items()), left=2, fold=title)
            )
    defaults = {key: value for key, (_, value) in leaves(SearchConfig()).items()}
    given = [(key, _value(value)) for key, (_, value) in leaves(values.config).items() if value != defaults[key]]
    parts.append(Table(("setting", "given"), tuple(given), left=2, fold="Settings that are not the defaults"))
    parts.append(Code(values.store.space_text(), fold="The search space"))
    return tuple(parts)


def _value(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)

"""The pictures of a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.front import completed
from analysis.report.chart import BLUE, GREEN, GREY, MANY, RED, Chart, Series
from analysis.report.compared import Comparison
from analysis.report.front_chart import axis_title, columns, front_chart, plain_name
from analysis.report.values import Values
from analysis.report.words import choice_words, duration, figure, shortened, time_parts
from nas.knee import logarithmic

MOST_CHOICES = 12  # in pictures; tables have all
MOST_MARGINALS = 8
MOST_OPTIONS = 12  # of a choice whose effect is drawn
MOST_ROWS = 12
MOST_CHARACTERS = 34  # of a row's name: a phone has no room for more
SEARCH_COLOURS = (RED, BLUE, GREEN)


def charts_of(values: Values, comparison: Comparison | None) -> list[Chart]:
    """All pictures that the run gives."""
    charts: list[Chart] = []
    if len(values.front):
        charts += [front_chart(values, comparison)]
        known = [
            along for along in ALONG if not values.progress[along[0]].isna().to_numpy().any()
        ]  # runs of old have no times
        charts += [progress_chart(values, comparison, *along) for along in known]
        charts += _effects(values)
    if comparison and comparison.attainment:
        charts.append(attainment_chart(values, comparison))
    if values.timing.trials_s:
        charts.append(time_chart(values))
    if values.reasons:
        charts.append(reasons_chart(values))
    return charts


ALONG = (
    ("trained", "over trials", "trials that were trained"),
    ("ended_s", "over seconds", "seconds since the run began, pauses included"),
)


def progress_chart(values: Values, comparison: Comparison | None, along: str, title: str, x_title: str) -> Chart:
    """The hypervolume that was reached, over trials or seconds."""
    tables = comparison.progress if comparison else {values.store.name: values.progress}
    series = []
    for i, (run, table) in enumerate(tables.items()):
        colour = RED if i == 0 else MANY[(i - 1) % len(MANY)]
        hover = tuple(
            f"{run}\ntrial {row['trial']}, {row['trained']} trained\n{row['share']:.1%} of the hypervolume"
            for row in table.to_dict("records")
        )
        name = run if len(tables) > 1 else ""
        series.append(Series(name, *columns(table, along, "share"), "stairs", colour, hover=hover))
    of = "of all these runs' fronts together" if len(tables) > 1 else "at the end"
    return Chart(
        f"hypervolume_{title.removeprefix('over ')}",
        f"Hypervolume {title}",
        x_title,
        f"hypervolume (share of that {of})",
        tuple(series),
        "The latest latencies, those measured again at the end, are taken for all times. The reference is a tenth of "
        "the front's range beyond its worst values; a flat end says that more trials would have bought little.",
    )


def _effects(values: Values) -> list[Chart]:
    known = values.importance.dropna(axis=1, how="all")
    if known.empty:
        return []
    order = known.max(axis=1).sort_values(ascending=False, kind="stable").index[:MOST_CHOICES]
    series = tuple(
        Series(
            name,
            tuple(known.loc[order, name]),
            tuple(i + (j - (len(known.columns) - 1) / 2) * 0.8 / len(known.columns) for i in range(len(order))),
            "bars",
            SEARCH_COLOURS[j % 3],
            size=0.8 / len(known.columns),
            hover=tuple(
                f"{choice}: {known.loc[choice, name]:.1%} of what single choices explain of {name}" for choice in order
            ),
        )
        for j, name in enumerate(known.columns)
    )
    charts = [
        Chart(
            "importance",
            "Which choices matter",
            "importance (share of what single choices explain)",
            "",
            series,
            f"Optuna's fANOVA over {len(values.progress['error'].dropna())} completed trials, by objective. Of "
            "few trials, only the first few choices are to be relied on; what only a combination of choices does is "
            "left out.",
            rows=tuple(order),
        )
    ]
    effects = [_marginal_chart(values, name, known[name].to_dict()) for name in known.columns]
    return charts + [chart for chart in effects if chart.rows]


def _marginal_chart(values: Values, name: str, importance: dict[Any, float]) -> Chart:
    table = values.marginals[name]
    ranked = sorted((choice for choice in importance if importance[choice] > 0), key=lambda each: -importance[each])
    by_choice = [table.loc[table["choice"] == choice] for choice in ranked]
    parts = [part for part in by_choice if len(part) <= MOST_OPTIONS][:MOST_MARGINALS]
    rows, series, place = [], [], 0
    for i, part in enumerate(parts):
        mean, error = part["mean"].to_numpy(dtype=float), part["standard_error"].to_numpy(dtype=float)
        rows += [choice_words(row["choice"], row["option"]) for row in part.to_dict("records")]
        hover = tuple(
            f"{choice_words(row['choice'], row['option'])}\n{row['count']} trials, mean {figure(name, row['mean'])}"
            for row in part.to_dict("records")
        )
        places = tuple(float(place + j) for j in range(len(part)))
        low, high, colour = tuple(mean - error), tuple(mean + error), (RED, BLUE)[i % 2]
        series.append(Series("", tuple(mean), places, colour=colour, hover=hover, x_low=low, x_high=high))
        place += len(part)
    done = completed(values.trials, values.objectives)
    return Chart(
        f"marginal_{name}",
        f"Each choice's effect on {plain_name(name)}",
        f"mean {axis_title(name, values)}",
        "",
        tuple(series),
        f"The choices that matter most, of those with at most {MOST_OPTIONS} options. "
        "Mean over the completed trials with each option, with its standard error (none of a single trial); the line "
        "is the mean of all. The search prefers good options of several choices at once: this tells what goes with an "
        "option, not what it does by itself.",
        rows=tuple(rows),
        line=(float(done[name].astype(float).to_numpy().mean()), "all"),
    )


def attainment_chart(values: Values, comparison: Comparison) -> Chart:
    """What a quarter, half and three quarters of repeated runs attain, by group."""
    y, x = values.objectives[:2]
    series = []
    for i, (group, table) in enumerate(comparison.attainment.items()):
        for percentile, corners in table.groupby("percentile"):
            colour = RED if i == 0 else MANY[(i - 1) % len(MANY)]
            median = percentile == 50
            name = f"{group} ({len(comparison.groups[group])} runs)" if median else ""
            series.append(Series(name, *columns(corners, x, y), "stairs", colour, thin=not median))
    everything = pd.concat(list(comparison.attainment.values()))
    return Chart(
        "attainment",
        "What repeated runs attain",
        axis_title(x, values),
        axis_title(y, values),
        tuple(series),
        "Empirical attainment surfaces of runs that differ in their seed only: what lies on the thick line or is "
        "dominated by it was reached by at least half of the runs; thin lines: a quarter, and three quarters.",
        logarithmic(everything[x].to_numpy(dtype=float)),
        logarithmic(everything[y].to_numpy(dtype=float)),
    )


def time_chart(values: Values) -> Chart:
    """Where the trials' time went."""
    parts = time_parts(values.timing)
    total = sum(seconds for _, seconds in parts)
    told = [f"{name}: {duration(seconds)}" for name, seconds in parts]
    return Chart(
        "time",
        "Where the trials' time went",
        "seconds, all trials added up",
        "",
        (_bars([s for _, s in parts], [f"{s / total:.0%}" for _, s in parts], BLUE, told),),
        "From each trial's proposal to its end; several trials run at a time, so this is more than the clock shows. "
        "Overhead is what is left: proposing, handing over, building, and waiting for a free worker.",
        rows=tuple(name for name, _ in parts),
    )


def reasons_chart(values: Values) -> Chart:
    """How often trials ended without a full training, by reason."""
    shown = list(values.reasons.items())[:MOST_ROWS]
    rows = [reason for (_, reason), _ in shown]
    more = sum(times for times, _ in values.reasons.values()) - sum(times for _, (times, _) in shown)
    return Chart(
        "reasons",
        "Trials that did not complete",
        "trials",
        "",
        (_bars([n for _, (n, _) in shown], [str(n) for _, (n, _) in shown], GREY, rows),),
        "By reason; the table tells the states." + (f" {more} more trials had other reasons." if more else ""),
        rows=tuple(shortened(row, MOST_CHARACTERS) for row in rows),
    )


def _bars(numbers: Sequence[float], labels: Sequence[str], colour: str, hover: Sequence[str]) -> Series:
    xs = tuple(float(each) for each in numbers)
    return Series(
        "", xs, tuple(map(float, range(len(xs)))), "bars", colour, size=0.7, labels=tuple(labels), hover=tuple(hover)
    )

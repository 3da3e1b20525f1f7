"""Which trials of a run are exported."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from nas.config import SearchConfig
from nas.knee import knee_of
from nas.results import front_table, trial_table
from nas.trial import TrialRecord

# Rows of a front's table, and the objectives.
WORDS: dict[str, Callable[[pd.DataFrame, Sequence[str]], pd.DataFrame]] = {
    "best": lambda front, _: front.nlargest(1, "accuracy"),
    "knee": knee_of,
    "fastest": lambda front, _: front.nsmallest(1, "latency_ms"),
    "all": lambda front, _: front,
}


def chosen(records: Sequence[TrialRecord], word: str, config: SearchConfig) -> list[TrialRecord]:
    """The trials that a word stands for: a key of `WORDS`, or a trial's number.

    Raises:
        ValueError: another word, no such trial, one that was not trained to the end, or an empty front.
    """
    by_number = {record.trial: record for record in records}
    if word.isdecimal():
        return [_trained(by_number, int(word))]
    if word not in WORDS:
        raise ValueError(f"trial={word} is not allowed; allowed: {', '.join(WORDS)} or a trial's number")
    front = front_table(trial_table(records, config), config.objectives)
    if front.empty:
        raise ValueError(f"trial={word}: the run has no front, since none of its {len(records)} trials completed")
    return [by_number[trial] for trial in WORDS[word](front, config.objectives)["trial"].tolist()]


def _trained(records: dict[int, TrialRecord], number: int) -> TrialRecord:
    completed = [trial for trial, record in records.items() if record.state.value == "completed"]
    if number in completed:
        return records[number]
    what = f"is {records[number].state.value}" if number in records else "is not there, or has not ended"
    some = ", ".join(map(str, completed[:10])) + (", ..." if len(completed) > 10 else "")
    raise ValueError(f"trial={number} {what}; allowed: best, knee, fastest, all, or one that was completed: {some}")

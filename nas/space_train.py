"""The `train` section of a space file: settings of the training that belong to the space, or are searched with it.

Keys are those of `nas.recipes.train_rules`. A plain value is fixed, a list or a range is a choice that is made once for
each network, as `train.KEY`. A value is part of the architecture (`arch_id`) and leaves no trace in its deploy form.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nas.block_fields import Value
from nas.bounded import said
from nas.recipes import NEVER_A_CHOICE, TrainOverrides, train_value
from nas.space_setting import PLAIN, distinct, raw_options, raw_section


def parse_train(words: Mapping[str, Any]) -> dict[str, tuple[Value, ...]]:
    """The options of each setting in the `train` section of a file's words.

    Raises:
        ValueError: a setting or a value that cannot be; the message names it and what is allowed.
    """
    train: dict[str, tuple[Value, ...]] = {}
    for name, raw in raw_section(words, "train").items():
        where = f"train.{said(name)}"
        options = distinct([train_value(name, option) for option in raw_options(raw, where, PLAIN)], where)
        if name in NEVER_A_CHOICE and len(options) > 1:
            raise ValueError(f"{where}: {list(options)} is not allowed; allowed: one value, it is never a choice")
        train[name] = options
    return train


def check_given(given: TrainOverrides, train: Mapping[str, tuple[Value, ...]], space: str) -> None:
    """Holds that nothing is given which the space `space` with the section `train` searches.

    Raises:
        ValueError: something is; the message names it, its value and the space's options.
    """
    for name, options in train.items():
        value = getattr(given, name)
        if value is not None and len(options) > 1:
            raise ValueError(
                f"train.{name}={value} is not allowed: space {space} searches it ({', '.join(map(str, options))}); "
                "allowed: leave it out"
            )

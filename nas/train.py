"""`python -m nas.train arch=... data=... out=DIR`: trains one architecture and leaves its files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from nas.command_line import OF_THE_PERSON, exit_code, make, settings_from_words, table_of_keys
from nas.config import TrainCommandConfig
from nas.config_fields import leaves
from nas.plugins import check_said
from nas.recipes import recipes_text
from nas.store import RunStore, run_and_trial

USAGE = """Trains one network, fuses it, and leaves both forms with their figures in a folder.

    python -m nas.train arch=zoo/resnet20 data=cifar10 out=resnet20
    python -m nas.train arch=runs/latest:12 train.epochs=60     # a trial of a run, with its data, for longer
    python -m nas.train arch=reducenet seed=3 data=photos/ metric=macro_f1  # a sample of a space

An interrupted training goes on where it was when the same command is given again.

"""


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 0, 1 if the training failed, 2 for bad input, 130 for Ctrl-C."""
    words = sys.argv[1:] if words is None else list(words)
    if not words or any(word in ("-h", "--help", "help") for word in words):
        print(f"{USAGE}{table_of_keys(TrainCommandConfig())}\n\n{recipes_text()}")
        return 0

    def act() -> None:
        config = make(_with_run(settings_from_words(words, TrainCommandConfig)), TrainCommandConfig)
        # Only now: --help and a mistyped key should not wait for torch.
        from nas.train_one import train_one

        train_one(config)

    return exit_code("nas.train", act)


def _with_run(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings, and where the architecture is a run's trial, that run's under them: data, split, recipe."""
    named = run_and_trial(str(settings.get("arch", "")))
    if named is None:
        return settings
    known = set(leaves(TrainCommandConfig())) - {"latency.calibration"}  # a network by itself is measured
    searched = RunStore.open(named[0]).config()
    check_said(searched.plugins, settings.get("plugins"), f"arch={settings['arch']}")
    return {
        key: value for key, (_, value) in leaves(searched).items() if key in known and not key.startswith(OF_THE_PERSON)
    } | settings


if __name__ == "__main__":
    sys.exit(main())

"""`python -m nas.describe arch=...`: a network's layers in both forms, side by side."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from nas.command_line import exit_code, make, settings_from_words, table_of_keys
from nas.config import DescribeConfig

USAGE = """Shows a network's layers in both forms, side by side, with receptive fields, and what was folded into what.

    python -m nas.describe arch=zoo/resnet50
    python -m nas.describe arch=zoo/mobilenet_v1 input=3x96x96 classes=10 csv=layers.csv
    python -m nas.describe arch=runs/latest:12             # a trial of a run, for its data
    python -m nas.describe arch=reducenet seed=3 input=3x32x32 merge=macs   # a sample of a space

"""


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 0, 2 for bad input, 130 for Ctrl-C."""
    words = sys.argv[1:] if words is None else list(words)
    if not words or any(word in ("-h", "--help", "help") for word in words):
        print(f"{USAGE}{table_of_keys(DescribeConfig())}")
        return 0

    def act() -> None:
        config = make(settings_from_words(words, DescribeConfig), DescribeConfig)
        # Only now: --help and a mistyped key should not wait for torch.
        from nas.description import show

        show(config)

    return exit_code("nas.describe", act)


if __name__ == "__main__":
    sys.exit(main())

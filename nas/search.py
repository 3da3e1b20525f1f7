"""`python -m nas.search key=value ...`: from a search space to a Pareto front of deployable networks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

from nas.command_line import exit_code, help_text, make_config, settings_from_words


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 0, 2 for bad input, 130 for Ctrl-C outside of the search itself."""
    words = sys.argv[1:] if words is None else list(words)
    if any(word in ("-h", "--help", "help") for word in words):
        print(help_text())
        return 0
    return exit_code("nas.search", partial(_search, words))


def _search(words: Sequence[str]) -> None:
    settings = settings_from_words(words)
    make_config(settings)
    # Only now: --help and a mistyped key should not wait for torch.
    from nas.tune.run import run_search

    run_search(**settings)


if __name__ == "__main__":
    sys.exit(main())

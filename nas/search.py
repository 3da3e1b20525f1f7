"""`python -m nas.search key=value ...`: from a search space to a Pareto front of deployable networks."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from nas.command_line import help_text, settings_from_words


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 0, 2 for bad input, 130 for Ctrl-C outside of the search itself."""
    words = sys.argv[1:] if words is None else list(words)
    if any(word in ("-h", "--help", "help") for word in words):
        print(help_text())
        return 0
    try:
        settings = settings_from_words(words)
        # Only now: --help and a mistyped key should not wait for torch.
        from nas.command_line import make_config

        make_config(settings)
        from nas.tune.run import run_search

        run_search(**settings)
    except ValueError as error:
        print(f"nas.search: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("nas.search: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

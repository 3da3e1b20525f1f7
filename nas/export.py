"""`python -m nas.export run=latest trial=best out=DIR`: a run's networks as files that others deploy."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from nas.command_line import exit_code, make, settings_from_words, table_of_keys
from nas.exporting.settings import ExportConfig

USAGE = """Exports networks of a run as verified files, each with a model card.

    python -m nas.export run=latest trial=best out=model
    python -m nas.export trial=knee formats=[onnx,onnx_int8] final.epochs=60 final.seeds=3   # trained longer first
    python -m nas.export run=mobile-cifar trial=all out=models                               # the whole front

Exit code: 0; 1 where a file is not the network that it should be; 2 for bad input; 130 for Ctrl-C, after which the same
command goes on with final trainings where they were.

"""


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    words = sys.argv[1:] if words is None else list(words)
    if any(word in ("-h", "--help", "help") for word in words):
        print(f"{USAGE}{table_of_keys(ExportConfig())}")
        return 0

    def act() -> None:
        config = make(settings_from_words(words, ExportConfig), ExportConfig)
        # Only now: --help and a mistyped key should not wait for torch.
        from nas.exporting.export_run import export_run

        export_run(config, lambda line: print(line, flush=True))

    return exit_code("nas.export", act)


if __name__ == "__main__":
    sys.exit(main())

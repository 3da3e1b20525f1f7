"""`python -m tests.fuzz_atheris PARSER [OPTIONS of libFuzzer]`: bytes by coverage; a foreign error ends it."""

import sys
import tempfile
from pathlib import Path

import atheris  # pyright: ignore[reportMissingImports]

with atheris.instrument_imports(include=["nas", "yaml", "omegaconf"]):
    from nas.architecture import architecture_from_json
    from nas.bounded import parse_json, parse_json_line, parse_yaml
    from nas.command_line import make_config, settings_from_words
    from nas.space_file import load_space
    from nas.trial import event_from_dict, records_of

FILE = Path(tempfile.mkdtemp()) / "space.yaml"


def _space(text: str) -> None:
    FILE.write_text(text, encoding="utf-8", errors="surrogateescape")
    load_space(FILE)


PARSERS = {
    "yaml": parse_yaml,
    "json": parse_json,
    "space": _space,
    "architecture": architecture_from_json,
    "event": lambda text: records_of([event_from_dict(parse_json_line(text))]),
    "words": lambda text: make_config(settings_from_words(text.split("\n"))),
}


def main() -> None:
    """Runs until libFuzzer has had enough."""
    parse = PARSERS[sys.argv.pop(1)]

    def one(data: bytes) -> None:
        try:
            parse(data.decode("utf-8", errors="surrogateescape"))
        except ValueError as error:
            assert str(error) and "\n" not in str(error), repr(error)

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

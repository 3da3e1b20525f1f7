"""`python -m nas.latency measure|calibrate|layers key=value ...`: latencies of one network, or of a space."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from nas.command_line import exit_code, make, settings_from_words, table_of_keys
from nas.config import user_path
from nas.latency.settings import CalibrateConfig, LayersConfig, MeasureConfig, TargetConfig
from nas.plugins import import_plugins

USAGE = """Measures the latency of networks as they ship, and calibrates predictors of it.

    python -m nas.latency measure arch=zoo/mobilenet_v2 input=3x224x224 classes=1000
    python -m nas.latency calibrate space=mobile
    python -m nas.latency layers space=tiny out=layers.csv
"""
COMMANDS: dict[str, type[TargetConfig]] = {
    "measure": MeasureConfig,
    "calibrate": CalibrateConfig,
    "layers": LayersConfig,
}


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 0, 2 for bad input, 130 for Ctrl-C."""
    command, *rest = (sys.argv[1:] if words is None else list(words)) or ["help"]
    if command in ("-h", "--help", "help") or any(word in ("-h", "--help", "help") for word in rest):
        print(USAGE)
        for name, schema in COMMANDS.items():
            print(f"{name}:\n{table_of_keys(schema())}\n")
        return 0
    return exit_code("nas.latency", partial(_run, command, rest))


def _run(command: str, words: Sequence[str]) -> None:
    if command not in COMMANDS:
        raise ValueError(f"{command!r} is not a command; allowed: {', '.join(COMMANDS)}")
    config = make(settings_from_words(words, COMMANDS[command]), COMMANDS[command])
    import_plugins(config.plugins)
    # Only now: --help and a mistyped key should not wait for torch.
    from nas.latency.commands import run_calibrate, run_layers, run_measure

    if isinstance(config, CalibrateConfig):
        run_calibrate(config, _out(config))
    elif isinstance(config, LayersConfig):
        run_layers(config, user_path("out", config.out))
    elif isinstance(config, MeasureConfig):
        run_measure(config)


def _out(config: CalibrateConfig) -> Path:
    if config.out is not None:
        return user_path("out", config.out)
    return Path("runs") / ".latency" / f"calibration-{Path(config.space).stem}.json"


if __name__ == "__main__":
    sys.exit(main())

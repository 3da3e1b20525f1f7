"""Files as another person might send them: what the repository holds, changed at random, and what reads them."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

import nas.command_line as command_line
from nas.architecture import architecture_from_dict, architecture_from_json
from nas.config import DescribeConfig, SearchConfig, TrainCommandConfig
from nas.exporting.settings import ExportConfig
from nas.latency.conditions import Conditions
from nas.latency.memory import LatencyMemory
from nas.latency.predictor import load_predictor
from nas.latency.table import read_table
from nas.limits import check_deploy_form
from nas.results import trial_table
from nas.space_file import load_architecture, load_space
from nas.store import RunStore
from nas.trial import event_from_dict, records_of

REPOSITORY = Path(__file__).parents[1]
RUN = REPOSITORY / "analysis" / "example"
SPACES = sorted((REPOSITORY / "search_spaces").glob("**/*.yaml"))
CONFIGS = (SearchConfig, TrainCommandConfig, DescribeConfig, ExportConfig)
WHERE = Conditions("a device", "a runtime", "float32", 1, 1, "contiguous", (1, 8, 8), 10, "macs")
IMAGES = (10, (3, 32, 32))

# What somebody may write where something else is expected.
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, -(10**30), 10**400, 10**5000, 0.5, -0.0, 1e308, 1e-320),
    *(
        float("nan"),
        float("inf"),
        -float("inf"),
        "",
        " ",
        "none",
        "null",
        "\0",
        "a\nb",
        "\ud800",
        "\x1b[31m",
        "é" * 300,
    ),
    *("../../etc/passwd", "/etc/passwd", "~", "~nobody/x", "${oc.env:HOME}", "${nope}", "???", "1e400", "x" * 100_000),
    *([], {}, [[]], [{}], {"": None}, {"given": "x"}, {"from": 1, "to": 10**12, "step": 1}, {"per_block": []}),
    *({"shared": "width", "times": 1e300}, {"block": "conv"}, {1: 2}, ["conv", "conv"], [1, 1.0, True], b"bytes"),
    {"from": 1, "to": 9999, "step": 1},
    ["conv", "reduce", "basic", "bottleneck", "dense", "fire", "pool", "xception", "inception", "transition"],
)
PIECES = (
    "{",
    "[",
    "&a ",
    "*a",
    "!!python/object/apply:os.system [x]",
    "<<: *a",
    "\t",
    "\r",
    "\n- ",
    ": ",
    "'",
    '"',
    "|",
    "%",
)


def nested(levels: int) -> Any:
    """Lists in one another."""
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


def changed(value: Any, rng: random.Random) -> Any:
    """The same value with one to four changes somewhere in it."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 2, 4))):
        value = _changed_once(value, rng)
    return value


def _changed_once(value: Any, rng: random.Random) -> Any:
    inner = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    if not inner or rng.random() < 0.1:
        return nested(rng.choice((5, 60, 3000))) if rng.random() < 0.05 else copy.deepcopy(rng.choice(ODD))
    at, what = rng.choice(inner), rng.random()
    if what < 0.6:
        value[at] = _changed_once(value[at], rng)
    elif what < 0.7:
        del value[at]
    elif what < 0.8 and isinstance(value, list):
        value[at:at] = [value[at]] * rng.choice((1, 2, 500))
    elif isinstance(value, dict):
        key = rng.choice([each for each in ODD if not isinstance(each, list | dict)] + inner)
        value[key] = value.pop(at) if what < 0.9 else copy.deepcopy(rng.choice(ODD))
    else:
        value.insert(rng.randrange(len(value) + 1), copy.deepcopy(rng.choice(ODD)))
    return value


def spoilt(text: str, rng: random.Random) -> str:
    """The same text with pieces cut out, put in or repeated."""
    for _ in range(rng.choice((1, 1, 2, 5))):
        at, end = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        what = rng.random()
        if what < 0.3:
            text = text[:at] + text[min(end, at + 20) :]
        elif what < 0.7:
            text = text[:at] + rng.choice((*PIECES, *map(_word, ODD))) + text[at:]
        elif what < 0.8:
            text = (
                text[:at]
                + rng.choice(("[", "{a: ", "- ", "9", "x: 1\n", "'")) * rng.choice((10, 1000, 20_000))
                + text[at:]
            )
        else:
            text = text[:end] + text[at:]
    return text


def _word(value: Any) -> str:
    try:
        return str(value)
    except ValueError:  # more digits than Python writes
        return "9" * 5000


def as_json(value: Any) -> str:
    """JSON of any value, where Python can write it, which is YAML too; else its repr."""
    try:
        return json.dumps(value, default=repr)
    except (ValueError, TypeError, RecursionError):
        return _repr(value)


def _repr(value: Any) -> str:
    try:
        return repr(value)
    except (ValueError, RecursionError):
        return "[" * 3000


def _write(file: Path, text: str) -> Path:
    file.write_bytes(text.encode("utf-8", errors="surrogatepass"))
    return file


# --- what reads them: given a folder of its own and a source of chance, each reads one file that it has spoilt


def read_space(folder: Path, rng: random.Random) -> None:
    """A space, all that is counted of it, and a network of it."""
    text = rng.choice(SPACES).read_text(encoding="utf-8")
    text = spoilt(text, rng) if rng.random() < 0.5 else as_json(changed(yaml.safe_load(text), rng))
    space = load_space(_write(folder / "space.yaml", text))
    assert space.size > 0
    arch = space.sample(rng.randrange(1000))
    space.contains(arch)
    check_deploy_form(arch, *IMAGES, SearchConfig().limits)


def read_extension(folder: Path, rng: random.Random) -> None:
    """A space that extends another one."""
    words = {
        "extends": rng.choice(["mobile", "resnet", "zoo/mobilenet_v2", "base.yaml"]),
        "choices": {"width": [1, 2], "late": None},
        "stages": {"all": {"kernel_size": [3, 5]}, 1: {"depth": {"from": 1, "to": 3}}, 2: None},
        "train": {"epochs": 3, "learning_rate": [0.1, 0.2]},
    }
    _write(folder / "base.yaml", rng.choice(SPACES).read_text(encoding="utf-8"))
    load_space(_write(folder / "space.yaml", as_json(changed(words, rng))))


def read_architecture(folder: Path, rng: random.Random) -> None:
    """An architecture, from a file and from words, and what it is made of."""
    arch = load_space(rng.choice(SPACES)).sample(rng.randrange(1000))
    words = changed(arch.to_dict(), rng)
    arch = architecture_from_dict(words)
    assert arch.arch_id and arch.deploy_id
    check_deploy_form(arch, *IMAGES, SearchConfig().limits)
    text = spoilt(as_json(words), rng)
    (architecture_from_json if rng.random() < 0.5 else lambda t: load_architecture(_write(folder / "a.json", t)))(text)


def read_events(folder: Path, rng: random.Random) -> None:
    """A run: its events, records, table and all else that it has."""
    run = folder / "run"
    run.mkdir(exist_ok=True)
    for name in ("config.yaml", "environment.json", "end.json", "space.yaml"):
        text = (RUN / name).read_text(encoding="utf-8")
        _write(run / name, spoilt(text, rng) if rng.random() < 0.2 else text)
    lines = (RUN / "events.jsonl").read_text(encoding="utf-8").splitlines()
    first = rng.randrange(len(lines) - 60)
    lines = lines[first : first + 60]
    for _ in range(rng.choice((1, 3))):
        at = rng.randrange(len(lines))
        intact = json.loads(rng.choice(_LINES))
        lines[at] = as_json(changed(intact, rng)) if rng.random() < 0.7 else spoilt(lines[at], rng)
    _write(run / "events.jsonl", "\n".join(lines) + rng.choice(("\n", "")))
    store = RunStore.open(run)
    records = store.records()
    store.end_times()
    trial_table(records, store.config())
    store.environment(), store.end_reason(), store.space_text()
    load_space(run / "space.yaml")


def read_event(folder: Path, rng: random.Random) -> None:
    """One event, as words."""
    line = rng.choice(_LINES)
    records_of([event_from_dict(changed(json.loads(line), rng))])


_LINES = (RUN / "events.jsonl").read_text(encoding="utf-8").splitlines()


def read_latencies(folder: Path, rng: random.Random) -> None:
    """A table of layers, a calibration file, and latencies that are remembered."""
    table = "layer,latency_ms\nnetwork,0.01\nconv 1-8 3x3 on 8x8,0.002\n"
    calibration = {
        "version": 1,
        "features": 3,
        "conditions": {**WHERE.__dict__},
        "error": {"median_error": 0.1},
        "regression": {"features": [[1.0, 2.0]] * 12, "latency_ms": [1.0] * 12, "log_theta": [0.0], "ms_theta": [0.0]},
    }
    line = {
        "key": {"deploy_id": "x", **WHERE.__dict__},
        "reading": {"median_ms": 1.0, "iqr_ms": 0.1, "low_ms": 1, "high_ms": 1},
    }
    memory = folder / ".latency"
    memory.mkdir(exist_ok=True)
    _write(memory / "latencies.jsonl", as_json(changed(line, rng)) + "\n" + spoilt(as_json(line), rng))
    LatencyMemory(folder, WHERE, 0.02)
    if rng.random() < 0.5:
        read_table(_write(folder / "table.csv", spoilt(table, rng)))
    load_predictor(_write(folder / "calibration.json", as_json(changed(calibration, rng))), WHERE)


def read_words(folder: Path, rng: random.Random) -> None:
    """A command line, and a file of settings."""
    schema = rng.choice(CONFIGS)
    keys = list(command_line.leaves(schema()))
    words = [f"{rng.choice(keys)}={spoilt(_word(rng.choice(ODD)), rng)[:2000]}" for _ in range(rng.choice((1, 2, 4)))]
    if rng.random() < 0.3:
        file = _write(folder / "config.yaml", spoilt((RUN / "config.yaml").read_text(encoding="utf-8"), rng))
        words.append(f"config={file}")
    if rng.random() < 0.2:
        words = [spoilt(word, rng) for word in words]
    printed = io.StringIO()

    def act() -> None:
        command_line.make(command_line.settings_from_words(words, schema), schema)

    with contextlib.redirect_stderr(printed):
        assert command_line.exit_code("fuzzed", act) in (0, 2)
    assert printed.getvalue().count("\n") <= 1
    act()


READERS: tuple[Callable[[Path, random.Random], None], ...] = (
    *(read_space, read_extension, read_architecture, read_events, read_event, read_latencies, read_words),
)


def refusal(reader: Callable[[Path, random.Random], None], folder: Path, seed: int) -> str | None:
    """What a reader says of what it has spoilt; None if it takes it. Whatever else it raises goes through."""
    try:
        reader(folder, random.Random(seed))
    except ValueError as error:
        assert not isinstance(error, UnicodeError), repr(error)
        message = str(error)
        assert message and "\n" not in message and len(message) < 5000, message[:2000]
        return message
    return None

"""A table of every member of a small search space, trained: what `analysis.bench_search` searches.

    python -m analysis.make_table space=tiny data=digits "epochs=[4,16]" out=tiny_digits.parquet

Every member is trained for each number of epochs, each time with a full schedule of its own, by searches that end when
the space is exhausted. The table has a row for every combination of the space's choices; combinations that make the
same network (of choices that it does not have) share its figures. Columns: the choices, `arch_id`, `params`, `macs`,
`peak_memory_mb`, `latency_ms`, and for each number of epochs `val_accuracy_epN` and `train_s_epN`.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from omegaconf import MISSING

from analysis.command import run_command
from analysis.load import load_run
from analysis.settings import from_words
from nas.block_fields import Value
from nas.config import first_line
from nas.space import SearchSpace
from nas.space_file import load_space

COSTS = ("params", "macs", "peak_memory_mb", "latency_ms")
MOST_SIZE = 2_000  # encodings; each is trained
FILES = (".parquet", ".csv")


@dataclass(frozen=True)
class Settings:
    """What the command line may say.

    Attributes:
        space: a small search space.
        data: data set, see nas.search.
        data_root: where its files are.
        epochs: of the trainings, each a column.
        seed: of split and trainings.
        more: further words for nas.search, e.g. "[val_share=0.1]".
        out: .parquet or .csv; must not exist.
    """

    space: str = "tiny"
    data: str = "digits"
    data_root: str = "~/.cache/nas-data/images"
    epochs: tuple[int, ...] = (16,)
    seed: int = 0
    more: tuple[str, ...] = ()
    out: str = MISSING


def options_of(space: SearchSpace) -> dict[str, tuple[Value, ...]]:
    """The options of each choice of a space, whichever members have it."""
    met: dict[str, tuple[Value, ...]] = {}
    for choices in space.enumerate():

        def choose(name: str, options: tuple[Value, ...], choices: dict[str, Value] = choices) -> Value:
            met[name] = options
            return choices[name]

        space.assemble(choose)
    return met


def combinations(space: SearchSpace) -> Iterator[tuple[dict[str, Value], str]]:
    """Every combination of options, with the `arch_id` of what it makes."""
    options = options_of(space)
    for combination in itertools.product(*options.values()):
        choices = dict(zip(options, combination, strict=True))
        yield choices, space.assemble(lambda name, given, choices=choices: choices[name]).arch_id


def judged(settings: Settings, space: SearchSpace, epochs: int, runs_dir: Path) -> pd.DataFrame:
    """The trials of a search through the whole space.

    Raises:
        ValueError: settings that cannot be.
    """
    run = f"epochs-{epochs}"
    words = {
        "space": settings.space,
        "data": settings.data,
        "data_root": settings.data_root,
        "seed": settings.seed,
        "budget": space.size,
        "sampler": "random",
        "runs_dir": runs_dir,
        "run": run,
        "train.epochs": epochs,
    }
    run_command("nas.search", [*(f"{key}={value}" for key, value in words.items()), *settings.more])
    return load_run(runs_dir / run)


def make(settings: Settings) -> pd.DataFrame:
    """The table.

    Raises:
        ValueError: settings that cannot be followed, or a space that is too large.
    """
    out, space = Path(settings.out).expanduser(), load_space(settings.space)
    if out.suffix not in FILES or out.exists() or not out.parent.is_dir():
        raise ValueError(f"out={out} is not allowed; allowed: a new file that ends in {' or '.join(FILES)}")
    if not settings.epochs or min(settings.epochs) < 1:
        raise ValueError(f"epochs={list(settings.epochs)} is not allowed; allowed: one or more numbers from 1 on")
    if space.size > MOST_SIZE:
        raise ValueError(f"space={settings.space} has {space.size:,} encodings; allowed: at most {MOST_SIZE:,}")
    rows = list(combinations(space))
    table = pd.DataFrame([choices for choices, _ in rows])
    table["arch_id"] = [arch_id for _, arch_id in rows]
    with tempfile.TemporaryDirectory() as folder:
        for place, epochs in enumerate(sorted(set(settings.epochs))):
            trials = judged(settings, space, epochs, Path(folder))
            columns = {each: each for each in ("arch_id", *(COSTS if place == 0 else ()))}
            columns |= {"accuracy": f"val_accuracy_ep{epochs}", "train_s": f"train_s_ep{epochs}"}
            figures = pd.DataFrame({name: trials[column] for column, name in columns.items()})
            table = table.merge(figures, on="arch_id", how="left", validate="many_to_one")
    if out.suffix == ".csv":
        table.to_csv(out, index=False)
    else:
        table.to_parquet(out, index=False)
    return table


def main() -> int:
    """Makes the table of the command line; 2 for what it cannot follow, said in one line."""
    try:
        settings = from_words(sys.argv[1:], Settings)
        table = make(settings)
    except (ValueError, OSError) as error:
        print(f"analysis.make_table: {first_line(error)}", file=sys.stderr)
        return 2
    print(
        f"{settings.out}: {len(table)} rows, {table['arch_id'].nunique()} distinct; columns {', '.join(table.columns)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

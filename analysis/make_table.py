"""A table of every member of a small search space, trained: what `analysis.bench_search` searches.

    python -m analysis.make_table space=tiny data=digits
    python -m analysis.make_table space=tiny data=digits "epochs=[4,16]" out=tiny_digits.parquet

Every member is trained for each number of epochs, each time with a full schedule of its own, by searches that end when
the space is exhausted. Their runs are kept beside the table (tiny_digits-runs/); the same command continues them where
it was broken off. The table has a row for every combination of the space's choices; combinations that make the
same network (of choices that it does not have) share its figures. Columns: the choices, `arch_id`, `params`, `macs`,
`peak_memory_mb`, `latency_ms`, and for each number of epochs `val_accuracy_epN` and `train_s_epN`.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.command import run_command
from analysis.load import load_run
from analysis.settings import from_words, new_file
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
        out: .parquet or .csv; must not exist; default: SPACE_DATA.csv.
    """

    space: str = "tiny"
    data: str = "digits"
    data_root: str = "~/.cache/nas-data/images"
    epochs: tuple[int, ...] = (16,)
    seed: int = 0
    more: tuple[str, ...] = ()
    out: str | None = None

    @property
    def file(self) -> Path:
        """The table."""
        return Path(self.out or f"{Path(self.space).stem}_{Path(self.data).stem}.csv").expanduser()


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
    """The trials of a search through the whole space, which continues one that was begun.

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
    resumed = ["resume=true"] if (runs_dir / run).exists() else []
    run_command("nas.search", [*(f"{key}={value}" for key, value in words.items()), *settings.more, *resumed])
    return load_run(runs_dir / run)


def for_files(table: pd.DataFrame) -> pd.DataFrame:
    """A table with columns of several types, which parquet does not know, as text."""
    mixed = [name for name in table if len({type(each) for each in table[name]}) > 1 and table[name].dtype == object]
    return table.astype(dict.fromkeys(mixed, str))


def make(settings: Settings) -> pd.DataFrame:
    """The table.

    Raises:
        ValueError: settings that cannot be followed, or a space that is too large.
    """
    out, space = new_file(settings.file, *FILES), load_space(settings.space)
    if not settings.epochs or min(settings.epochs) < 1:
        raise ValueError(f"epochs={list(settings.epochs)} is not allowed; allowed: one or more numbers from 1 on")
    if space.size > MOST_SIZE:
        raise ValueError(f"space={settings.space} has {space.size:,} encodings; allowed: at most {MOST_SIZE:,}")
    rows = list(combinations(space))
    table = pd.DataFrame([choices for choices, _ in rows])
    table["arch_id"] = [arch_id for _, arch_id in rows]
    for place, epochs in enumerate(sorted(set(settings.epochs))):
        trials = judged(settings, space, epochs, out.with_name(f"{out.stem}-runs"))
        columns = {each: each for each in ("arch_id", *(COSTS if place == 0 else ()))}
        columns |= {"accuracy": f"val_accuracy_ep{epochs}", "train_s": f"train_s_ep{epochs}"}
        figures = pd.DataFrame({name: trials[column] for column, name in columns.items()})
        table = table.merge(figures, on="arch_id", how="left", validate="many_to_one")
    table = for_files(table)
    if out.suffix == ".csv":
        table.to_csv(out, index=False)
    else:
        table.to_parquet(out, index=False)
    return table


def main() -> int:
    """Makes the table of the command line; 2 for what it cannot follow, 130 for Ctrl-C, said in one line."""
    try:
        settings = from_words(sys.argv[1:], Settings)
        table = make(settings)
    except (ValueError, OSError) as error:
        print(f"analysis.make_table: {first_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("analysis.make_table: interrupted; the same command goes on where it was", file=sys.stderr)
        return 130
    print(
        f"{settings.file}: {len(table)} rows, {table['arch_id'].nunique()} distinct; columns {', '.join(table.columns)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

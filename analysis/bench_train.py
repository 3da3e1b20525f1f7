"""How fast networks are trained here: our loop, a plain PyTorch loop, and what no loop can beat, in turn.

    python -m analysis.bench_train out=train.csv

`ours` is `nas.training` as trials run it: shuffling, augmentation, schedule and all. `tutorial` is the loop of
PyTorch's own tutorials: a Dataset of pictures, torchvision's transforms (crop with padding, flip, to tensor,
normalize), a DataLoader with workers and pinned memory, float32, the loss read in every step; its workers are kept
from epoch to epoch, which is kinder to it. `bare` is forward, backward and step on one normalized batch that never
changes, without augmentation, in the precision and layout of `ours`: the limit. The three take turns, one round each,
each in its own process, and ratios are medians of the rounds' ratios. Pictures are random: speed does not depend on
them.

Then 1, 2, 4 and 8 trainings at a time, each in a process of its own with its share of the cores or of the GPU's memory:
images a second of all together.
"""

from __future__ import annotations

import contextlib
import csv
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, fields
from multiprocessing.connection import Connection

import torch

from analysis.settings import from_words, new_file
from analysis.train_contestants import CONTESTANTS, Settings, network_of, ours
from nas.config import first_line
from nas.cores import cores
from nas.training.allocator import keep_freed_memory
from nas.training.precision import training_dtype

PATIENCE_S = 20.0  # for a process to end


@dataclass(frozen=True)
class Row:
    """One round of one contestant; `concurrent` trainings at a time."""

    network: str
    contestant: str
    concurrent: int
    round: int
    images_per_s: float


def in_turn(name: str, settings: Settings) -> Iterator[Row]:
    """The contestants round by round, each in a process of its own: the allocator of `ours` must not help others."""
    running = {contestant: Started(_take_turns, contestant, name, settings) for contestant in CONTESTANTS}
    try:
        for each in running.values():
            each.pipe.recv()  # its first turn, which does not count
        for number in range(settings.rounds):
            for contestant, each in running.items():
                each.pipe.send("go")
                yield Row(name, contestant, 1, number, settings.steps * settings.batch_size / each.pipe.recv())
    finally:
        for each in running.values():
            each.end()


class Started:
    """A process with a pipe to it."""

    def __init__(self, target: Callable[..., None], *args: object) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=target, args=(*args, theirs))
        self.process.start()
        theirs.close()  # else nobody would notice that the process is gone

    def end(self) -> None:
        """Ends the process, which waits for the next word."""
        self.pipe.close()
        self.process.join(PATIENCE_S)
        self.process.terminate()


def _take_turns(contestant: str, name: str, settings: Settings, pipe: Connection) -> None:
    """One contestant: takes a turn whenever it is told to, and says how many seconds it took."""
    if contestant != "tutorial":
        keep_freed_memory()
    turn = CONTESTANTS[contestant](name, settings)
    with contextlib.suppress(EOFError):
        while True:
            pipe.send(_timed(lambda: next(turn), settings.device))
            pipe.recv()


def together(name: str, count: int, settings: Settings) -> Row:
    """So many trainings at a time, each in its process: images a second of all of them."""
    trainings = [Started(_train, name, count, settings) for _ in range(count)]
    try:
        for each in trainings:
            each.pipe.recv()  # it is warm
        for each in trainings:
            each.pipe.send("go")
        seconds = max(each.pipe.recv() for each in trainings)
    finally:
        for each in trainings:
            each.end()
    images = count * settings.rounds * settings.steps * settings.batch_size
    return Row(name, "together", count, 0, images / seconds)


def _train(name: str, count: int, settings: Settings, pipe: Connection) -> None:
    """One of several trainings: says when it is warm, and how many seconds it took from then on."""
    torch.set_num_threads(max(1, cores() // count))
    keep_freed_memory()
    if settings.device == "cuda":
        torch.cuda.set_per_process_memory_fraction(1 / count)
    turn = ours(name, settings)
    next(turn)
    pipe.send("warm")
    pipe.recv()
    rounds = settings.rounds
    pipe.send(_timed(lambda: [next(turn) for _ in range(rounds)], settings.device))


def _timed(act: Callable[[], object], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    act()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def report(rows: list[Row]) -> list[str]:
    """Lines for people: medians, and medians of the rounds' ratios."""
    lines = []
    for name in dict.fromkeys(row.network for row in rows):
        rates = {
            each: [row.images_per_s for row in rows if (row.network, row.contestant, row.concurrent) == (name, each, 1)]
            for each in CONTESTANTS
        }
        medians = ", ".join(f"{each} {statistics.median(found):,.0f}" for each, found in rates.items())
        lines.append(f"{name}: images/s {medians}")
        for other in ("bare", "tutorial"):
            ratios = [a / b for a, b in zip(rates["ours"], rates[other], strict=True)]
            low, high = min(ratios), max(ratios)
            lines.append(f"    ours / {other}: {statistics.median(ratios):.2f}  ({low:.2f} to {high:.2f})")
    return lines


def main() -> int:
    """Runs the benchmark of the command line and prints its ratios; 2 for bad input."""
    try:
        settings = from_words(sys.argv[1:], Settings)
        for key in ("side", "batch_size", "steps", "rounds"):
            if getattr(settings, key) < 1:
                raise ValueError(f"{key}={getattr(settings, key)} is not allowed; allowed: 1 and more")
        for name in settings.networks:
            training_dtype(settings.precision, settings.device, network_of(name, settings))
        out = new_file(settings.out)
    except (ValueError, OSError) as error:
        print(f"analysis.bench_train: {first_line(error)}", file=sys.stderr)
        return 2
    rows: list[Row] = []
    with out.open("x", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([field.name for field in fields(Row)])
        for name in settings.networks:
            for row in in_turn(name, settings):
                rows.append(row)
                writer.writerow(astuple(row))
                file.flush()
        print("\n".join(report(rows)), flush=True)
        for name in settings.networks:
            alone = None
            for count in settings.concurrent:
                row = together(name, count, settings)
                writer.writerow(astuple(row))
                file.flush()
                alone = alone or row.images_per_s
                rate = f"{row.images_per_s:,.0f} images/s together, {row.images_per_s / alone:.2f} of the first"
                print(f"{name}, {count} at a time: {rate}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

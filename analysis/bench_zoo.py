"""Whether a search beats published networks: at equal fused latency, with the same recipe, epochs and device.

    python -m analysis.bench_zoo data=fashion_mnist epochs=1 budget=60 out=DIR

The references are networks of the zoo, their channels times a width multiplier (rounded as MobileNet does it), their
strides as everywhere for small images. Each is trained with several seeds. Then the space is searched under the latency
of the slowest reference. For each reference the finalist is the network of the run's front that is at most as slow
(fused, as measured at the end of the run) and has the best validation accuracy; it is trained anew with several seeds
that the search did not have, as the references are: the best of a search's noisy trials is lucky. What is compared is
the accuracy on the test data, which neither the search nor the choice has seen.

Everything is left in `out`; given again, the command goes on where it was.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.command import run_command
from analysis.load import load_run
from analysis.settings import from_words
from nas.architecture import Architecture
from nas.blocks import Block, round_channels
from nas.config import first_line
from nas.space_file import load_architecture

SCALED = ("out_channels", "hidden_features")
RUN = "search"


@dataclass(frozen=True)
class Settings:
    """What the command line may say.

    Attributes:
        data: data set, see nas.search.
        data_root: where its files are.
        space: what is searched.
        references: networks of the zoo.
        widths: multipliers of their channels.
        epochs: of every training.
        budget: trials of the search.
        seeds: trainings of each reference and finalist.
        val_share: of the training images.
        processes: trainings at a time, each with one thread (on a GPU: sharing it).
        more: further words for nas.train and nas.search, e.g. "[train.batch_size=256]".
        out: folder of all that is trained.
    """

    data: str = "fashion_mnist"
    data_root: str = "~/.cache/nas-data/images"
    space: str = "mobile"
    references: tuple[str, ...] = ("mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2")
    widths: tuple[float, ...] = (0.25, 0.5)
    epochs: int = 1
    budget: int = 60
    seeds: int = 3
    val_share: float = 0.1
    processes: int = 2
    more: tuple[str, ...] = ()
    out: str = "runs/zoo"


def widened(arch: Architecture, factor: float) -> Architecture:
    """The architecture with its channels times `factor`."""

    def changed(block: Block) -> Block:
        values = {name: getattr(block, name, 0) for name in SCALED}
        wider = {name: round_channels(value * factor) for name, value in values.items() if value}
        return dataclasses.replace(block, **wider)

    return arch.with_blocks(changed)


def train_all(networks: dict[str, str], seeds: range, settings: Settings) -> pd.DataFrame:
    """Trains each network with each seed, several at a time; a row for each training, by name and seed."""
    jobs = [(name, arch, seed) for seed in seeds for name, arch in networks.items()]
    with ThreadPoolExecutor(settings.processes) as pool:
        found = list(pool.map(lambda job: _train(job[0], job[1], job[2], settings), jobs))
    return pd.DataFrame(found)


def _train(name: str, arch: str, seed: int, settings: Settings) -> dict[str, Any]:
    out = Path(settings.out).expanduser() / "trained" / f"{name}-{seed}"
    if not (out / "metrics.json").exists():
        run_command("nas.train", [f"arch={arch}", f"out={out}", f"seed={seed}", "threads=1", *_words(settings)])
    metrics = json.loads((out / "metrics.json").read_text())
    told = {key: metrics[key] for key in ("val_accuracy", "test_accuracy", "latency_ms", "params", "macs", "train_s")}
    return {"name": name, "seed": seed, **told}


def _words(settings: Settings) -> list[str]:
    return [
        f"data={settings.data}",
        f"data_root={settings.data_root}",
        f"val_share={settings.val_share}",
        f"train.epochs={settings.epochs}",
        *settings.more,
    ]


def search(settings: Settings, latency_ms: float) -> pd.DataFrame:
    """The trials of the search under a latency, begun or continued."""
    folder = Path(settings.out).expanduser()
    if not (folder / RUN / "end.json").exists():
        begun = (folder / RUN / "events.jsonl").exists()
        limits = [f"space={settings.space}", f"budget={settings.budget}", f"constraints.latency_ms={latency_ms:g}"]
        words = ["resume=true"] if begun else [*limits, *_words(settings)]
        run_command("nas.search", [f"run={RUN}", f"runs_dir={folder}", *words])
    return load_run(folder / RUN)


def finalists(references: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """For each reference the trial of the front that is at most as slow and has the best validation accuracy."""
    rows = []
    for name, of_reference in references.groupby("name", sort=False):
        latency_ms = of_reference.latency_ms.median()
        allowed = trials[trials.on_front & (trials.latency_ms <= latency_ms)]
        if len(allowed):
            best = allowed.loc[allowed.accuracy.idxmax()]
            rows.append({"reference": name, "reference_ms": latency_ms, "trial": int(best.trial)})
    return pd.DataFrame(rows, columns=["reference", "reference_ms", "trial"])


def margins(references: pd.DataFrame, chosen: pd.DataFrame, trained: pd.DataFrame) -> pd.DataFrame:
    """A row for each reference: latencies, mean test accuracies with standard deviations, the margin; in percent."""
    rows = []
    for each in chosen.to_dict("records"):
        theirs = references[references.name == each["reference"]]
        ours = trained[trained.name == f"trial-{each['trial']}"]
        margin = ours.test_accuracy.mean() - theirs.test_accuracy.mean()
        error = (ours.test_accuracy.var() / len(ours) + theirs.test_accuracy.var() / len(theirs)) ** 0.5
        rows.append(
            {
                "reference": each["reference"],
                "latency_ms": theirs.latency_ms.median(),
                "test": 100 * theirs.test_accuracy.mean(),
                "std": 100 * theirs.test_accuracy.std(),
                "trial": each["trial"],
                "our_ms": ours.latency_ms.median(),
                "our_test": 100 * ours.test_accuracy.mean(),
                "our_std": 100 * ours.test_accuracy.std(),
                "margin": 100 * margin,
                "standard_error": 100 * error,
            }
        )
    return pd.DataFrame(rows)


def compare(settings: Settings) -> pd.DataFrame:
    """All of it: references, search, finalists; the table of margins."""
    out = Path(settings.out).expanduser()
    (out / "references").mkdir(parents=True, exist_ok=True)
    _hold(settings, out / "settings.json")
    networks = {}
    for reference in settings.references:
        for width in settings.widths:
            name = f"{reference}-{width:g}"
            file = out / "references" / f"{name}.json"
            file.write_text(widened(load_architecture(f"zoo/{reference}"), width).to_json() + "\n")
            networks[name] = str(file)
    references = train_all(networks, range(settings.seeds), settings)
    references.to_csv(out / "references.csv", index=False)
    print(references.groupby("name", sort=False).agg(["mean", "std"]).T.to_string(), flush=True)
    trials = search(settings, references.groupby("name").latency_ms.median().max())
    chosen = finalists(references, trials)
    archs = {f"trial-{trial}": f"{out / RUN}:{trial}" for trial in chosen.trial.unique()}
    fresh = range(settings.seeds, 2 * settings.seeds)
    trained = train_all(archs, fresh, settings)
    trained.to_csv(out / "finalists.csv", index=False)
    table = margins(references, chosen, trained)
    table.to_csv(out / "margins.csv", index=False)
    return table


def _hold(settings: Settings, file: Path) -> None:
    """Notes the settings of a comparison, or holds that it goes on with the same.

    Raises:
        ValueError: it was begun with others.
    """
    words = json.dumps(dataclasses.asdict(settings), indent=2)
    if file.exists() and file.read_text() != words:
        raise ValueError(f"out={settings.out} was begun with other settings ({file}); choose another folder")
    file.write_text(words)


def main() -> int:
    """Runs the comparison of the command line and prints its table; 2 for bad input."""
    try:
        table = compare(from_words(sys.argv[1:], Settings))
    except (ValueError, OSError) as error:
        print(f"analysis.bench_zoo: {first_line(error)}", file=sys.stderr)
        return 2
    print(table.round(4).to_string(index=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())

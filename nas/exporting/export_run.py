"""The export of a run's networks: chosen, trained longer if asked, written, verified, and only then put in place."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from nas.config import first_line, user_path
from nas.cores import cores
from nas.deploy import ExportFailed, load_deployed
from nas.exporting import predict
from nas.exporting.card import card, metrics_of
from nas.exporting.choose import chosen
from nas.exporting.final import check_tested, forget, retrained
from nas.exporting.formats import FORMATS, Product, check_formats
from nas.exporting.settings import ExportConfig
from nas.exporting.verify import failure_of, figures_of
from nas.files import write_at_once
from nas.job import Job, make_job
from nas.networks.builder import build
from nas.plugins import import_plugins
from nas.store import RunStore
from nas.training.allocator import keep_freed_memory
from nas.trial import TrialRecord

Say = Callable[[str], None]


def export_run(config: ExportConfig, say: Say) -> list[Path]:
    """Exports the chosen networks of a run.

    Args:
        config: which, as what, to where.
        say: takes lines for people.

    Returns:
        The folders, one a network.

    Raises:
        ValueError: bad input; nothing has been written then.
        ExportFailed: a file is not the network, or a final training failed; what was exported before stays.
    """
    check_formats(config.formats)
    store = RunStore.find("run", config.run, user_path("runs_dir", config.runs_dir))
    searched = store.config()
    records = chosen(store.records(), config.trial, searched)
    folders = _folders(config, store, records)
    import_plugins(searched.plugins)
    job = make_job(searched)
    check_tested(job.data, config.final)
    products: Iterable[Product]
    if config.final.epochs is None:
        # All at once: what is damaged is refused before anything is written.
        products = [_of_search(each, store, job) for each in records]
    else:
        on_device = job.on_device()
        products = (retrained(each, on_device, store, config.final, say) for each in records)
    keep_freed_memory()
    before = torch.get_num_threads()
    torch.set_num_threads(config.threads or cores())
    try:
        for product, folder in zip(products, folders, strict=True):
            _export(product, store, config, folder)
            names = ", ".join(sorted(each.name for each in folder.iterdir()))
            say(f"trial {product.record.trial}: {folder}  ({names})")
    finally:
        torch.set_num_threads(before)
    return folders


def _folders(config: ExportConfig, store: RunStore, records: Sequence[TrialRecord]) -> list[Path]:
    """Where each network's files go, none of which is there yet.

    Raises:
        ValueError: one is, or cannot be made.
    """
    default = store.path / "exports" / ("" if config.trial == "all" else str(records[0].trial))
    out = (user_path("out", config.out) if config.out is not None else default).resolve()
    folders = [out / str(record.trial) for record in records] if config.trial == "all" else [out]
    for folder in folders:
        try:
            taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
            home = next(each for each in folder.parents if each.exists())
            tempfile.TemporaryDirectory(dir=home).cleanup()
        except OSError as error:
            raise ValueError(f"out={out} cannot be written: {first_line(error)}") from None
        if taken:
            raise ValueError(f"out={out}: {folder} is not an empty folder; allowed: a new or an empty one")
    return folders


def _of_search(record: TrialRecord, store: RunStore, job: Job) -> Product:
    """A trial's network as the search has trained it.

    Raises:
        ValueError: its weights are missing or damaged.
    """
    data = job.data
    network, merges = load_deployed(
        record.architecture, store.weights_file(record.trial), data.num_classes, data.input_shape
    )
    return Product(record, network.eval(), merges, _train_form(record, store, job), job)


def _train_form(record: TrialRecord, store: RunStore, job: Job) -> nn.Module | None:
    """The train form of a trial; None where the run has not kept it.

    Raises:
        ValueError: its file is damaged.
    """
    file, data = store.trained_file(record.trial), job.data
    if not file.exists():
        return None
    network = build(record.architecture, num_classes=data.num_classes, input_shape=data.input_shape, form="train")
    try:
        network.load_state_dict(load_file(file))
    except Exception as error:  # safetensors raises its own, torch a RuntimeError of many lines
        raise ValueError(f"{file} does not hold this network: {first_line(error)}") from None
    return network.eval()


def _export(product: Product, store: RunStore, config: ExportConfig, folder: Path) -> None:
    """Writes and verifies a network's files under another name, and puts them in place last.

    Raises:
        ExportFailed: a file cannot be made, or is not the network: it is left out, and the others are there.
    """
    draft = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        failures = {name: _written(name, product, draft / name) for name in config.formats}
        good = [name for name, failure in failures.items() if failure is None]
        if good:
            _describe(product, store, config, draft, good)
            (draft / "files").replace(folder)  # an empty folder makes way
    except OSError as error:
        raise ExportFailed(f"{folder} cannot be written: {first_line(error)}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    if config.final.epochs is not None and good:
        forget(product.record, product.job, store, config.final)
    if said := [failure for failure in failures.values() if failure is not None]:
        raise ExportFailed(f"trial {product.record.trial}: {'; '.join(said)}")


def _written(name: str, product: Product, folder: Path) -> str | None:
    """Writes the files of a format into a folder of their own; why they are not the network, if so."""
    folder.mkdir(parents=True)
    try:
        FORMATS[name].write(product, folder)
    except OSError:  # a full disk, not the format
        raise
    except Exception as error:  # exporters raise their own kinds
        return f"{name} cannot be written: {first_line(error)}"
    return failure_of(name, product, folder)


def _describe(product: Product, store: RunStore, config: ExportConfig, draft: Path, good: Sequence[str]) -> None:
    """Brings the files of formats together in `draft`/files, with their figures, the card and what runs them."""
    files = draft / "files"
    for name in good:
        shutil.copytree(draft / name, files, dirs_exist_ok=True)
    metrics = metrics_of(product, store, config.final.epochs, figures_of(product, good, files))
    (files / "README.md").write_text(card(product, metrics), encoding="utf-8")
    if "onnx" in good:
        shutil.copyfile(Path(predict.__file__), files / "predict.py")
    write_at_once(files / "metrics.json", json.dumps(metrics, indent=2) + "\n")

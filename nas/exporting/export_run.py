"""The export of a run's networks: chosen, trained longer if asked, written, verified, and only then put in place."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from nas.config import SearchConfig, first_line, user_path
from nas.cores import cores
from nas.deploy import ExportFailed, load_deployed, load_trained
from nas.exporting import predict
from nas.exporting.card import card, measured_in, metrics_of
from nas.exporting.choose import chosen
from nas.exporting.final import check_tested, forget, retrained
from nas.exporting.formats import FORMATS, Product, check_formats
from nas.exporting.settings import ExportConfig, FinalConfig
from nas.exporting.verify import Expected, Verified, expected_of, figures_of, verified
from nas.files import write_at_once
from nas.job import Job, make_job
from nas.own_files import check_files
from nas.plugins import check_said, import_plugins
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
    check_said(searched.plugins, config.plugins, f"run={config.run}")
    import_plugins(searched.plugins)
    check_files(store.path)
    records = chosen(store.records(), config.trial, searched)
    folders = _folders(config, store, records)
    measured_in(store)  # which is told at the end: not after hours of training
    job = _job(replace(searched, limits=config.limits), config.final)
    check_tested(job.data, config.final)
    keep_freed_memory()
    before = torch.get_num_threads()
    torch.set_num_threads(config.threads or cores())
    try:
        products: Iterable[tuple[Product, Expected]]
        if config.final.epochs is None:
            # All at once: what is damaged is refused before anything is written.
            products = [_of_search(each, store, job) for each in records]
        else:
            on_device = job.on_device()
            finals = (retrained(each, on_device, store, config.final, say) for each in records)
            products = ((each, expected_of(each)) for each in finals)
        for (product, expected), folder in zip(products, folders, strict=True):
            _export(product, expected, store, config, folder)
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
            tempfile.TemporaryDirectory(dir=_home(folder)).cleanup()
        except OSError as error:
            raise ValueError(f"out={out} cannot be written: {first_line(error)}") from None
        if taken:
            raise ValueError(f"out={out}: {folder} is not an empty folder; allowed: a new or an empty one")
    return folders


def _home(folder: Path) -> Path:
    """The folder that is there, in which a new one would be made, or others on the way to it."""
    return next((each for each in folder.parents if each.exists()), folder)


def _job(searched: SearchConfig, final: FinalConfig) -> Job:
    """The run's job. What only trainings need, a GPU or a teacher, need not be there where nothing is trained."""
    if final.epochs is not None:
        return make_job(searched)
    untaught = replace(searched.train, teacher=None, teacher_weights=None, precision=None)
    return replace(make_job(replace(searched, device="cpu", train=untaught)), train=searched.train)


def _of_search(record: TrialRecord, store: RunStore, job: Job) -> tuple[Product, Expected]:
    """A trial's network as the search has trained it, and what its files are compared with.

    Raises:
        ValueError: its weights are missing or damaged, or it is above the limits.
    """
    job.check(record.architecture)
    arch, of_data = record.architecture, (job.data.num_classes, job.data.input_shape)
    network, merges = load_deployed(arch, store.weights_file(record.trial), *of_data)
    file = store.trained_file(record.trial)
    trained = load_trained(arch, file, *of_data).eval() if file.exists() else None
    product = Product(record, network.eval(), merges, trained, job)
    return product, expected_of(product)


def _export(product: Product, expected: Expected, store: RunStore, config: ExportConfig, folder: Path) -> None:
    """Writes and verifies a network's files in a folder of their own, and puts them in place last.

    Raises:
        ExportFailed: a file cannot be made, or is not the network: it is left out, and the others are there.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".export-", dir=_home(folder)) as drafts:
            draft = Path(drafts)
            found = {name: _written(name, product, draft / name, expected) for name in config.formats}
            good = {name: file for name, file in found.items() if isinstance(file, Verified)}
            if good:
                _describe(product, store, config, draft, good)
                folder.parent.mkdir(parents=True, exist_ok=True)
                (draft / "files").replace(folder)  # an empty folder makes way
    except OSError as error:
        raise ExportFailed(f"{folder} cannot be written: {first_line(error)}") from error
    if config.final.epochs is not None and good:
        forget(product.record, product.job, store, config.final)
    if said := [failure for failure in found.values() if isinstance(failure, str)]:
        raise ExportFailed(f"trial {product.record.trial}: {'; '.join(said)}")


def _written(name: str, product: Product, folder: Path, expected: Expected) -> Verified | str:
    """Writes the files of a format into a folder of their own; why they are not the network, if so."""
    folder.mkdir(parents=True)
    try:
        FORMATS[name].write(product, folder)
    except OSError:  # a full disk, not the format
        raise
    except Exception as error:  # exporters raise their own kinds
        return f"{name} cannot be written: {first_line(error)}"
    return verified(name, product, folder, expected)


def _describe(
    product: Product, store: RunStore, config: ExportConfig, draft: Path, good: Mapping[str, Verified]
) -> None:
    """Brings the files of formats together in `draft`/files, with their figures, the card and what runs them."""
    files = draft / "files"
    for name in good:
        shutil.copytree(draft / name, files, dirs_exist_ok=True)
    metrics = metrics_of(product, store, config.final.epochs, figures_of(product, good))
    (files / "README.md").write_text(card(product, metrics), encoding="utf-8")
    if "onnx" in good:
        shutil.copyfile(Path(predict.__file__), files / "predict.py")
    write_at_once(files / "metrics.json", json.dumps(metrics, indent=2) + "\n")

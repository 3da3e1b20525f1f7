"""What has to be told of exported files: metrics.json for programs, README.md for people."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from string import Template
from typing import Any

from nas.deploy import input_words
from nas.exporting.formats import FORMATS, Product
from nas.exporting.verify import FileFigures
from nas.latency.conditions import Conditions, conditions_from_dict
from nas.networks.fusing import unfused_norms
from nas.store import RunStore

NOT_OF_THE_RECIPE = ("teacher_weights",)  # a path of the machine that trained it
OF_A_TEACHER = ("teacher_share", "temperature")
MARKDOWN = re.compile(r"[\\`*\[\]<>&|$]")


def measured_in(store: RunStore) -> Conditions:
    """How a run has measured latencies.

    Raises:
        ValueError: what it depends on is not written down, or damaged.
    """
    words = store.environment().get("latency", {})
    try:
        return conditions_from_dict(words)
    except ValueError as error:
        raise ValueError(f"{store.path / 'environment.json'}: {error}") from None


def metrics_of(
    product: Product, store: RunStore, epochs: int | None, files: Mapping[str, FileFigures]
) -> dict[str, Any]:
    """All figures of an exported network, JSON-ready; `epochs` are those of its final trainings."""
    job, record = product.job, product.record
    words = job.metrics(record, measured_in(store))
    words["data"] = _without_folders(words["data"])
    if product.test_accuracies:
        of_final = {
            "epochs": epochs,
            "images": len(job.data.train) + len(job.data.validation),
            "test_accuracies": list(product.test_accuracies),
            "mean": statistics.mean(product.test_accuracies),
            "std": statistics.stdev(product.test_accuracies) if len(product.test_accuracies) > 1 else None,
        }
        # What the search found is of another training of this architecture.
        words |= {"search": {name: words.pop(name) for name in ("val_accuracy", "test_accuracy", "epochs", "train_s")}}
        words["final"] = of_final
    words["recipe"] = _told_of(words["recipe"])
    return {
        "run": store.name,
        **words,
        "input": input_words(job.data),
        "classes": list(job.data.classes),
        "unfused_norms": unfused_norms(product.network),
        "merged": [list(segment) for segment in product.merges.segments],
        "files": {name: asdict(each) for name, each in files.items()},
    }


def _told_of(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe without what only the machine that trained can read, and without what no training was done with."""
    if recipe["teacher"] is None:
        return {name: value for name, value in recipe.items() if name not in (*NOT_OF_THE_RECIPE, *OF_A_TEACHER)}
    told = {name: value for name, value in recipe.items() if name not in NOT_OF_THE_RECIPE}
    return told | {"teacher": _without_folders(recipe["teacher"])}


def _without_folders(name: str) -> str:
    """What a name says to others: of an absolute path the last part."""
    return Path(name).name if Path(name).is_absolute() else name


def _plain(name: str) -> str:
    """A name as Markdown that shows it: folders, and so classes and runs, may have any."""
    shown = "".join(each if each.isprintable() else repr(each)[1:-1] for each in name)
    return MARKDOWN.sub(r"\\\g<0>", shown)


def card(product: Product, metrics: Mapping[str, Any]) -> str:
    """The model card, Markdown."""
    data = product.data
    files = metrics["files"]
    first = next(iter(files.values()))
    parts = [
        f"# A classifier of {_plain(metrics['data'])}: trial {product.record.trial} of {_plain(metrics['run'])}",
        f"{data.num_classes} classes; {metrics['params']:,} parameters and {metrics['macs']:,} multiply-adds for one "
        f"image of {'x'.join(map(str, data.input_shape))}, counted in the form that ships.",
        "## Files",
        _table(files, metrics["metric"]),
        f"Each figure is of the file itself: {_judged_on(metrics['metric'], len(data.test))}; outputs and "
        f"predictions beside those of the {first['compared_with']} on "
        f"{first['images']:,} {'test' if len(data.test) else 'validation'} images; "
        f"latency of a batch of {product.job.latency.batch_size} on "
        f"{product.job.latency.threads} thread(s) of {first['latency_device']}"
        ", where it was exported, with its 95 % interval.",
        "## Accuracy",
        _accuracy(metrics),
        "## Images",
        _images(metrics),
        "## To run it",
        *(_lines(name, product) for name in files),
    ]
    if "onnx" in files:
        parts.append("Or `python predict.py PICTURE`, which needs onnxruntime, numpy and pillow only.")
    parts += ["## Training", _recipe(metrics)]
    return "\n\n".join(parts) + "\n"


def _table(files: Mapping[str, Mapping[str, Any]], metric: str) -> str:
    head = f"| file | MB | test {metric} | latency, ms | largest difference | same predictions |\n{'|---' * 6}|"
    rows = [
        f"| {each['file']} | {each['megabytes']:.3g} | {_share(each['test_accuracy'])} | {each['latency_ms']:.4g} "
        f"({_interval(each['latency_low_ms'], each['latency_high_ms'])}) | {each['difference']:.1e} | "
        f"{each['equal_predictions']:.2%} |"
        for each in files.values()
    ]
    doubts = [f"{each['file']}: latency flagged, {each['latency_doubt']}." for each in files.values()]
    flagged = [line for line, each in zip(doubts, files.values(), strict=True) if each["latency_doubt"]]
    return "\n".join([head, *rows, *([""] if flagged else []), *flagged])


def _interval(low: float | None, high: float | None) -> str:
    return "too few rounds" if low is None or high is None else f"{low:.4g} to {high:.4g}"


def _judged_on(metric: str, images: int) -> str:
    return f"{metric} on all {images:,} test images" if images else "its data came without test images"


def _share(accuracy: float | None) -> str:
    return "" if accuracy is None else f"{accuracy:.4f}"


def _accuracy(metrics: Mapping[str, Any]) -> str:
    metric = metrics["metric"].replace("_", " ")
    if "final" not in metrics:
        found = f"It was chosen by its validation {metric}, {metrics['val_accuracy']:.4f}"
        tested = metrics["test_accuracy"]
        return (
            found
            + (f"; on test images, once: {tested:.4f}." if tested is not None else ".")
            + (" The best of many noisy trials is lucky: `final.epochs=E` tells what it is worth.")
        )
    final, search = metrics["final"], metrics["search"]
    spread = f" ± {final['std']:.4f} (standard deviation)" if final["std"] is not None else ""
    return (
        f"Test {metric} {final['mean']:.4f}{spread} of {len(final['test_accuracies'])} trainings of {final['epochs']} "
        f"epochs on {final['images']:,} images (training and validation); the first of them is exported, not the best. "
        f"The search found it with {search['val_accuracy']:.4f} on validation images after {search['epochs']} epochs."
    )


def _images(metrics: Mapping[str, Any]) -> str:
    given, classes = metrics["input"], metrics["classes"]
    shown = ", ".join(map(_plain, classes[:20])) + (", ... (all in metrics.json)" if len(classes) > 20 else "")
    return (
        f"float32 {tuple(given['shape'])}, `(pixels - mean) / std` by channel, pixels from {given['range'][0]:g} to "
        f"{given['range'][1]:g}; mean {_numbers(given['mean'])}, std {_numbers(given['std'])}. "
        f"Classes, in the order of the logits: {shown}."
    )


def _numbers(values: list[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def _lines(name: str, product: Product) -> str:
    data = product.data
    how = Template(FORMATS[name].how).substitute(classes=data.num_classes, shape=tuple(data.input_shape))
    return f"```python\n# x: (N, {', '.join(map(str, data.input_shape))}), float32, prepared as above\n{how}\n```"


def _recipe(metrics: Mapping[str, Any]) -> str:
    recipe = {name: value for name, value in metrics["recipe"].items() if value not in (None, 0, False)}
    epochs = metrics["final"]["epochs"] if "final" in metrics else metrics["epochs"]
    said = ", ".join(f"{name} {value}" for name, value in (recipe | {"epochs": epochs}).items())
    return f"Data set {_plain(metrics['data'])}; {_plain(said)}."

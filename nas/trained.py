"""Networks that have been trained: by `nas.train`, in a run, or elsewhere; for teachers and as what to train again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import nn

from nas.architecture import Architecture
from nas.config import LimitsConfig, first_line, user_path
from nas.data import ImageData
from nas.deploy import load_deployed
from nas.networks.bounds import check_limits
from nas.networks.builder import build
from nas.networks.weights import check_unpacked, load_weights
from nas.recipes import TrainOverrides
from nas.space_file import load_architecture, load_space, space_names, zoo_names
from nas.store import RunStore, run_and_trial
from nas.trial import TrialRecord

WAYS = "a folder that nas.train wrote, RUN:TRIAL, zoo/NAME or torchvision/NAME"


def trial_of(spec: str) -> tuple[RunStore, TrialRecord] | None:
    """The trial that `RUN:TRIAL` stands for (`runs/latest:12`); None where that is no such word.

    Raises:
        ValueError: there is no such run, or it has no such trial that has ended.
    """
    named = run_and_trial(spec)
    if named is None:
        return None
    store, number = RunStore.open(named[0]), named[1]
    records = {record.trial: record for record in store.records()}
    if number not in records:
        raise ValueError(f"{store.path} has no trial {number} that has ended; it has {len(records)} of them")
    return store, records[number]


def with_anchored_teacher(given: TrainOverrides) -> TrainOverrides:
    """The same with the paths of a teacher and its weights absolute: `runs/latest` may soon be another run."""
    found: dict[str, str] = {}
    if given.teacher and given.teacher_weights:
        found["teacher_weights"] = str(user_path("train.teacher_weights", given.teacher_weights).absolute())
    if given.teacher:
        named = run_and_trial(given.teacher)
        if user_path("train.teacher", given.teacher).exists():
            found["teacher"] = str(user_path("train.teacher", given.teacher).resolve())
        elif named and user_path("train.teacher", named[0]).exists():
            found["teacher"] = f"{user_path('train.teacher', named[0]).resolve()}:{named[1]}"
    return dataclasses.replace(given, **found)


def load_teacher(
    spec: str,
    weights: str | None,
    data: ImageData,
    limits: LimitsConfig = LimitsConfig(),  # noqa: B008 (it is frozen)
) -> nn.Module:
    """A trained network to distil from, in eval mode: normalized images (N, C, H, W) to logits (N, classes).

    Args:
        spec: a folder that nas.train wrote, RUN:TRIAL, zoo/NAME or torchvision/NAME.
        weights: file of weights; for the last two.
        data: the images that it is to teach.
        limits: how large it may be.

    Raises:
        ValueError: there is no such network, its weights cannot be read, or it has other classes.
    """
    teacher = _load(spec, user_path("train.teacher_weights", weights) if weights else None, data, limits).eval()
    try:
        with torch.no_grad():
            logits = teacher(torch.zeros(2, *data.input_shape))
    except Exception as error:  # foreign networks refuse images in their own ways
        raise ValueError(
            f"train.teacher={spec} cannot take images of {data.input_shape}: {first_line(error)}"
        ) from None
    if logits.shape != (2, data.num_classes):
        raise ValueError(
            f"train.teacher={spec} has {logits.shape[-1]} classes, data={data.name} has {data.num_classes}"
        )
    return teacher.requires_grad_(False)


def _load(spec: str, weights: Path | None, data: ImageData, limits: LimitsConfig) -> nn.Module:
    folder = user_path("train.teacher", spec)
    of_run = None if folder.is_dir() else trial_of(spec)
    kind, _, name = spec.partition("/")
    if folder.is_dir() or of_run is not None:
        if weights is not None:
            raise ValueError(
                f"train.teacher_weights={weights} is not allowed with train.teacher={spec}: it has its own"
            )
        if of_run is None:
            arch, file = load_architecture(folder / "architecture.json"), folder / "model.safetensors"
        else:
            store, record = of_run
            arch, file = record.architecture, store.weights_file(record.trial)
        check_limits(arch, data.num_classes, data.input_shape, limits)
        return load_deployed(arch, file, data.num_classes, data.input_shape)[0]
    if kind not in ("zoo", "torchvision"):
        raise ValueError(f"train.teacher={spec} is not there; allowed: {WAYS}")
    if weights is None:
        raise ValueError(f"train.teacher={spec} needs train.teacher_weights=FILE")
    if kind == "zoo":
        arch = load_architecture(spec)
        network = build(arch, num_classes=data.num_classes, input_shape=data.input_shape)
        load_weights(network, weights, whole=True)
        return network
    return _of_torchvision(name, weights, data.num_classes)


def _of_torchvision(name: str, weights: Path, num_classes: int) -> nn.Module:
    from torchvision import models

    if name not in models.list_models(module=models):
        known = ", ".join(models.list_models(module=models))
        raise ValueError(f"train.teacher=torchvision/{name} is unknown; known: {known}")
    try:
        check_unpacked(weights)
        state = torch.load(weights, map_location="cpu", weights_only=True)
        network = models.get_model(name, weights=None, num_classes=num_classes)
        network.load_state_dict(state)
    except Exception as error:  # whatever a file that is no such state dict makes of it
        raise ValueError(
            f"train.teacher_weights={weights} does not hold torchvision's {name} for {num_classes} classes: "
            f"{first_line(error)}"
        ) from None
    return network


def architecture_named(source: str, seed: int) -> Architecture:
    """The architecture that a word of the command line stands for.

    Args:
        source: architecture.json, a network of the zoo, RUN:TRIAL, a folder with an architecture.json, or a search
            space of which a sample is taken.
        seed: of the sample.

    Raises:
        ValueError: none of these.
    """
    path = Path(source)
    if (path / "architecture.json").is_file():
        return load_architecture(path / "architecture.json")
    if source.removeprefix("zoo/") in zoo_names() or path.suffix == ".json":
        return load_architecture(source)
    if source in space_names() or path.suffix in (".yaml", ".yml"):
        return load_space(source).sample(seed)
    of_run = trial_of(source)
    return load_architecture(source) if of_run is None else of_run[1].architecture

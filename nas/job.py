"""Job: what all trainings of a search have in common, and what a single one is done with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import nas
from nas.architecture import Architecture
from nas.config import JobConfig, LatencyConfig, LimitsConfig, user_path
from nas.cost import size
from nas.data import ImageData, ImageSet, load_data_of
from nas.latency.conditions import Conditions, Instrument, conditions
from nas.latency.lane import Lane
from nas.latency.machine import device_named, lane_of
from nas.latency.meter import MeasuringNode, Meter
from nas.networks.bounds import check_limits
from nas.networks.builder import build
from nas.networks.onnx_file import OnnxNetwork
from nas.networks.quantized import quantize
from nas.networks.weights import load_weights
from nas.objectives import Constraint
from nas.reading import Size
from nas.recipes import TrainConfig, TrainOverrides, make_recipe
from nas.regularized import with_dropout
from nas.trained import load_teacher
from nas.training.evaluation import evaluate
from nas.training.precision import training_dtype
from nas.trial import TrialRecord

CALIBRATION_IMAGES = 256  # of the training data, for a quantized network's scales


@dataclass(frozen=True)
class Job:
    """What all trials of a search have in common.

    Attributes:
        data: the images.
        train: what is given of the recipe.
        latency: how latency is measured.
        constraints: upper limits on costs.
        device: "cpu" or "cuda": where networks are trained.
        seed: of the search; with an architecture's id it decides the seed of its training.
        merge: what runs of linear convolutions are merged to save (`MERGE_COSTS`, or latency).
        timeout_s: longest time of a trial, seconds.
        weights: file of weights that trainings start from.
        timed_device: fingerprint of the device that latencies are of; None takes any.
        metric: what accuracy is taken of (`nas.training.evaluation.METRICS`).
        teacher: network that trainings distil from.
        limits: how large a network may be.
    """

    data: ImageData
    train: TrainOverrides
    latency: LatencyConfig
    constraints: tuple[Constraint, ...]
    device: str
    seed: int
    merge: str
    timeout_s: float | None = None
    weights: Path | None = None
    timed_device: str | None = None
    metric: str = "accuracy"
    teacher: nn.Module | None = None
    limits: LimitsConfig = LimitsConfig()

    def check(self, arch: Architecture) -> None:
        """Holds an architecture against the limits, before anything of it is built.

        Raises:
            AboveLimits: it is larger than they allow.
            ValueError: it cannot be built for this job's images.
        """
        check_limits(arch, self.data.num_classes, self.data.input_shape, self.limits)

    def build(self, arch: Architecture) -> nn.Module:
        """The train form of an architecture for this job's images, on its device, as its training begins.

        Raises:
            ValueError: it is above the limits, or `weights` does not fit.
        """
        self.check(arch)
        torch.manual_seed(training_seed(self.seed, arch))
        recipe = self.recipe(arch)
        regular = with_dropout(arch, recipe.dropout, recipe.drop_path)
        network = build(regular, num_classes=self.data.num_classes, input_shape=self.data.input_shape, form="train")
        if self.weights is not None:
            load_weights(network, self.weights)
        return network.to(self.device)

    def recipe(self, arch: Architecture) -> TrainConfig:
        """How an architecture is trained."""
        return make_recipe(self.data.kind, dict(arch.train), self.train)

    def on_device(self) -> Job:
        """The same job with the images that trials use on its device; test images stay where they are."""
        train, validation = self.data.train.to(self.device), self.data.validation.to(self.device)
        teacher = None if self.teacher is None else self.teacher.to(self.device)
        return replace(self, data=replace(self.data, train=train, validation=validation), teacher=teacher)

    def meter(self, node: MeasuringNode | None = None) -> Meter:
        """What measures for this job in this process, which takes part in the lanes of the devices that it loads.

        Args:
            node: measures instead of this machine; a table is read here all the same.

        Raises:
            ValueError: this machine is to measure on a device that it lacks.
        """
        node = None if self.latency.backend == "table" else node
        asked = self.device if self.latency.device == "auto" else self.latency.device
        lane = Lane("cpu", *([lane_of(device_named("cuda"))] if self.device == "cuda" else []))
        device = asked if node else device_named(asked)
        return Meter(self.latency, self.data.input_shape, device, lane, node, self.timed_device)

    def conditions(self, using: Instrument) -> Conditions:
        """Under which latencies of this job are measured."""
        return conditions(self.latency, using, self.data.input_shape, self.data.num_classes, self.merge)

    def size(self, deployed: nn.Module) -> Size:
        """What a fused and merged network costs on any device, as this job ships it."""
        return size(deployed, self.data.input_shape, self.latency.batch_size, self.latency.dtype)

    def shipped(self, deployed: nn.Module) -> nn.Module:
        """What runs on the device instead of a fused and merged network: itself, or its quantized form."""
        return self.quantized(deployed) if self.latency.dtype == "int8" else deployed

    def quantized(self, deployed: nn.Module) -> OnnxNetwork:
        """The int8 form of a fused and merged network, its scales those of training images."""
        # From all over the training data, which may be in the order of its classes.
        images = self.data.normalize(self.data.train.spread(CALIBRATION_IMAGES)).cpu()
        return quantize(deployed, images, self.latency.threads)

    def judged(
        self, deployed: nn.Module, images: ImageSet, between_batches: Callable[[], None] = lambda: None
    ) -> float:
        """The metric of a fused and merged network, as it ships, on validation or test images.

        Raises:
            Diverged: its outputs are not finite.
        """
        return evaluate(self.shipped(deployed), self.data, images, self.metric, between_batches=between_batches)

    def identity(self, arch: Architecture, epochs: int | None = None) -> dict[str, Any]:
        """What makes an architecture's training this one, JSON-ready: with another of these it would go another way.

        Args:
            arch: the architecture.
            epochs: of the training; by default the recipe's.
        """
        train, recipe = self.data.train, self.recipe(arch)
        recipe = replace(recipe, epochs=epochs or recipe.epochs)
        return {
            "version": nas.__version__,
            "arch_id": arch.arch_id,
            "recipe": asdict(recipe),
            "seed": training_seed(self.seed, arch),
            "weights": None if self.weights is None else hashlib.sha256(self.weights.read_bytes()).hexdigest(),
            "data": self.data.name,
            "images": [len(train), *train.shape, type(train).__name__],
            "mean": list(self.data.mean),  # other pixels, other means
            "std": list(self.data.std),
            "class_counts": list(self.data.class_counts),
        }

    def metrics(self, record: TrialRecord, where: Conditions) -> dict[str, Any]:
        """What has to be told of a judged network, JSON-ready; `where` is where its latency was measured."""
        assert record.cost is not None
        return {
            "trial": record.trial,
            "arch_id": record.architecture.arch_id,
            "deploy_id": record.architecture.deploy_id,
            "data": self.data.name,
            "metric": self.metric,
            "val_accuracy": record.accuracy,
            "test_accuracy": record.test_accuracy,
            **record.costs,
            "latency": {
                **asdict(record.cost.latency),
                "measured_in": asdict(where),
                "of": asdict(self.latency),
            },
            "epochs": record.epochs,
            "train_s": record.train_s,
            "recipe": asdict(self.recipe(record.architecture)),
        }


def make_job(config: JobConfig, constraints: tuple[Constraint, ...] = (), timeout_s: float | None = None) -> Job:
    """The job of a configuration, with its data, and its teacher if it has one.

    Raises:
        ValueError: a data set, device, precision or teacher that cannot be.
    """
    device = _device(config)
    data = load_data_of(config)
    given = config.train
    if given.teacher_weights and not given.teacher:
        raise ValueError(
            f"train.teacher_weights={given.teacher_weights} needs train.teacher=zoo/NAME or torchvision/NAME"
        )
    teacher = load_teacher(given.teacher, given.teacher_weights, data, config.limits) if given.teacher else None
    check_recipe(make_recipe(data.kind, {}, given), data, device)
    weights = user_path("weights", config.weights).absolute() if config.weights else None
    return Job(
        data,
        given,
        config.latency,
        constraints,
        device,
        config.seed,
        config.merge,
        timeout_s,
        weights,
        metric=config.metric,
        teacher=teacher,
        limits=config.limits,
    )


def check_recipe(recipe: TrainConfig, data: ImageData, device: str) -> None:
    """Holds a recipe against the images and the device.

    Raises:
        ValueError: a precision that the device lacks, or RandAugment of images that it is not defined for.
    """
    training_dtype(recipe.precision, device)
    channels = data.input_shape[0]
    if recipe.randaugment and recipe.augment and (channels not in (1, 3) or data.train.dtype != torch.uint8):
        raise ValueError(
            f"train.randaugment={recipe.randaugment} is not allowed with data={data.name}: its operations are for "
            "bytes of grey or RGB images; allowed: 0"
        )


def _device(config: JobConfig) -> str:
    available = torch.cuda.is_available()
    if config.device == "cuda" and not available:
        raise ValueError("device=cuda is not allowed: no CUDA device is available; allowed: auto, cpu")
    return "cuda" if available and config.device != "cpu" else "cpu"


def training_seed(seed: int, arch: Architecture) -> int:
    """The seed of an architecture's training: the same in every run of one search seed, whatever its number."""
    return (seed * 1_000_003 + int(arch.arch_id, 16)) % 2**31

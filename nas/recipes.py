"""How a network is trained: every setting, and the default recipe for each kind of data.

A setting is what the command line gives; else what the architecture says (the `train` section of its search space);
else the recipe of the kind of data; else the default here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nas.block_fields import FieldRule, Value
from nas.bounded import said
from nas.config_fields import key, validate

TINY_IMAGES = 10_000  # data of fewer training images is "tiny"
SMALL_SIDE = 64  # images with larger sides are "pictures"


@dataclass(frozen=True)
class TrainConfig:
    """How a network is trained."""

    epochs: int = key(16, "epochs of a full training", low=1, high=100_000)
    batch_size: int = key(64, "images of a training step", low=2, high=1_000_000)
    optimizer: str = key("adamw", "optimizer; sgd is with Nesterov momentum", options=("adamw", "sgd"))
    learning_rate: float = key(0.01, "peak of the schedule", above=0, high=100)
    schedule: str = key(
        "cosine",
        "cosine: linear warm-up, then a cosine to 0; one_cycle: a cosine up for 30 %, then down; wsd: warm-up, the "
        "peak, in the last sixth down to 0, where activations fade too",
        options=("cosine", "one_cycle", "wsd"),
    )
    warmup_epochs: float = key(1.0, "cosine, wsd: epochs of warm-up, at most half of all", low=0, high=100_000)
    momentum: float = key(0.9, "momentum of sgd", low=0, high=0.9999)
    weight_decay: float = key(0.02, "weight decay; never on norms and biases", low=0, high=10)
    label_smoothing: float = key(0.1, "label smoothing", low=0, high=0.9)
    class_weights: bool = key(False, "classes weigh alike in the loss, however many images each has")
    grad_clip: float = key(0.0, "largest norm of a step's gradient; 0: any", low=0, high=1e9)
    ema: float = key(0.0, "decay a step of the averaged weights, which are what ships; 0: none", low=0, high=0.999999)
    augment: bool = key(True, "whether training images are changed at random at all")
    shift: int | None = key(None, "largest shift, edges reflected; default: as suits the data", "px", low=0, high=512)
    flip: bool | None = key(None, "mirror half of the images; default: as suits the data")
    cutout: float = key(0.0, "side of the square that is blanked, as a share of the image's; 0: none", low=0, high=1)
    randaugment: int = key(0, "magnitude of RandAugment's two operations, of 30; 0: none", low=0, high=30)
    mixup: float = key(0.0, "alpha of mixup; 0: none", low=0, high=10)
    dropout: float | None = key(None, "dropout before the logits; default: as the architecture says", low=0, high=0.9)
    drop_path: float | None = key(
        None, "stochastic depth of the last block, rising from 0; default: as the architecture says", low=0, high=0.9
    )
    precision: str = key(
        "auto",
        "of the training's arithmetic; auto: bf16 where the device has it (CPU: for networks without groups)",
        options=("auto", "float32", "bf16", "fp16"),
    )
    memory_format: str = key("auto", "auto: channels_last", options=("auto", "contiguous", "channels_last"))
    teacher: str | None = key(
        None, "network to distil from: a folder of nas.train, RUN:TRIAL, zoo/NAME or torchvision/NAME"
    )
    teacher_weights: str | None = key(None, "file of weights of a teacher zoo/NAME or torchvision/NAME")
    teacher_share: float = key(0.5, "share of the teacher in the loss", low=0, high=1)
    temperature: float = key(4.0, "temperature of the distillation", above=0, high=100)


if TYPE_CHECKING:
    TrainOverrides = TrainConfig  # whose fields may all be None
else:
    TrainOverrides = dataclasses.make_dataclass(
        "TrainOverrides",
        [
            (each.name, f"{each.type.removesuffix(' | None')} | None", field(default=None, metadata=each.metadata))
            for each in dataclasses.fields(TrainConfig)
        ],
        namespace={"__doc__": "What is given of a TrainConfig; None is left to the recipe.", "__module__": __name__},
        frozen=True,
    )

RECIPES: dict[str, dict[str, Value]] = {
    "tiny": {},
    "small": {"batch_size": 128, "epochs": 20},
    "pictures": {"epochs": 30},
}

# What the `train` section of a search space may not set: they are of one person's machine, or of the whole search.
NOT_OF_A_SPACE = ("teacher", "teacher_weights")
NEVER_A_CHOICE = ("epochs",)  # a trial's fidelity


def kind_of_data(images: int, side: int) -> str:
    """The kind of data, a key of `RECIPES`, by the number of training images and their shorter side in pixels."""
    if side > SMALL_SIDE:
        return "pictures"
    return "tiny" if images < TINY_IMAGES else "small"


def recipes_text() -> str:
    """The recipes, a line for each kind of data, for people."""
    sizes = {
        "tiny": f"fewer than {TINY_IMAGES:,} training images",
        "small": f"more images, of at most {SMALL_SIDE} pixels",
        "pictures": f"larger than {SMALL_SIDE} pixels",
    }
    usual = {name: value for name, value in vars(TrainConfig()).items() if value is not None}
    lines = [
        f"  {kind} ({sizes[kind]}): " + " ".join(f"{name}={value}" for name, value in {**usual, **recipe}.items())
        for kind, recipe in RECIPES.items()
    ]
    return "\n".join(["What of train is none above is left to the recipe of the kind of data:", *lines])


def make_recipe(kind: str, of_architecture: Mapping[str, Value], given: TrainOverrides) -> TrainConfig:
    """The recipe of a training: what is given beats what the architecture says, and that the kind of data's recipe."""
    said = {name: value for name, value in vars(given).items() if value is not None}
    recipe = TrainConfig(**{**RECIPES[kind], **of_architecture, **said})
    validate(recipe, "train.")
    return recipe


def train_rules() -> dict[str, FieldRule]:
    """What each setting of a space's `train` section may be."""
    return {name: _rule(each) for name, each in _of_a_space().items()}


def train_value(name: Any, raw: Any) -> Value:
    """A value of a setting of a space's `train` section, in the setting's own type.

    Raises:
        ValueError: not a setting of a space, or a value out of range; the message names `train.NAME`, the value and
            what is allowed.
    """
    known = _of_a_space()
    if name not in known:
        raise ValueError(f"train.{said(name)}: not a setting of a space; known: {', '.join(known)}")
    try:
        value = _rule(known[name]).parse(raw)
    except ValueError as error:
        raise ValueError(f"train.{name}: {error}") from None
    validate(TrainOverrides(**{name: value}), "train.")  # pyright: ignore[reportArgumentType]  # limits such as `above`
    return value


def _of_a_space() -> dict[str, dataclasses.Field[Any]]:
    """The settings that a space may have."""
    return {each.name: each for each in dataclasses.fields(TrainConfig) if each.name not in NOT_OF_A_SPACE}


def _rule(each: dataclasses.Field[Any]) -> FieldRule:
    kinds = {"int": int, "float": float, "bool": bool, "str": str}
    limits = each.metadata
    return FieldRule(
        kinds[str(each.type).removesuffix(" | None")],
        limits["meaning"],
        low=limits.get("low", limits.get("above", 0)),
        high=limits.get("high", 0),
        options=limits.get("options", ()),
    )

"""Both forms of a network held against the limits, before either is built."""

from __future__ import annotations

from functools import lru_cache

import torch

from nas.architecture import Architecture
from nas.config import LimitsConfig
from nas.limits import AboveLimits, check_deploy_form, check_params
from nas.networks.bricks import Form
from nas.networks.builder import build


def check_limits(arch: Architecture, num_classes: int, input_shape: tuple[int, int, int], limits: LimitsConfig) -> None:
    """Holds both forms of an architecture against the limits; no tensor is allocated.

    The deploy form is counted by its layers first, then both as modules without numbers.

    Raises:
        AboveLimits: it is larger than they allow.
        ValueError: it cannot be built for these images.
    """
    try:
        check_deploy_form(arch, num_classes, input_shape, limits)
    except AboveLimits:
        raise
    except ValueError:  # of a plugin's block that lists no layers the modules tell; or they cannot be made either
        check_params(params_of(arch, num_classes, input_shape, "deploy"), "deploy", limits)
    check_params(params_of(arch, num_classes, input_shape, "train"), "train", limits)


@lru_cache(maxsize=2**10)  # a trial asks before it is priced and before it is trained
def params_of(arch: Architecture, num_classes: int, input_shape: tuple[int, int, int], form: Form) -> int:
    """The parameters of a form, counted on the meta device.

    Raises:
        ValueError: it cannot be built for these images.
    """
    with torch.device("meta"):
        network = build(arch, num_classes=num_classes, input_shape=input_shape, form=form)
    return sum(each.numel() for each in network.parameters())

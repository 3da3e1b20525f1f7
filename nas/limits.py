"""How large a network may be: whatever asks for more is refused before anything of it is built."""

from __future__ import annotations

import os

from nas.architecture import Architecture
from nas.config import LimitsConfig
from nas.layers import described


class AboveLimits(ValueError):
    """An architecture that is larger than the limits allow."""


def check_depth(arch: Architecture, limits: LimitsConfig) -> None:
    """Holds the number of an architecture's blocks against `limits.depth`.

    Raises:
        AboveLimits: there are more.
    """
    blocks = len(arch.blocks)
    if blocks > limits.depth:
        raise AboveLimits(
            f"{blocks:,} blocks are more than limits.depth={limits.depth:,} allows; limits.depth={blocks} raises it"
        )


def check_params(params: int, form: str, limits: LimitsConfig) -> None:
    """Holds the parameters of a form of a network against `limits.params`.

    Raises:
        AboveLimits: there are more.
    """
    if params > limits.params:
        raise AboveLimits(
            f"{params:,} parameters of the {form} form are more than limits.params={limits.params:,} allows; "
            f"limits.params={params} raises it"
        )


def check_deploy_form(
    arch: Architecture, num_classes: int, input_shape: tuple[int, int, int], limits: LimitsConfig
) -> None:
    """Holds an architecture's depth, and its deploy form as far as it can be told without building it.

    Raises:
        AboveLimits: more blocks or parameters than the limits allow, or more numbers for one image than memory holds.
        ValueError: it cannot be built for these images, or has a plugin's block that lists no layers.
    """
    check_depth(arch, limits)
    layers, footprint = described(arch, num_classes, input_shape)
    check_params(sum(each.params for each in layers), "deploy", limits)
    needed_gb, there_gb = footprint.peak_mb(1, "float32") / 1e3, memory_gb()
    if needed_gb > there_gb:
        raise AboveLimits(
            f"{needed_gb:,.1f} GB are needed at once for one image of {'x'.join(map(str, input_shape))}, and this "
            f"machine has {there_gb:,.1f} GB; allowed: a smaller network, or smaller images"
        )


def memory_gb() -> float:
    """This machine's memory in GB (10^9 bytes)."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9

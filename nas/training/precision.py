"""In which arithmetic and memory layout a network is trained."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import nn

from nas.recipes import TrainConfig

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")  # what processors call them


def training_dtype(precision: str, device: str, network: nn.Module | None = None) -> torch.dtype:
    """The type of the training's arithmetic; weights, normalization and loss stay float32 beside it.

    By default it is bf16 on CUDA, and on processors with instructions for it where the network has no grouped
    convolutions: there dense networks train 1.4 to 1.6 times as fast as in float32, and depthwise ones slower
    (`analysis/results/README.md`). It depends on the network's structure alone, never on a timing: trainings are to be
    reproducible.

    Args:
        precision: as the recipe says.
        device: "cpu" or "cuda".
        network: what is trained; None asks whether the device has the precision at all.

    Raises:
        ValueError: a precision that the device does not have.
    """
    cuda = device.startswith("cuda")
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False) if cuda else _processor_has_bf16()
    if precision == "auto":
        return torch.bfloat16 if bf16 and (cuda or _is_dense(network)) else torch.float32
    allowed = ["float32"] + ["bf16"] * bf16 + ["fp16"] * cuda
    if precision not in allowed:
        raise ValueError(
            f"train.precision={precision} is not allowed: device={device} has no instructions for it; "
            f"allowed: auto, {', '.join(allowed)}"
        )
    return DTYPES[precision]


def _is_dense(network: nn.Module | None) -> bool:
    modules = [] if network is None else network.modules()
    return all(module.groups == 1 for module in modules if isinstance(module, nn.Conv2d))


def _processor_has_bf16() -> bool:
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in BF16_INSTRUCTIONS)


def autocast(device: str, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Where forward passes are in `dtype`."""
    return torch.autocast(device.partition(":")[0], dtype, enabled=dtype != torch.float32)


def layout(recipe: TrainConfig) -> torch.memory_format:
    """How images and feature maps lie in memory.

    Channels last by default: on two cores of an EPYC trainings of every network that was tried were 1.1 to 1.8 times
    as fast as with contiguous maps (`analysis/results/README.md`), and cuDNN prefers them.
    """
    return torch.contiguous_format if recipe.memory_format == "contiguous" else torch.channels_last

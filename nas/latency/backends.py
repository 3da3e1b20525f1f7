"""The runtimes whose latency can be measured, by name."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from torch import Tensor, nn

import nas
from nas.config import LatencyConfig
from nas.latency.executorch_backend import executorch
from nas.latency.onnx_backends import check_cuda_provider, onnxruntime, openvino, tensorrt
from nas.latency.prepared import Prepared
from nas.latency.table import looked_up
from nas.latency.torch_backends import torch_compile, torch_eager

Prepare = Callable[[nn.Module, Tensor, LatencyConfig], AbstractContextManager[Prepared]]
"""Makes a network ready for one batch (N, C, H, W), on the batch's device."""


@dataclass(frozen=True)
class LatencyBackend:
    """A runtime.

    Attributes:
        prepare: makes a network ready.
        package: what has to be installed.
        extra: the extra of this project that installs it, if it is not always there.
        devices: kinds of devices.
        dtypes: of the network's weights and activations.
        cuda_options: of the configuration's options for GPUs those that it heeds.
        check_cuda: refuses, where the installed package has no support for GPUs.
    """

    prepare: Prepare
    package: str
    extra: str | None = None
    devices: tuple[str, ...] = ("cpu",)
    dtypes: tuple[str, ...] = ("float32",)
    cuda_options: tuple[str, ...] = ()
    check_cuda: Callable[[], None] | None = None

    @property
    def installed(self) -> bool:
        """Whether its package is there."""
        return importlib.util.find_spec(self.package) is not None

    @property
    def version(self) -> str:
        """The package's version."""
        if self.package == "nas":
            return nas.__version__
        try:
            return importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            # From a distribution of another name (onnxruntime-gpu); to look through all of them takes .2 s.
            return importlib.metadata.version(importlib.metadata.packages_distributions()[self.package][0])

    def options(self, config: LatencyConfig, device: str) -> str:
        """The options that decide a latency on a GPU, in words; nothing on the CPU."""
        heeded = self.cuda_options if device != "cpu" else ()
        return "".join(f" {name}" for name in heeded if getattr(config, name))


LATENCY_BACKENDS: dict[str, LatencyBackend] = {
    "torch": LatencyBackend(torch_eager, "torch", devices=("cpu", "cuda"), cuda_options=("cuda_graphs", "flush_l2")),
    "torch_compile": LatencyBackend(
        torch_compile, "torch", devices=("cpu", "cuda"), cuda_options=("cuda_graphs", "flush_l2")
    ),
    "onnxruntime": LatencyBackend(
        onnxruntime,
        "onnxruntime",
        devices=("cpu", "cuda"),
        dtypes=("float32", "int8"),
        check_cuda=check_cuda_provider,
    ),
    "openvino": LatencyBackend(openvino, "openvino", "openvino", dtypes=("float32", "int8")),
    "executorch": LatencyBackend(executorch, "executorch", "executorch"),
    "tensorrt": LatencyBackend(tensorrt, "tensorrt", "tensorrt", devices=("cuda",), cuda_options=("flush_l2",)),
    "table": LatencyBackend(looked_up, "nas", devices=("cpu", "cuda")),
}


def backend_for(config: LatencyConfig, device: str) -> tuple[str, LatencyBackend]:
    """The name and the runtime that a configuration means on a device ("cpu", "cuda", "cuda:1").

    Raises:
        ValueError: an unknown name, one that is not installed, or that does not know the device or the dtype.
    """
    kind = device.partition(":")[0]
    name = config.backend if config.backend != "auto" else {"cpu": "onnxruntime"}.get(kind, "torch")
    if name not in LATENCY_BACKENDS:
        raise ValueError(f"latency.backend={name} is unknown; known: {', '.join(LATENCY_BACKENDS)}")
    backend = LATENCY_BACKENDS[name]
    if not backend.installed:
        how = f"pip install 'nas-fused[{backend.extra}]'" if backend.extra else f"pip install {backend.package}"
        there = ", ".join(name for name, each in LATENCY_BACKENDS.items() if each.installed)
        raise ValueError(f"latency.backend={name} is not installed: {how}; installed: {there}")
    if kind not in backend.devices:
        raise ValueError(f"latency.backend={name} does not run on {device}; it runs on {', '.join(backend.devices)}")
    if config.dtype not in backend.dtypes:
        able = ", ".join(name for name, each in LATENCY_BACKENDS.items() if config.dtype in each.dtypes)
        raise ValueError(f"latency.dtype={config.dtype} is not allowed with {name}; allowed with: {able}")
    if kind == "cuda" and backend.check_cuda:
        backend.check_cuda()
    return name, backend

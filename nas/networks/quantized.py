"""The deployed network in int8: statically quantized, calibrated on images, run by ONNX Runtime."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from nas.networks.onnx_file import INPUT, OUTPUT, onnx_bytes


class QuantizedNetwork(nn.Module):
    """Images (N, C, H, W) to logits (N, classes), in int8 as ONNX Runtime computes them on the CPU.

    Attributes:
        onnx_model: the quantized ONNX file: what ships.
        input_shape: (C, H, W).
    """

    def __init__(self, onnx_model: bytes, input_shape: tuple[int, int, int], threads: int = 1) -> None:
        import onnxruntime

        super().__init__()
        self.onnx_model, self.input_shape, self.threads = onnx_model, input_shape, threads
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        self._session = onnxruntime.InferenceSession(onnx_model, options, providers=["CPUExecutionProvider"])

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of images, wherever they lie."""
        (logits,) = self._session.run([OUTPUT], {INPUT: np.ascontiguousarray(x.cpu().numpy())})
        return torch.from_numpy(logits).to(x.device)

    def __deepcopy__(self, memo: dict[int, object]) -> QuantizedNetwork:
        """A network with a session of its own: sessions are not copied."""
        return QuantizedNetwork(self.onnx_model, self.input_shape, self.threads)

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        """For other processes: made anew from its file."""
        return QuantizedNetwork, (self.onnx_model, self.input_shape, self.threads)


def quantize(deployed: nn.Module, images: Tensor, threads: int = 1) -> QuantizedNetwork:
    """The network in int8 (ONNX Runtime's static quantization, QDQ): weights by channel, activations by their range.

    Its structure, hence its latency, does not depend on weights and images; its accuracy does.

    Args:
        deployed: a network in deploy form; it is not changed.
        images: (N, C, H, W), normalized: those whose activations' least and greatest values set the scales.
        threads: CPU threads of its session.

    Raises:
        Exception: whatever the exporter raises of a network that ONNX has no operators for.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self._left: Iterator[Tensor] = iter(images.cpu().split(64))

        def get_next(self) -> dict[str, np.ndarray] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
            batch = next(self._left, None)
            return None if batch is None else {INPUT: np.ascontiguousarray(batch.numpy())}

    _, channels, height, width = images.shape
    shape = (channels, height, width)
    loggers = logging.getLogger()
    level = loggers.level
    loggers.setLevel(logging.ERROR)
    try:
        with tempfile.TemporaryDirectory() as folder:
            prepared, quantized = Path(folder) / "prepared.onnx", Path(folder) / "quantized.onnx"
            quant_pre_process(onnx.load_from_string(onnx_bytes(deployed, shape)), prepared)
            quantize_static(
                prepared,
                quantized,
                Images(),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                calibrate_method=CalibrationMethod.MinMax,
            )
            return QuantizedNetwork(quantized.read_bytes(), shape, threads)
    finally:
        loggers.setLevel(level)


def shipped_bytes(shipped: nn.Module, input_shape: tuple[int, int, int]) -> bytes:
    """The ONNX file of what ships: of a fused network, or of its quantized form.

    Raises:
        Exception: see `onnx_bytes`.
    """
    return shipped.onnx_model if isinstance(shipped, QuantizedNetwork) else onnx_bytes(shipped, input_shape)

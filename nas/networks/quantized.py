"""The deployed network in int8: statically quantized, calibrated on images, run by ONNX Runtime."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from torch import Tensor, nn

from nas.networks.onnx_file import INPUT, OnnxNetwork, onnx_bytes


def quantize(deployed: nn.Module, images: Tensor, threads: int = 1) -> OnnxNetwork:
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
            return OnnxNetwork(quantized.read_bytes(), shape, threads)
    finally:
        loggers.setLevel(level)

"""A network as the ONNX file that ships: written directly where its operators are known, else by torch's exporter."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from nas.networks.onnx_graph import UnknownOperator, onnx_model

INPUT, OUTPUT = "images", "logits"


def onnx_bytes(network: nn.Module, input_shape: tuple[int, int, int]) -> bytes:
    """The ONNX file of a network in eval mode, with a free batch size; it is not changed.

    Torch's exporter takes 1 to 2 s for what takes some hundredths written directly.

    Args:
        network: takes (N, C, H, W), from any device.
        input_shape: (C, H, W).

    Raises:
        Exception: whatever torch's exporter raises of a network that ONNX has no operators for.
    """
    try:
        return onnx_model(network, input_shape).SerializeToString(deterministic=True)
    except UnknownOperator as error:
        logging.getLogger(__name__).debug("torch's exporter is used: %s", error)
    # Two images: an example of one would make the batch size a constant.
    example = torch.zeros(2, *input_shape, device=next((p.device for p in network.parameters()), None))
    with _quiet_exporter():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    assert program is not None
    return program.model_proto.SerializeToString()


class OnnxNetwork(nn.Module):
    """An ONNX file as ONNX Runtime runs it on the CPU: images (N, C, H, W) to logits (N, classes).

    Attributes:
        onnx_model: the file's bytes.
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

    def __deepcopy__(self, memo: dict[int, object]) -> OnnxNetwork:
        """A network with a session of its own: sessions are not copied."""
        return OnnxNetwork(self.onnx_model, self.input_shape, self.threads)

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        """For other processes: made anew from its file."""
        return OnnxNetwork, (self.onnx_model, self.input_shape, self.threads)


def shipped_bytes(shipped: nn.Module, input_shape: tuple[int, int, int]) -> bytes:
    """The ONNX file of what ships: of a fused network, or of one that is an ONNX file already.

    Raises:
        Exception: see `onnx_bytes`.
    """
    return shipped.onnx_model if isinstance(shipped, OnnxNetwork) else onnx_bytes(shipped, input_shape)


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter warns of its own internals; nothing in it is for the user."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

"""A network as the ONNX file that ships: written directly where its operators are known, else by torch's exporter."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

import torch
from torch import nn

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

"""ExecuTorch with XNNPACK as a runtime: what phones run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from nas.config import LatencyConfig
from nas.latency.prepared import Prepared, host_clock, not_supported


@contextlib.contextmanager
def executorch(network: nn.Module, batch: Tensor, config: LatencyConfig) -> Iterator[Prepared]:
    """The torch.export program, lowered to XNNPACK."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import (  # pyright: ignore[reportMissingImports]
        XnnpackPartitioner,
    )
    from executorch.exir import to_edge_transform_and_lower  # pyright: ignore[reportMissingImports]
    from executorch.extension.pybindings.portable_lib import (  # pyright: ignore[reportMissingImports]
        _unsafe_reset_threadpool,
    )
    from executorch.runtime import Runtime  # pyright: ignore[reportMissingImports]

    try:
        exported = torch.export.export(network, (batch,))
        program = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()]).to_executorch()
        # The only way to say how many threads; to be said before the program is loaded.
        _unsafe_reset_threadpool(config.threads)
        method = Runtime.get().load_program(bytes(program.buffer)).load_method("forward")
    except Exception as error:  # its passes raise their own kinds
        raise not_supported("executorch", error) from None
    assert method is not None
    inputs = (batch.contiguous(),)
    yield Prepared(lambda: method.execute(inputs)[0].numpy(), host_clock(lambda: method.execute(inputs)))

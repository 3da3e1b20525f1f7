"""Runtimes that take the ONNX file: what is timed is what ships."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from nas.config import LatencyConfig
from nas.latency.prepared import CUDA_EVENTS, Prepared, cuda_clock, host_clock, not_supported
from nas.networks.onnx_file import INPUT, OUTPUT, shipped_bytes


def check_cuda_provider() -> None:
    """Holds the installed ONNX Runtime against a GPU.

    Raises:
        ValueError: it is the one for CPUs.
    """
    import onnxruntime as ort

    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise ValueError("latency.backend=onnxruntime has no CUDAExecutionProvider here: pip install onnxruntime-gpu")


@contextlib.contextmanager
def onnxruntime(network: nn.Module, batch: Tensor, config: LatencyConfig) -> Iterator[Prepared]:
    """ONNX Runtime on the CPU, or by its CUDA provider where that is installed."""
    import onnxruntime as ort

    provider = "CUDAExecutionProvider" if batch.is_cuda else "CPUExecutionProvider"
    # TensorFloat-32 is not the float32 that is asked for.
    cuda = (provider, {"device_id": batch.device.index or 0, "use_tf32": 0})
    chosen = cuda if batch.is_cuda else provider
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = config.threads, 1
    options.log_severity_level = 3
    # Threads that spin between runs would take cores from what is timed alternately.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    file = _file("onnxruntime", network, batch)
    try:
        session = ort.InferenceSession(file, options, providers=[chosen])
    except Exception as error:  # its errors have no type of their own
        raise not_supported("onnxruntime", error) from None
    if provider not in session.get_providers():  # ONNX Runtime would go on with the CPU without a word
        raise ValueError(f"latency.backend=onnxruntime: {provider} cannot be loaded (CUDA, cuDNN libraries)")
    if batch.is_cuda:
        yield _bound(session, batch)
        return
    images = {INPUT: batch.numpy()}
    yield Prepared(lambda: np.asarray(session.run([OUTPUT], images)[0]), host_clock(lambda: session.run(None, images)))


def _bound(session, batch: Tensor) -> Prepared:  # noqa: ANN001  # a package without types
    """Images and logits stay on the GPU."""
    binding = session.io_binding()
    where = ("cuda", batch.device.index or 0)
    binding.bind_input(INPUT, *where, np.float32, tuple(batch.shape), batch.data_ptr())
    binding.bind_output(OUTPUT, *where)

    def run() -> None:
        session.run_with_iobinding(binding)

    def logits() -> np.ndarray:
        run()
        return binding.copy_outputs_to_cpu()[0]

    def run_to_the_end() -> None:
        run()  # on a stream of its own, which torch's events do not see
        binding.synchronize_outputs()

    return Prepared(logits, host_clock(run_to_the_end))


@contextlib.contextmanager
def openvino(network: nn.Module, batch: Tensor, config: LatencyConfig) -> Iterator[Prepared]:
    """OpenVINO on the CPU, for latency: one stream."""
    import openvino as ov  # pyright: ignore[reportMissingImports]

    core = ov.Core()
    how = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": config.threads}
    # By itself it would take bfloat16 where the processor has it, which is not what was asked for.
    how["INFERENCE_PRECISION_HINT"] = "f32"
    try:
        model = core.read_model(_file("openvino", network, batch))
        model.reshape({INPUT: list(batch.shape)})
        request = core.compile_model(model, "CPU", how).create_infer_request()
    except RuntimeError as error:
        raise not_supported("openvino", error) from None
    request.set_tensor(INPUT, ov.Tensor(batch.numpy()))

    def logits() -> np.ndarray:
        request.infer()
        return request.get_output_tensor().data.copy()

    yield Prepared(logits, host_clock(request.infer))


@contextlib.contextmanager
def tensorrt(network: nn.Module, batch: Tensor, config: LatencyConfig) -> Iterator[Prepared]:
    """TensorRT's engine for this one batch size."""
    import tensorrt as trt  # pyright: ignore[reportMissingImports]

    builder = trt.Builder(logger := trt.Logger(trt.Logger.ERROR))
    definition = builder.create_network(0)
    parser = trt.OnnxParser(definition, logger)
    if not parser.parse(_file("tensorrt", network, batch)):
        raise not_supported("tensorrt", ValueError(parser.get_error(0).desc()))
    how = builder.create_builder_config()
    how.clear_flag(trt.BuilderFlag.TF32)
    profile = builder.create_optimization_profile()
    profile.set_shape(INPUT, *[tuple(batch.shape)] * 3)
    how.add_optimization_profile(profile)
    plan = builder.build_serialized_network(definition, how)
    if plan is None:
        raise not_supported("tensorrt", ValueError("no engine can be built"))
    context = trt.Runtime(logger).deserialize_cuda_engine(plan).create_execution_context()
    context.set_input_shape(INPUT, tuple(batch.shape))
    logits = torch.empty(tuple(context.get_tensor_shape(OUTPUT)), device=batch.device)
    context.set_tensor_address(INPUT, batch.data_ptr())
    context.set_tensor_address(OUTPUT, logits.data_ptr())

    def run() -> None:
        context.execute_async_v3(torch.cuda.current_stream(batch.device).cuda_stream)

    def read() -> np.ndarray:
        run()
        return logits.cpu().numpy()

    side = torch.cuda.Stream(batch.device)
    side.wait_stream(torch.cuda.current_stream(batch.device))
    with torch.cuda.stream(side):  # on the default stream TensorRT would synchronise more than it has to
        yield Prepared(read, cuda_clock(run, batch.device, config.flush_l2), clock=CUDA_EVENTS)


def _file(backend: str, network: nn.Module, batch: Tensor) -> bytes:
    _, channels, height, width = batch.shape
    try:
        return shipped_bytes(network, (channels, height, width))
    except Exception as error:  # the exporter raises its own kinds
        raise not_supported(backend, error) from None

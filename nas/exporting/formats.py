"""The files that a network ships as, by name: how each is written, and run from the file alone."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from nas.data import ImageData
from nas.deploy import load_deployed, save_weights
from nas.exporting.settings import FORMAT_NAMES
from nas.job import Job
from nas.networks.merging import MergePlan
from nas.networks.onnx_file import OnnxNetwork, onnx_bytes
from nas.trial import TrialRecord


@dataclass(frozen=True)
class Product:
    """A network to be written down.

    Attributes:
        record: the trial that it comes from.
        network: fused and merged, in eval mode, on the CPU.
        merges: how it was merged.
        trained: its train form, likewise; None where the run has not kept it.
        job: its images, and how it was trained.
        test_accuracies: of its final trainings, the exported one first; empty where it is the search's.
    """

    record: TrialRecord
    network: nn.Module
    merges: MergePlan
    trained: nn.Module | None
    job: Job
    test_accuracies: tuple[float, ...] = ()

    @property
    def data(self) -> ImageData:
        """Its images."""
        return self.job.data


class FromFile(nn.Module):
    """A network that some runtime has read from a file, always in eval mode.

    Exported programs refuse `eval()`, and runtimes have no modules; so what runs is no submodule.
    """

    def __init__(self, run: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._run = (run,)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of normalized images (N, C, H, W)."""
        return self._run[0](x)

    def __deepcopy__(self, memo: dict[int, object]) -> FromFile:
        """Itself: what was read from a file changes no more."""
        return self


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        file: its name.
        write: writes it into a folder.
        read: the network that a runtime reads from the folder.
        timed_by: what times it (`LATENCY_BACKENDS`); torch calls whatever `read` gives.
        least_equal: share of images for which it has to say the same class as the network.
        most_different: largest difference of its outputs from the network's, over the largest output.
        package: what has to be installed, if it is an extra of this project.
        how: template of the lines of Python that run it; `x` is (N, C, H, W), float32, normalized.
    """

    file: str
    write: Callable[[Product, Path], None]
    read: Callable[[Product, Path], nn.Module]
    timed_by: str
    how: str
    least_equal: float = 1.0
    most_different: float = 1e-4
    package: str | None = None

    @property
    def installed(self) -> bool:
        """Whether it can be written here."""
        return self.package is None or importlib.util.find_spec(self.package) is not None


def _write_onnx(product: Product, folder: Path) -> None:
    (folder / "model.onnx").write_bytes(onnx_bytes(product.network, product.data.input_shape))
    onnx.checker.check_model(folder / "model.onnx", full_check=True)


def _write_int8(product: Product, folder: Path) -> None:
    (folder / "model.int8.onnx").write_bytes(product.job.quantized(product.network).onnx_model)
    onnx.checker.check_model(folder / "model.int8.onnx", full_check=True)


def _read_onnx(name: str) -> Callable[[Product, Path], nn.Module]:
    return lambda product, folder: OnnxNetwork((folder / name).read_bytes(), product.data.input_shape)


def _write_pt2(product: Product, folder: Path) -> None:
    batch = torch.export.Dim("batch")
    # Two images: an example of one would make the batch size a constant.
    example = torch.zeros(2, *product.data.input_shape)
    with torch.no_grad():
        program = torch.export.export(product.network, (example,), dynamic_shapes=({0: batch},))
    torch.export.save(program, folder / "model.pt2")


def _read_pt2(product: Product, folder: Path) -> nn.Module:
    return FromFile(torch.export.load(folder / "model.pt2").module())


def _write_safetensors(product: Product, folder: Path) -> None:
    (folder / "architecture.json").write_text(product.record.architecture.to_json() + "\n", encoding="utf-8")
    save_weights(product.network, product.merges, folder / "model.safetensors")


def _read_safetensors(product: Product, folder: Path) -> nn.Module:
    data, weights = product.data, folder / "model.safetensors"
    return load_deployed(product.record.architecture, weights, data.num_classes, data.input_shape)[0].eval()


def _write_openvino(product: Product, folder: Path) -> None:
    import openvino as ov  # pyright: ignore[reportMissingImports]

    model = ov.Core().read_model(onnx_bytes(product.network, product.data.input_shape))
    ov.save_model(model, folder / "model.xml", compress_to_fp16=False)


def _read_openvino(product: Product, folder: Path) -> nn.Module:
    import openvino as ov  # pyright: ignore[reportMissingImports]

    # By itself it would take bfloat16 where the processor has it.
    how = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": product.job.latency.threads}
    request = ov.Core().compile_model(folder / "model.xml", "CPU", how).create_infer_request()

    def run(x: Tensor) -> Tensor:
        # Calling the compiled model checks and copies in Python, for longer than a small network takes.
        request.set_input_tensor(ov.Tensor(x.contiguous().numpy(), shared_memory=True))
        request.infer()
        return torch.from_numpy(request.get_output_tensor().data.copy())

    return FromFile(run)


def _write_executorch(product: Product, folder: Path) -> None:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import (  # pyright: ignore[reportMissingImports]
        XnnpackPartitioner,
    )
    from executorch.exir import to_edge_transform_and_lower  # pyright: ignore[reportMissingImports]

    exported = torch.export.export(product.network, (torch.zeros(1, *product.data.input_shape),))
    program = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()]).to_executorch()
    (folder / "model.pte").write_bytes(bytes(program.buffer))


def _read_executorch(product: Product, folder: Path) -> nn.Module:
    from executorch.extension.pybindings.portable_lib import (  # pyright: ignore[reportMissingImports]
        _unsafe_reset_threadpool,
    )
    from executorch.runtime import Runtime  # pyright: ignore[reportMissingImports]

    # The only way to say how many threads; to be said before the program is loaded.
    _unsafe_reset_threadpool(product.job.latency.threads)
    method = Runtime.get().load_program(folder / "model.pte").load_method("forward")
    assert method is not None
    # Phones classify one image at a time, and the file is made for that.
    return FromFile(lambda x: torch.cat([method.execute((each[None].contiguous(),))[0].clone() for each in x]))


def _onnx_lines(file: str) -> str:
    session = f'session = onnxruntime.InferenceSession("{file}")'
    return f'import onnxruntime\n{session}\n(logits,) = session.run(["logits"], {{"images": x}})'


FORMATS: dict[str, Format] = {
    "onnx": Format("model.onnx", _write_onnx, _read_onnx("model.onnx"), "onnxruntime", _onnx_lines("model.onnx")),
    "pt2": Format(
        "model.pt2",
        _write_pt2,
        _read_pt2,
        "torch",
        'import torch\nlogits = torch.export.load("model.pt2").module()(torch.from_numpy(x))',
    ),
    "safetensors": Format(
        "model.safetensors",
        _write_safetensors,
        _read_safetensors,
        "torch",
        "import nas, torch\nfrom nas.deploy import load_deployed\n"
        'arch = nas.load_architecture("architecture.json")\n'
        'network, _ = load_deployed(arch, "model.safetensors", num_classes=$classes, input_shape=$shape)\n'
        "logits = network.eval()(torch.from_numpy(x))",
    ),
    "onnx_int8": Format(
        "model.int8.onnx",
        _write_int8,
        _read_onnx("model.int8.onnx"),
        "onnxruntime",
        _onnx_lines("model.int8.onnx"),
        least_equal=0.9,
        most_different=np.inf,
    ),
    "openvino": Format(
        "model.xml",
        _write_openvino,
        _read_openvino,
        "torch",
        'import openvino\nhow = {"INFERENCE_PRECISION_HINT": "f32"}  # not bfloat16\n'
        'logits = openvino.Core().compile_model("model.xml", "CPU", how)([x])[0]',
        package="openvino",
    ),
    "executorch": Format(
        "model.pte",
        _write_executorch,
        _read_executorch,
        "torch",
        "import torch\nfrom executorch.runtime import Runtime\n"
        'method = Runtime.get().load_program("model.pte").load_method("forward")\n'
        "logits = method.execute((torch.from_numpy(x),))[0]  # one image at a time",
        package="executorch",
    ),
}
assert tuple(FORMATS) == FORMAT_NAMES


def check_formats(names: list[str]) -> None:
    """Holds that there are such formats, and that they can be written here.

    Raises:
        ValueError: none at all, one that is unknown or named twice, or whose package is not installed.
    """
    if not names or len(set(names)) < len(names):
        raise ValueError(f"formats={names} is not allowed; allowed: one or more of {', '.join(FORMATS)}, each once")
    for name in names:
        if name not in FORMATS:
            raise ValueError(f"formats: {name!r} is unknown; known: {', '.join(FORMATS)}")
        if not FORMATS[name].installed:
            raise ValueError(f"formats: {name} needs what is not installed: pip install 'nas-fused[{name}]'")

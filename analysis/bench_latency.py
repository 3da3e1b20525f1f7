"""What fusing buys on this device, measured in turn: train form, BatchNorm folded, fused; and plans of mergers.

    python -m analysis.bench_latency out=latency.csv

For each runtime, number of threads and batch size, all forms of all networks are timed round by round within one
measurement, so that the machine's mood is the same for all; ratios are of medians. The networks are nine blocks of 32
channels on 32x32: `reducenet` (expansion 4), `rep` (RepVGG's branches), `mobile` (inverted residuals, expansion 6), and
`runs`, reduce blocks of which two of three are linear, for mergers. The roofline is the rate of multiply-adds of this
machine's fastest matrix product: the share of it says how much of the processor the fused network uses.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import NamedTuple

import pandas as pd
import torch
from torch import nn

from analysis.settings import from_words, new_file
from nas.architecture import Architecture
from nas.blocks import Block, Classifier, Conv, InvertedResidual, Reduce
from nas.config import LatencyConfig
from nas.cores import cores
from nas.cost import count
from nas.latency.backends import LATENCY_BACKENDS
from nas.latency.lane import Lane
from nas.latency.machine import device_named, fingerprint, lane_of
from nas.latency.measure import Variant, measure_interleaved
from nas.latency.meter import Meter
from nas.latency.prepared import NotSupported
from nas.latency.side_by_side import forms_of, installed_backends
from nas.networks.builder import build

CLASSES, CHANNELS, BLOCKS = 10, 32, 9
PLANS = ("none", "macs", "all", "latency")
GEMM = {"cpu": (256, 512, 1024), "cuda": (256, 512, 1024, 4096)}  # rows and columns of the matrix products


@dataclass(frozen=True)
class Settings:
    """What the command line may say.

    Attributes:
        backends: runtimes; all that are installed by default.
        threads: numbers of CPU threads; one and all cores by default.
        batches: batch sizes.
        side: of the images, pixels.
        device: "cpu" or "cuda".
        tolerance: half the 95 % interval over the median.
        limit_s: longest time of a measurement of one form, seconds.
        out: CSV, a line for each measurement; must not exist.
    """

    backends: tuple[str, ...] = ()
    threads: tuple[int, ...] = ()
    batches: tuple[int, ...] = (1, 32)
    side: int = 32
    device: str = "cpu"
    tolerance: float = 0.02
    limit_s: float = 3.0
    out: str = "latency.csv"


@dataclass(frozen=True)
class Row:
    """One measurement; `over_fused` is its median over that of the fused form (of plans: of merge=latency)."""

    network: str
    form: str
    backend: str
    threads: int
    batch_size: int
    median_ms: float
    low_ms: float
    high_ms: float
    over_fused: float
    roofline: float
    doubt: str


class Named(NamedTuple):
    """A network to time, in one of its forms."""

    network: str
    form: str
    module: nn.Module


def architectures() -> dict[str, Architecture]:
    """The networks, by name."""
    reduce = Reduce(out_channels=CHANNELS, bottleneck_width=4)
    linear = Reduce(out_channels=CHANNELS, bottleneck_width=4, activation="none")
    bodies: dict[str, list[Block]] = {
        "reducenet": [reduce] * BLOCKS,
        "rep": [Conv(out_channels=CHANNELS, branches="repvgg")] * BLOCKS,
        "mobile": [InvertedResidual(out_channels=CHANNELS, expansion=6)] * BLOCKS,
        "runs": [linear, linear, reduce] * (BLOCKS // 3),
    }
    stem = Conv(out_channels=CHANNELS)
    return {name: Architecture((stem,), (tuple(body),), (Classifier(),)) for name, body in bodies.items()}


def networks(meter: Meter) -> list[Named]:
    """The forms of the first three networks, and the plans of the last."""
    archs = architectures()
    runs = archs.pop("runs")
    named = [
        Named(name, form, module)
        for name, arch in archs.items()
        for form, module in forms_of(arch, CLASSES, meter, "none").items()
    ]
    deployed = build(runs, num_classes=CLASSES, input_shape=meter.input_shape, form="deploy")
    return named + [Named("runs", f"merge={plan}", meter.merged(deployed, plan).network) for plan in PLANS]


def measured(settings: Settings, backend: str, threads: int, batch: int, peak: float) -> Iterator[Row]:
    """All forms of all networks on one runtime, in turn."""
    config = LatencyConfig(
        backend=backend,
        threads=threads,
        batch_size=batch,
        tolerance=settings.tolerance,
        limit_s=settings.limit_s,
    )
    shape = (3, settings.side, settings.side)
    named = networks(Meter(config, shape, device_named(settings.device)))
    found = measure_interleaved([Variant(each.module, config, shape) for each in named], device=settings.device)
    base = {
        each.network: measurement.median_ms
        for each, measurement in zip(named, found, strict=True)
        if each.form in ("fused", "merge=latency")
    }
    for each, measurement in zip(named, found, strict=True):
        rate = count(each.module, shape)[1] * batch / measurement.samples.median_ms * 1e3  # as clocked, as the peak is
        yield Row(
            *(each.network, each.form, backend, threads, batch),
            measurement.median_ms,
            *measurement.interval_ms,
            measurement.median_ms / base[each.network],
            rate / peak,
            measurement.doubt,
        )


def peak_macs_per_s(threads: int, device: str) -> float:
    """Multiply-adds in a second of the fastest matrix product of this machine's runtimes and some sizes."""
    best, where = 0.0, device_named(device)
    for size in GEMM[device.partition(":")[0]]:
        network = nn.Sequential(nn.Flatten(), nn.Linear(size, size)).to(device).eval()
        batch = torch.randn(size, size, 1, 1, device=device)
        for backend in ("torch", "onnxruntime") if device == "cpu" else ("torch",):
            config = LatencyConfig(backend=backend, threads=threads, memory_format="contiguous")
            with LATENCY_BACKENDS[backend].prepare(network, batch, config) as ready, Lane().measuring(lane_of(where)):
                best = max(best, size**3 / min(ready.time_once() for _ in range(30)) * 1e3)
    return best


def ratios(rows: list[Row]) -> pd.DataFrame:
    """A line for each network, runtime, threads and batch: medians over the fused form's, and its roofline."""
    table = pd.DataFrame([asdict(row) for row in rows])
    keys = ["network", "backend", "threads", "batch_size"]
    wide = table.pivot_table(index=keys, columns="form", values="over_fused", sort=False)
    shipped = table[table.form.isin(["fused", "merge=latency"])].set_index(keys)
    doubtful = table.assign(doubtful=table.doubt != "").groupby(keys, sort=False).doubtful.sum()
    return wide.join(shipped[["median_ms", "roofline"]]).join(doubtful)


def main() -> int:
    """Runs the benchmark of the command line and prints its tables; 2 for what it cannot follow."""
    try:
        settings = from_words(sys.argv[1:], Settings)
        config = LatencyConfig(threads=max(settings.threads or (1,)))
        backends = settings.backends or tuple(installed_backends(config, device_named(settings.device)))
        rows: list[Row] = []
        with new_file(settings.out).open("x", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([field.name for field in fields(Row)])
            for threads in settings.threads or dict.fromkeys((1, cores())):
                peak = peak_macs_per_s(threads, settings.device)
                print(f"{fingerprint(device_named(settings.device))}, {threads} threads: {peak / 1e9:.1f} GMAC/s")
                for batch in settings.batches:
                    for backend in backends:
                        try:
                            found = list(measured(settings, backend, threads, batch, peak))
                        except NotSupported as error:
                            print(f"batch {batch}: {error}", flush=True)
                            continue
                        rows += found
                        writer.writerows([getattr(row, field.name) for field in fields(Row)] for row in found)
                        file.flush()
                        print(f"{backend}, batch {batch}: done", flush=True)
    except (ValueError, OSError) as error:
        print(f"analysis.bench_latency: {error}", file=sys.stderr)
        return 2
    table = ratios(rows)
    for name, part in table.groupby(level="network", sort=False):
        print(f"\n{name}: median over that of the fused form\n{part.dropna(axis=1, how='all').round(3).to_string()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Latency of the deploy form: measured in a quiet lane, on the runtime that ships, and predicted before.

    measure.py       the measurement: sampling.py (rounds, interval), lane.py, reference.py, usual.py (drift)
    backends.py      the runtimes by name: torch_backends.py, onnx_backends.py, executorch_backend.py, table.py
    meter.py         what one process measures for a job; mergers by measured latency
    memory.py        latencies of earlier runs
    predictor.py     layers -> features.py -> regression.py (gaussian_process.py); calibrate.py judges it
    __main__.py      python -m nas.latency measure | calibrate | layers

To measure a network, `nas.latency.measure.measure` is enough.
"""

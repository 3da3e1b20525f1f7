"""The connection to Ray: one that is started here, or a cluster that is there."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
from collections.abc import Iterator
from unittest import mock

import ray
from ray._private import ray_constants
from ray.exceptions import RayError

from nas.config import SearchConfig, one_line
from nas.interrupts import interrupt_later
from nas.tune.ray_code import shipped_code

ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the run's own store is the log
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # likewise: nothing is ever restored from Ray's pickles
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
}


LOCALHOST = "127.0.0.1"
TOKEN = (
    " (does it ask for a token? then set RAY_AUTH_MODE=token, with the token of its head in ~/.ray/auth_token or "
    "RAY_AUTH_TOKEN)"
)


@contextlib.contextmanager
def ray_session(config: SearchConfig) -> Iterator[list[str]]:
    """A connection to Ray, started here unless one is running in this process.

    Yields where a person may watch it, a line each: none where its dashboard is off.

    Raises:
        ValueError: the cluster at `ray.address` does not answer.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if ray.is_initialized():
        yield []
        return
    dashboard = config.ray.dashboard
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    try:
        if config.ray.address:
            _check_reachable(config.ray.address)
            context = ray.init(address=config.ray.address, runtime_env=shipped_code(config.plugins), **quiet)
        else:
            with interrupt_later(), mock.patch.object(ray_constants, "ENABLE_RAY_CLUSTER", False):
                context = ray.init(
                    # Else Ray would join whatever cluster was last started on this machine, dead or alive.
                    address="local",
                    # Where the terminal is one, if `ray[default]` is there.
                    include_dashboard=None if dashboard is None and sys.stdout.isatty() else bool(dashboard),
                    # Else Ray's processes would listen on every address of this machine, whatever is asked for: it
                    # makes an address that others reach of this one, unless clusters are off (`ENABLE_RAY_CLUSTER`).
                    dashboard_host=LOCALHOST,
                    _node_ip_address=LOCALHOST,
                    **quiet,
                )
    except KeyboardInterrupt:  # in the middle of Ray's start it would have left half a Ray, which crashes at exit
        ray.shutdown()
        raise
    except (ConnectionError, ValueError, RuntimeError, RayError) as error:
        raise ValueError(
            f"ray.address={config.ray.address}: Ray cannot be reached or started: {one_line(error)}"
            + (TOKEN if config.ray.address else "")
        ) from None
    try:
        yield _addresses(context.dashboard_url, config)
    finally:
        ray.shutdown()


def _addresses(dashboard: str | None, config: SearchConfig) -> list[str]:
    if not dashboard:
        return []
    token = os.environ.get("RAY_AUTH_MODE") == "token"  # where nobody has set it, Ray has
    lines = [f"Ray dashboard: http://{dashboard}" + (" (its token: ray get-auth-token)" if token else "")]
    if not config.ray.address:
        (node,) = ray.nodes()
        lines.append(f"for Prometheus: http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics")
    return lines


def _check_reachable(address: str) -> None:
    """Tries the port of `host:port` or `ray://host:port`, since Ray waits for minutes, deaf to Ctrl-C.

    Raises:
        ConnectionError: nobody answers.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except (OSError, OverflowError) as error:
            raise ConnectionError(str(error)) from None

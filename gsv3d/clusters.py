# SPDX-License-Identifier: Apache-2.0
"""Connect to a Ray cluster, and say in words what is wrong with it."""

from __future__ import annotations

import logging
import os
import socket
from typing import Any

from gsv3d.errors import GSV3DError

_START = "Start one with: ray start --head; and give its address, host:port."


def connect(address: str) -> Any:
    """Connect this process to a Ray cluster.

    Args:
        address: "host:port" of the cluster's head, or "auto" for one this machine belongs to.

    Returns:
        The module ray.

    Raises:
        GSV3DError: no Ray, no cluster at the address, one of another version, or one with nothing
            to work on.
    """
    # Nothing is reported to Ray's makers; and Ray's coming default for GPUs, which it warns about.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise GSV3DError(
            "Working on several machines needs the Python package ray.",
            'Install it with: pip install -e ".[ray]".',
        ) from error
    try:
        find_head(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except (ValueError, RuntimeError, OSError, ray.exceptions.RayError) as error:
        if "ersion mismatch" in str(error):
            raise GSV3DError(
                f"The Ray cluster at {address} runs another version of Ray or Python than this"
                f" computer (Ray {ray.__version__}).",
                "Install the same versions of both on all of its machines.",
            ) from error
        raise GSV3DError(
            f"There is no Ray cluster to be reached at {address} ({last_line(error)}).", _START
        ) from error
    if not ray.cluster_resources().get("CPU") and not ray.cluster_resources().get("GPU"):
        ray.shutdown()
        raise GSV3DError(
            f"The Ray cluster at {address} has neither processors nor cards to work on.",
            "Start its machines with: ray start --address HOST:PORT; without --num-cpus 0.",
        )
    return ray


def find_head(address: str) -> None:
    """Look whether something listens at "host:port"; Ray itself goes on trying for minutes.

    Raises:
        OSError: nothing does.
    """
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "://" not in address:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def share_of(ray: Any, cpus: int, cards: bool = True) -> dict[str, int]:
    """Return the resources of one worker: a card where the cluster has any, else processors.

    Args:
        ray: of `connect`.
        cpus: of one worker without a card, at most as many as the smallest machine has.
        cards: whether to take cards.
    """
    if cards and ray.cluster_resources().get("GPU", 0) >= 1:
        return {"GPU": 1}
    machines = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    return {"CPU": max(1, min(cpus, *(int(count) for count in machines if count)))}


def last_line(error: BaseException) -> str:
    """Return the last line of an error without its full stop: Ray's begin with a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else "no reason given"

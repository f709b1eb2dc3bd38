# SPDX-License-Identifier: Apache-2.0
"""Work on the machines of a Ray cluster, and say in words what is wrong with it.

Every worker is an actor, a process with CPUs or one card somewhere in the cluster. Results
travel back to the caller. An actor may die of its task or with its machine; its task is tried once
more on another.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Callable, Generator, Sequence
from typing import Any

from gsv3d.errors import GSV3DError
from gsv3d.tasks import Outcome, attempt, outcome_of

ATTEMPTS = 2
"""Number of times that a task is started when its workers die."""

FAILED_STARTS = 4
"""Number of workers in a row that may die while starting, before the run ends."""

_START = "Start one with: ray start --head; and give its address, host:port."


def connect(address: str) -> Any:
    """Connect this process to a Ray cluster.

    Args:
        address: "host:port" of the cluster's head, or "auto" for one this machine belongs to.

    Returns:
        The module ray.

    Raises:
        GSV3DError: no Ray, no cluster at the address, one of another version, or one without
            processors and cards.
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
    """Check that something listens at "host:port"; Ray itself would try for minutes.

    Raises:
        OSError: nothing does.
    """
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "://" not in address:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def share_of(ray: Any, cpus: int, cards: bool = True) -> dict[str, int]:
    """Return the resources of one worker: a card where the cluster has any, else processors.

    Args:
        ray: as returned by `connect`.
        cpus: processors of one worker without a card, at most as many as the smallest machine has.
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


class _Worker:
    """The side of a worker that runs in an actor."""

    def __init__(self, factory: Callable[[], Callable[[Any], Any]]) -> None:
        try:
            self._function = factory()
            self._failure = None
        except Exception as error:
            self._failure = f"{type(error).__name__}: {error}"

    def start(self) -> str | None:
        """Return why the worker cannot work, None if it can."""
        return self._failure

    def work(self, task: Any) -> tuple[str, Any]:
        return attempt(self._function, task)


def run_on_ray(
    factory: Callable[[], Callable[[Any], Any]],
    tasks: Sequence[Any],
    address: str,
    workers: int | None = None,
    hint: str = "",
    describe: Callable[[Any], str] = str,
    cards: bool = False,
    cpus: int = 1,
) -> Generator[Outcome, None, None]:
    """Run ``factory()(task)`` for every task on a Ray cluster.

    Args:
        factory: picklable; called once in each worker. This package is installed on every machine.
        tasks: picklable, handed out in order, each looked up when a worker is free for it; files
            they name lie under that path on every machine.
        address: "host:port" of the cluster's head, or "auto" for one this machine belongs to.
        workers: at most; as many as the cluster has room for when None. Those that find no room
            start when there is some.
        hint: what to do where the workers cannot start.
        describe: returns what messages call a task, such as its file.
        cards: whether each worker gets a card, where the cluster has some; else it gets CPUs.
        cpus: CPUs of a worker, and so its threads, at most as many as the smallest machine has.

    Yields:
        Outcomes as they come. An exception fails its task alone; so does a worker's death, when the
        task's second worker dies as well.

    Raises:
        GSV3DError: no Ray, no cluster at the address, workers that cannot start, or an ``OSError``
            in one, which would fail all tasks to come.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers}, but must be at least 1.")
    if not tasks:
        return
    ray = connect(address)
    share = share_of(ray, cpus, cards)
    pool = _Pool(ray, factory, hint, share)
    waiting = list(range(len(tasks)))[::-1]
    attempts = [0] * len(tasks)
    try:
        (kind,) = share
        count = workers or int(ray.cluster_resources().get(kind, 1)) // share[kind] or 1
        for _ in range(min(count, len(tasks))):
            pool.start()
        while pool.running:
            (reference,), _ = ray.wait(list(pool.running), num_returns=1)
            actor, index = pool.running.pop(reference)
            try:
                result = ray.get(reference)
            except ray.exceptions.RayError as error:
                ray.kill(actor)  # it may live, and only its result be lost
                reason = f"{type(error).__name__}: {last_line(error)}"
                if index is None:
                    pool.died_starting(reason)
                elif attempts[index] < ATTEMPTS:
                    waiting.append(index)
                else:
                    name = describe(tasks[index])
                    yield Outcome(index, error=f"{name}: it crashed {ATTEMPTS} workers ({reason}).")
                if waiting:
                    pool.start()
                continue
            if index is None:
                pool.started(result)
            else:
                kind, value = result
                if kind == "fatal":
                    raise GSV3DError(f"A worker had to give up: {value}.")
                yield outcome_of(index, kind, value, describe(tasks[index]))
            if waiting:
                index = waiting.pop()
                attempts[index] += 1
                pool.running[actor.work.remote(tasks[index])] = (actor, index)
            else:
                ray.kill(actor)
    finally:
        for actor, _ in pool.running.values():
            with contextlib.suppress(Exception):  # it may be dead, or the cluster gone
                ray.kill(actor)
        ray.shutdown()


class _Pool:
    """Actors, and the task that each works on (None: it is starting)."""

    def __init__(
        self, ray: Any, factory: Callable[[], Any], hint: str, share: dict[str, int]
    ) -> None:
        self._make = ray.remote(
            num_cpus=share.get("CPU", 0), num_gpus=share.get("GPU", 0), max_restarts=0
        )(_Worker)
        self._factory, self._hint, self._failures = factory, hint, 0
        self.running: dict[Any, tuple[Any, int | None]] = {}

    def start(self) -> None:
        actor = self._make.remote(self._factory)
        self.running[actor.start.remote()] = (actor, None)

    def started(self, failure: str | None) -> None:
        if failure is not None:
            raise GSV3DError(f"A worker could not start: {failure}.", self._hint)
        self._failures = 0

    def died_starting(self, reason: str) -> None:
        self._failures += 1
        if self._failures >= FAILED_STARTS:
            raise GSV3DError(
                f"{self._failures} workers ended while starting ({reason}).", self._hint
            )

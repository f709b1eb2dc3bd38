# SPDX-License-Identifier: Apache-2.0
"""The tasks of ``gsv3d.datasets.processes``, on the machines of a Ray cluster.

Every worker is an actor, a process of one CPU somewhere in the cluster. Results travel back to the
caller. An actor may die of its task or with its machine; its task is tried once more on another.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from typing import Any

from gsv3d.clusters import connect, last_line
from gsv3d.datasets.processes import Outcome, attempt, outcome_of, prepare_worker
from gsv3d.errors import GSV3DError

ATTEMPTS = 2
"""How often a task is started whose worker dies."""

FAILED_STARTS = 4
"""So many workers in a row that die before they work are the end."""


class _Worker:
    """What runs in an actor."""

    def __init__(self, factory: Callable[[], Callable[[Any], Any]]) -> None:
        prepare_worker()
        try:
            self._function = factory()
            self._failure = None
        except Exception as error:
            self._failure = f"{type(error).__name__}: {error}"

    def start(self) -> str | None:
        """Why it cannot work, None if it can."""
        return self._failure

    def work(self, task: Any) -> tuple[str, Any]:
        return attempt(self._function, task)


def run_on_ray(
    factory: Callable[[], Callable[[Any], Any]],
    tasks: Sequence[Any],
    address: str,
    workers: int | None = None,
    hint: str = "",
) -> Generator[Outcome, None, None]:
    """Run ``factory()(task)`` for every task on a Ray cluster.

    Args:
        factory: picklable; called once in each worker. This package is installed on every machine.
        tasks: picklable, handed out in order; files they name lie under that path on every machine.
        address: "host:port" of the cluster's head, or "auto" for one this machine belongs to.
        workers: at most; as many as the cluster has CPUs when None. Those the cluster has no room
            for start when it has.
        hint: what to do where the workers cannot start.

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
    pool = _Pool(ray, factory, hint)
    waiting = list(range(len(tasks)))[::-1]
    attempts = [0] * len(tasks)
    try:
        count = workers or int(ray.cluster_resources().get("CPU", 1)) or 1
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
                    yield Outcome(
                        index, error=f"{tasks[index]}: it crashed {ATTEMPTS} workers ({reason})."
                    )
                if waiting:
                    pool.start()
                continue
            if index is None:
                pool.started(result)
            else:
                kind, value = result
                if kind == "fatal":
                    raise GSV3DError(f"A worker had to give up: {value}.")
                yield outcome_of(index, kind, value, str(tasks[index]))
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
    """Actors, and which task each is at (None: starting)."""

    def __init__(self, ray: Any, factory: Callable[[], Any], hint: str) -> None:
        self._make = ray.remote(num_cpus=1, max_restarts=0)(_Worker)
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

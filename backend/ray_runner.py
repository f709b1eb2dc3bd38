# SPDX-License-Identifier: Apache-2.0
"""Run a worker's jobs in a Ray actor, on a machine of a cluster.

The worker process and its link to the server are the usual ones; only its runner differs. It sends
pictures to an actor and writes what the actor returns. So the server's sockets stay on this
machine, and the machines of the cluster share no folder.
"""

from __future__ import annotations

import argparse
import logging
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from .errors import BackendError
from .worker_runtime import DeviceLostError, JobStoppedError, Runner, Watch, in_words

log = logging.getLogger(__name__)

#: Seconds to wait for a card or processors that others use.
PLACE_S = 300.0
#: Seconds in which an actor tells at least that it has nothing to tell.
_TURN_S = 0.25


class _Reports:
    """A `Watch` that keeps what a job reports until it is asked for."""

    def __init__(self) -> None:
        self.waiting: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self.stopping = False

    def check(self) -> None:
        if self.stopping:
            raise JobStoppedError

    def progress(self, phase: str, step: int, of: int) -> None:
        self.check()
        self.waiting.put(("progress", phase, step, of))

    def artifact(self, kind: str, values: Mapping[str, Any], **fields: Any) -> None:
        self.check()
        self.waiting.put(("artifact", kind, dict(values), fields))


class _Actor:
    """Runs jobs in the cluster, one at a time."""

    def __init__(self, make_runner: Callable[[], Runner]) -> None:
        self._runner = make_runner()
        self._reports = _Reports()

    def describe(self) -> tuple[str, list[dict[str, Any]]]:
        device, models = self._runner.describe()
        return f"{device} on {socket.gethostname()}", models

    def memory(self) -> int:
        return self._runner.memory()

    def begin(self, settings: Mapping[str, Any], picture: bytes) -> None:
        """Start a job in a thread; `take` tells how it goes."""
        self._reports = _Reports()
        threading.Thread(
            target=self._run, args=(settings, picture, self._reports), daemon=True
        ).start()

    def _run(self, settings: Mapping[str, Any], picture: bytes, reports: Any) -> None:
        end: tuple[Any, ...] = "fault", "", "The thread of the job has ended.", ""
        try:
            end = "done", self._runner.run(settings, picture, reports)
        except JobStoppedError:
            end = ("stopped",)
        except Exception as error:
            end = "fault", "", type(error).__name__, ""  # where it cannot even be logged
            *words, fault = in_words(self._runner, error, settings.get("filename", ""))
            end = "fault" if fault else "failed", *words
        finally:
            reports.waiting.put(end)  # without an end the job would be waited for

    def take(self, stop: bool) -> list[tuple[Any, ...]]:
        """Return the reports since the last call, the last one the end; `stop` ends the job."""
        self._reports.stopping = self._reports.stopping or stop
        reported = []
        try:
            reported.append(self._reports.waiting.get(timeout=_TURN_S))
            while True:
                reported.append(self._reports.waiting.get_nowait())
        except queue.Empty:
            return reported


class _ToldError(Exception):
    """A failure that the actor has put into words: what, why, hint."""


class _ActorFaultError(Exception):
    """A fault in the actor; its words are why."""


class RayRunner:
    """Run jobs in an actor that has a card, or processors, of a Ray cluster to itself.

    Args:
        address: "host:port" of the cluster's head, or "auto".
        make_runner: makes the runner in the actor; all it needs is installed there.
        cpus: processors of the actor, where it gets no card.
        cards: whether it gets a card if the cluster has some.

    Raises:
        BackendError: there is no such cluster, or it has no room.
    """

    def __init__(
        self, address: str, make_runner: Callable[[], Runner], cpus: int, cards: bool = True
    ) -> None:
        from gsv3d.clusters import connect, share_of
        from gsv3d.errors import GSV3DError

        try:
            self._ray = connect(address)
        except GSV3DError as error:
            raise BackendError(error.message, error.hint) from error
        self._cards = cards
        self._share = share_of(self._ray, cpus, cards)
        (self._kind,) = self._share
        place = self._ray.util.placement_group([self._share])
        if not place.wait(PLACE_S):
            cards_or = "no card" if self._kind == "GPU" else "no processors"
            raise BackendError(
                f"The Ray cluster at {address} has {cards_or} to spare for a worker.",
                "End what else runs there, or serve with fewer --workers.",
            )
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        actor = self._ray.remote(
            num_cpus=self._share.get("CPU", 0),
            num_gpus=self._share.get("GPU", 0),
            max_restarts=0,
            scheduling_strategy=PlacementGroupSchedulingStrategy(place),
        )(_Actor)
        self._actor = actor.remote(make_runner)

    def _ask(self, method: str, *values: Any) -> Any:
        try:
            return self._ray.get(getattr(self._actor, method).remote(*values))
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except self._ray.exceptions.RayError as error:
            from gsv3d.clusters import last_line

            raise DeviceLostError(f"{type(error).__name__}: {last_line(error)}") from error

    def describe(self) -> tuple[str, list[dict[str, Any]]]:
        return self._ask("describe")

    def memory(self) -> int:
        return self._ask("memory")

    def devices(self) -> list[str]:
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        share = self._share[self._kind]
        return ["auto" if self._cards else "cpu"] * max(
            1, sum(int(m.get(self._kind, 0)) // share for m in machines)
        )

    def run(self, settings: Mapping[str, Any], picture: bytes, watch: Watch) -> dict[str, float]:
        self._ask("begin", dict(settings), picture)
        results: list[tuple[str, dict[str, Any], dict[str, Any]]] = []
        stop = False
        while True:
            try:
                watch.check()
            except JobStoppedError:
                stop = True
            for kind, *values in self._ask("take", stop):
                if kind == "stopped":
                    raise JobStoppedError
                if kind == "fault":
                    raise _ActorFaultError(values[1])
                if kind == "failed":
                    raise _ToldError(*values)
                if kind == "done":
                    # All of one run: a machine that is lost leaves nothing that another adds to.
                    for name, arrays, fields in results:
                        watch.artifact(name, arrays, **fields)
                    return values[0]
                if kind == "artifact":
                    name, arrays, fields = values
                    if name not in ("views", "gaussians") or fields.get("final"):
                        results.append((name, arrays, fields))
                    elif not stop:
                        watch.artifact(name, arrays, **fields)
                elif not stop:
                    watch.progress(*values)

    def explain(self, error: BaseException) -> tuple[str, str, str] | None:
        return error.args if isinstance(error, _ToldError) else None  # type: ignore[return-value]


def _make_runner(options: argparse.Namespace) -> Runner:
    """Return the model's runner; this is called in the actor, where torch is not loaded yet."""
    from gsv3d.threads import let_threads_sleep, limit_threads

    from .model_runner import make_runner

    let_threads_sleep()
    limit_threads(options.threads)
    return make_runner(options)


def ray_runner(options: argparse.Namespace) -> RayRunner:
    """Return a runner of the model in a cluster, from the worker's command line."""
    # Without --threads a worker has a machine without a card to itself.
    cpus = options.threads or sys.maxsize
    cards = options.device != "cpu"
    # An actor sees only its own card.
    alone = {**vars(options), "share": 1, "device": "auto" if cards else "cpu"}
    make = partial(_make_runner, argparse.Namespace(**alone))
    return RayRunner(options.ray, make, cpus, cards)


def check_cluster(address: str) -> None:
    """Check whether workers can run in a Ray cluster, in another process, which Ray may end.

    Raises:
        BackendError: they cannot.
    """
    look = f"import sys; from {__name__} import main; sys.exit(main({address!r}))"
    done = subprocess.run([sys.executable, "-c", look], stderr=subprocess.PIPE, text=True)
    if done.returncode:
        what, _, hint = done.stderr.strip().rpartition("\n")
        raise BackendError(what.rpartition("\n")[2], hint)


def main(address: str) -> int:
    """Connect to a cluster; if that fails, print the reason and the hint on a line each."""
    from gsv3d.clusters import connect
    from gsv3d.errors import GSV3DError

    try:
        connect(address).shutdown()
    except GSV3DError as error:
        print(f"{error.message}\n{error.hint}", file=sys.stderr)
        return 1
    return 0

# SPDX-License-Identifier: Apache-2.0
"""Worker processes that outlive a task which crashes its process.

``concurrent.futures`` gives up the whole pool when one process dies; Blender may die on a broken
file, so here the task that did it fails and a new process goes on with the next.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from gsv3d.errors import GSV3DError


@dataclass(frozen=True)
class Outcome:
    """What became of one task.

    Attributes:
        index: of the task.
        value: what it returned.
        error: None, or one sentence on why it failed.
    """

    index: int
    value: Any = None
    error: str | None = None


def attempt(function: Callable[[Any], Any], task: Any) -> tuple[str, Any]:
    """Call a function and put into words what it raises.

    Returns:
        ("done", its value); ("failed", a sentence) for this task; ("fatal", a reason) where all
        others would fail with it: an ``OSError``, such as of a full disk.
    """
    try:
        return "done", function(task)
    except GSV3DError as error:
        return "failed", str(error)
    except OSError as error:
        return "fatal", f"{type(error).__name__}: {error}"
    except Exception as error:
        return "failed", f"{task!r}: {type(error).__name__}: {error}"


def prepare_worker() -> None:
    """Give a process that is to run Blender one thread, and a path without Blender's own bpy.

    A parent that has imported bpy hands down the folders Blender added to its path, and among them
    one whose bpy is none outside of Blender.
    """
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    sys.path = [p for p in sys.path if not (Path(p) / "bpy" / "__init__.py").is_file()]


def _work(factory: Callable[[], Callable[[Any], Any]], pipe: Connection) -> None:
    # Ctrl+C reaches all processes of a console; who started them decides what becomes of them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    prepare_worker()
    try:
        function = factory()
    except Exception as error:
        pipe.send(("broken", f"{type(error).__name__}: {error}"))
        return
    pipe.send(("ready", None))
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        if task is None:
            return
        try:
            pipe.send(attempt(function, task[0]))
        except OSError:
            return  # who asked is gone


class _Worker:
    def __init__(self, factory: Callable[[], Callable[[Any], Any]]) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(factory, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.task: int | None = None

    def stop(self) -> None:
        try:
            self.pipe.send(None)
        except OSError:
            pass  # it is gone already
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.pipe.close()


def run_in_processes(
    factory: Callable[[], Callable[[Any], Any]],
    tasks: Sequence[Any],
    workers: int,
    hint: str = "",
) -> Generator[Outcome, None, None]:
    """Run ``factory()(task)`` for every task in ``workers`` spawned processes.

    Args:
        factory: picklable; called once in each process.
        tasks: picklable, handed out in order.
        workers: number of processes, at least 1.
        hint: what to do where the processes cannot start.

    Yields:
        Outcomes as they come. An exception or a crash of the process fails its task alone.

    Raises:
        GSV3DError: the processes cannot start, or the output cannot be written (an ``OSError``, a
            full disk for one, would fail all tasks to come).
    """
    if workers < 1:
        raise ValueError(f"workers is {workers}, but must be at least 1.")
    waiting = list(range(len(tasks)))[::-1]
    pool = [_Worker(factory) for _ in range(min(workers, len(tasks)))]
    try:
        while pool:
            ready = wait([worker.pipe for worker in pool])
            for worker in [w for w in pool if w.pipe in ready]:
                index, worker.task = worker.task, None
                try:
                    kind, value = worker.pipe.recv()
                except (EOFError, OSError):
                    worker.process.join()
                    code = worker.process.exitcode
                    worker.pipe.close()
                    pool.remove(worker)
                    if index is None:
                        raise GSV3DError(
                            f"A worker process ended while starting (exit code {code}).", hint
                        ) from None
                    reason = f"{tasks[index]!r} crashed its process (code {code})."
                    yield Outcome(index, error=reason)
                    if waiting:
                        pool.append(_Worker(factory))
                    continue
                if kind == "broken":
                    raise GSV3DError(f"A worker process could not start: {value}.", hint)
                if kind == "fatal":
                    raise GSV3DError(f"A worker process had to give up: {value}.")
                if index is not None:
                    failed = kind == "failed"
                    yield Outcome(index, None if failed else value, value if failed else None)
                if waiting:
                    worker.task = waiting.pop()
                    worker.pipe.send((tasks[worker.task],))
                else:
                    pool.remove(worker)
                    worker.stop()
    finally:
        for worker in pool:
            worker.process.kill() if worker.task is not None else None
            worker.stop()

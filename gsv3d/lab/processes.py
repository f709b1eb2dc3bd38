# SPDX-License-Identifier: Apache-2.0
"""Run tasks in worker processes; one that crashes its process fails alone.

``concurrent.futures`` gives up the whole pool when one process dies. Blender may die on a broken
file; here only that task fails, and a new process goes on with the next.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from gsv3d.errors import GSV3DError
from gsv3d.tasks import Outcome, attempt, outcome_of


def _describe_ending(code: int | None) -> str:
    """Describe how a process ended."""
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return (signal.strsignal(-code) or f"signal {-code}").lower()
    return f"exit code {code}"


def prepare_worker() -> None:
    """Prepare a process for Blender: one thread, and no folder of Blender's own in ``sys.path``.

    If the parent has imported bpy, the child inherits the folders that Blender added to the path;
    one of them has another ``bpy``, which does not work outside of Blender.
    """
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    sys.path = [p for p in sys.path if not (Path(p) / "bpy" / "__init__.py").is_file()]


def silence_standard_output(errors: bool = False) -> None:
    """Send file descriptor 1 nowhere: Blender prints a line for each picture, past ``sys.stdout``.

    Args:
        errors: silence descriptor 2 too, if errors are reported in another way.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        if errors:
            os.dup2(nowhere.fileno(), 2)


def _work(factory: Callable[[], Callable[[Any], Any]], pipe: Connection, temporary: str) -> None:
    # Ctrl+C reaches all processes of a console; the parent decides what becomes of its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    prepare_worker()
    # A process that crashes or is killed leaves its temporary files; the parent removes them.
    tempfile.tempdir = temporary
    os.environ.update(dict.fromkeys(("TMPDIR", "TEMP", "TMP"), temporary))  # Blender reads these
    try:
        function = factory()
    except Exception as error:
        pipe.send(("broken", f"{type(error).__name__}: {error}"))
        return
    try:
        pipe.send(("ready", None))
        while True:
            task = pipe.recv()
            if task is None:
                return
            pipe.send(attempt(function, task[0]))
    except (EOFError, OSError):  # the parent is gone, and removes nothing
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _deaf_children() -> Iterator[None]:
    """Make processes that start within the block ignore Ctrl+C from their first moment.

    Otherwise Python would print a traceback if it came before ``_work`` begins.
    """
    if os.name == "nt":
        kernel = ctypes.windll.kernel32  # type: ignore[attr-defined, unused-ignore]
        kernel.SetConsoleCtrlHandler(None, True)  # children inherit it
        try:
            yield
        finally:
            kernel.SetConsoleCtrlHandler(None, False)
    else:  # children inherit what is blocked, whichever thread starts them
        resource_tracker.ensure_running()  # started later, it would unblock SIGINT
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Worker:
    def __init__(self, factory: Callable[[], Callable[[Any], Any]], temporary: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(factory, theirs, temporary), daemon=True)
        with _deaf_children():
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
    describe: Callable[[Any], str] = str,
) -> Generator[Outcome, None, None]:
    """Run ``factory()(task)`` for every task in ``workers`` spawned processes.

    Their temporary files lie in one folder, which is removed at the end.

    Args:
        factory: picklable; called once in each process.
        tasks: picklable, handed out in order.
        workers: number of processes, at least 1.
        hint: advice if the processes cannot start.
        describe: returns the name of a task in messages, such as its file.

    Yields:
        Outcomes as tasks end. An exception or a crash of the process fails that task alone.

    Raises:
        GSV3DError: the processes cannot start, or a task raised an ``OSError``: a full disk, for
            example, would fail all further tasks.
    """
    if workers < 1:
        raise ValueError(f"workers is {workers}, but must be at least 1.")
    waiting = list(range(len(tasks)))[::-1]
    try:
        folder = tempfile.TemporaryDirectory(prefix="gsv3d-work-", ignore_cleanup_errors=True)
    except OSError as error:
        raise GSV3DError(
            f"There is no room for temporary files: {error.strerror or error}.",
            "Free some space, or name a folder by TMPDIR (TEMP on Windows).",
        ) from error
    pool: list[_Worker] = []
    try:
        for _ in range(min(workers, len(tasks))):
            pool.append(_Worker(factory, folder.name))
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
                            f"A worker process ended while starting ({_describe_ending(code)}).",
                            hint,
                        ) from None
                    reason = f"it crashed the process that worked on it ({_describe_ending(code)})"
                    yield Outcome(index, error=f"{describe(tasks[index])}: {reason}.")
                    if waiting:
                        pool.append(_Worker(factory, folder.name))
                    continue
                if kind == "broken":
                    raise GSV3DError(f"A worker process could not start: {value}.", hint)
                if kind == "fatal":
                    raise GSV3DError(f"A worker process had to give up: {value}.")
                if index is not None:
                    yield outcome_of(index, kind, value, describe(tasks[index]))
                if waiting:
                    worker.task = waiting.pop()
                    worker.pipe.send((tasks[worker.task],))
                else:
                    pool.remove(worker)
                    worker.stop()
    finally:
        for worker in pool:  # empty, unless an error or Ctrl+C came
            worker.process.kill()
            worker.stop()
        folder.cleanup()

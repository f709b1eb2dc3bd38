# SPDX-License-Identifier: Apache-2.0
"""Write the logs of backend and worker, and read them again."""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import re
import textwrap
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import storing

FOLDER = "logs"
BACKEND = "backend.log"
_FILE_BYTES = 1 << 20
_BACKUPS = 3
_ENTRY = re.compile(r"\d{4}-\d\d-\d\d ")
_job = ""


def log_to(path: Path, screen: bool = False) -> None:
    """Write what this process logs to a file of bounded size, with the job under way on each line.

    Args:
        path: path of the file; it is opened with the first line.
        screen: whether warnings are printed to standard error as well.
    """
    handlers: list[logging.Handler] = [
        logging.handlers.RotatingFileHandler(
            path,
            maxBytes=_FILE_BYTES,
            backupCount=_BACKUPS,
            encoding="utf-8",
            errors="backslashreplace",  # names of files may hold what UTF-8 lacks
            delay=True,
        )
    ]
    if screen:
        handlers.append(logging.StreamHandler())
        handlers[-1].setLevel(logging.WARNING)
    for handler in handlers:
        handler.setFormatter(Formatter())
    logging.basicConfig(level=logging.INFO, handlers=handlers)


class Formatter(logging.Formatter):
    """Write entries, in which nothing that others have named looks like an entry of its own."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s%(job)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        record.job = f" job {_job}" if _job else ""
        return "".join(c if c.isprintable() else " " for c in super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return textwrap.indent(super().formatException(ei), "  ")


@contextlib.contextmanager
def at_job(job: str) -> Iterator[None]:
    """Name a job on each line that this process logs within the block."""
    global _job
    _job = job
    try:
        yield
    finally:
        _job = ""


def last_lines(data_dir: Path, count: int, job: str = "") -> Iterator[str]:
    """Yield the last lines of all logs, with a heading for each file that has some.

    Args:
        data_dir: data folder of the backend.
        count: most lines of a file.
        job: a job's id, or its beginning: yield its lines only, and what the worker printed
            that died over it.

    Raises:
        StorageError: they cannot be read.
    """
    folder = data_dir / FOLDER
    printed = set(folder.glob("worker-output*.log"))
    logs = [folder / BACKEND, *sorted(set(folder.glob("worker*.log")) - printed)]
    outputs = (
        [(path,) for path in sorted(data_dir.glob(f"jobs/{job}*/output"))]
        if job
        else [_with_backups(path) for path in sorted(printed)]
    )
    for paths in (*map(_with_backups, logs), *outputs):
        lines: deque[str] = deque(maxlen=count)
        for path in paths:
            with storing("the logs", folder), contextlib.suppress(FileNotFoundError):
                text = path.read_text(encoding="utf-8", errors="replace").splitlines()
                lines += text if paths in outputs or not job else _of_job(text, job)
        if lines:
            yield f"== {paths[-1]} =="
            yield from lines


def _of_job(lines: list[str], job: str) -> Iterator[str]:
    """Yield the entries that name a job; a traceback belongs to the entry above it."""
    named = False
    for line in lines:
        if _ENTRY.match(line):
            named = f"job {job}" in line
        if named:
            yield line


def _with_backups(path: Path) -> tuple[Path, ...]:
    """Return a log and its older files, the oldest first."""
    older = (path.with_name(f"{path.name}.{number}") for number in range(_BACKUPS, 0, -1))
    return (*older, path)

# SPDX-License-Identifier: Apache-2.0
"""Being asked to stop, and losing another process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from gsv3d.errors import ModelError

LOST = ("gloo", "NCCL", "Connection closed", "Connection reset", "Broken pipe", "timed out")


@contextmanager
def asked_to_stop(enabled: bool) -> Iterator[threading.Event]:
    """An event that Ctrl+C or a SIGTERM sets; a second one acts at once, as without this."""
    event = threading.Event()
    if not enabled or threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: object) -> None:
        event.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, ask)
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def lost_processes(count: int) -> Iterator[None]:
    """Say it in words when one of several processes is gone.

    Raises:
        ModelError: the others wait for one that has ended.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if count == 1 or not any(word in text for word in LOST):
            raise
        raise ModelError(
            f"One of the {count} training processes is gone ({text.splitlines()[0][:200]}).",
            "Start them again with --resume: they go on from the last checkpoint.",
        ) from error

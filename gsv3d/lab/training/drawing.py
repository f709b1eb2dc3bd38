# SPDX-License-Identifier: Apache-2.0
"""A bank's orbits, drawn by processes while something else goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from types import TracebackType
from typing import Any

from gsv3d.errors import DataError
from gsv3d.lab.datasets.processes import run_in_processes
from gsv3d.lab.training.bank import BankFactory, OrbitBank, prepare_bank, unfinished
from gsv3d.tasks import Outcome

TOLD_EVERY = 5.0
"""Seconds between two words on how far it is."""


class Drawing:
    """The drawing of what a bank lacks, from when it is entered until it is done or left.

    A card would wait for the host to draw; beside its training the host has little else to do.

    Args:
        directory: of the bank.
        factory: of what draws, with the bank's objects and settings.
        workers: processes.
        say: told of objects passed over, of what is odd about others and of progress, a line each;
            from another thread.

    Raises:
        OutputError: the folder holds another bank, cannot be written, or its disk is full.
    """

    def __init__(
        self, directory: Path, factory: BankFactory, workers: int, say: Callable[[str], None]
    ) -> None:
        prepare_bank(directory, factory.objects, factory.settings)
        self.directory, self._say = directory, say
        self._slots, self._variants = unfinished(directory), factory.settings.variants
        self._started = self._told = time.monotonic()
        self._attempted = 0
        self._error: BaseException | None = None
        self._changed, self._left = threading.Condition(), threading.Event()
        self._outcomes = run_in_processes(
            factory, self._slots, workers, describe=lambda slot: str(factory.object_of(slot))
        )
        self._thread = threading.Thread(target=self._draw, name="gsv3d-drawing", daemon=True)

    def __enter__(self) -> Drawing:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._left.set()
        self._thread.join()

    @property
    def originals(self) -> int:
        """Return the number of missing orbits of unvaried objects: they come first."""
        return sum(slot % self._variants == 0 for slot in self._slots)

    def wait(self, attempted: int | None = None) -> None:
        """Wait until so many of the missing orbits are drawn or passed over; None for all.

        Raises:
            GSV3DError: it came to an end before.
        """
        wanted = len(self._slots) if attempted is None else min(attempted, len(self._slots))
        with self._changed:
            while self._attempted < wanted and self._error is None:
                # With a limit, or Ctrl+C would wait for the next orbit on Windows.
                self._changed.wait(0.5)
            if self._error is not None:
                raise self._error

    def bank(self) -> OrbitBank:
        """Return the orbits that are drawn by now.

        Raises:
            DataError: nothing is.
            GSV3DError: drawing came to an end before.
        """
        self.wait(0)
        bank = OrbitBank(self.directory)
        if not len(bank):
            raise DataError(
                f"None of the objects for {self.directory} could be drawn.",
                "The recipe reads GLB and glTF files with faces; see the reasons above.",
            )
        return bank

    def _draw(self) -> None:
        try:
            self._follow(self._outcomes)
        except BaseException as error:  # noqa: BLE001 - raised again by who waits
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _follow(self, outcomes: Generator[Outcome, Any, None]) -> None:
        for done, outcome in enumerate(outcomes, 1):
            if outcome.error is not None:
                self._say(f"passed over: {outcome.error}")
            for remark in outcome.value or ():
                self._say(f"note: {remark}")
            self._tell(done)
            with self._changed:
                self._attempted = done
                self._changed.notify_all()
            if self._left.is_set():
                break
        outcomes.close()

    def _tell(self, done: int) -> None:
        now = time.monotonic()
        if now - self._told > TOLD_EVERY or done == len(self._slots):
            self._told = now
            left = (now - self._started) / done * (len(self._slots) - done)
            self._say(f"drawing: {done}/{len(self._slots)} orbits, {left / 60:.1f} minutes left")

# SPDX-License-Identifier: Apache-2.0
"""Trackers such as TensorBoard: welcome where they work, never a reason to lose a run."""

from __future__ import annotations

import math
import queue
import sys
import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from gsv3d.errors import ModelError

PATIENCE = 60.0
"""Seconds a tracker may take for one thing. Where nobody listens, wandb asks again for a minute and
a half and mlflow for four minutes, each time that something is logged."""


def tracker_of(choice: str) -> str:
    """Return what ``auto`` stands for: TensorBoard where it is installed, else none."""
    if choice != "auto":
        return choice
    return "tensorboard" if find_spec("tensorboard") else "none"


class Tracker:
    """One of accelerate's trackers, or none.

    A tracker that is not installed, cannot be reached, does not answer in ``PATIENCE`` or fails
    later is named in one sentence and left out; the run goes on, and its log.csv and samples hold
    all that the tracker would.

    Args:
        name: "tensorboard", "wandb", "mlflow", ... (accelerate's names), or "none".
        output: the run's folder; TensorBoard's files go to ``tensorboard`` in it.
        step: the run goes on from; what TensorBoard has of later steps is hidden.

    Raises:
        ModelError: there is no tracker of that name.
    """

    def __init__(self, name: str, output: Path, step: int = 0) -> None:
        self.name = name
        self._tracker: Any = None
        self._thread: _Thread | None = None
        if name == "none":
            return
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        if name not in LOGGER_TYPE_TO_CLASS:
            raise ModelError(
                f"There is no tracker '{name}'.",
                f"Known are none, {', '.join(sorted(LOGGER_TYPE_TO_CLASS))}.",
            )
        cls = LOGGER_TYPE_TO_CLASS[name]

        def start() -> None:
            if name == "tensorboard":
                tracker = cls("tensorboard", str(output), purge_step=step + 1 if step else None)
            elif cls.requires_logging_directory:
                tracker = cls("gsv3d", str(output))
            else:
                tracker = cls("gsv3d")
            tracker.start()
            self._tracker = tracker

        self._thread = _Thread()
        self._try(start)

    def log(self, values: dict[str, float], step: int) -> None:
        """Log the numbers of one step, without those that are not finite."""
        known = {name: float(v) for name, v in values.items() if math.isfinite(v)}
        self._try(lambda: self._tracker.log(known, step=step))

    def log_picture(self, name: str, picture: np.ndarray, step: int) -> None:
        """Log a (H, W, 3) uint8 picture, where the tracker takes pictures."""
        if self.name == "tensorboard":
            self._try(
                lambda: self._tracker.log_images(
                    {name: picture[None]}, step=step, dataformats="NHWC"
                )
            )
        elif hasattr(self._tracker, "log_images"):
            self._try(lambda: self._tracker.log_images({name: [picture]}, step=step))

    def close(self) -> None:
        self._try(lambda: self._tracker.finish())
        self._end()

    def _try(self, action: Callable[[], None]) -> None:
        if self._thread is None:
            return
        error = self._thread.do(action)
        if error is not None:
            self._end()
            self._leave_out(error)

    def _end(self) -> None:
        if self._thread is not None:
            self._thread.end()
        self._thread = None

    def _leave_out(self, error: BaseException) -> None:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        if isinstance(error, ImportError | NameError):
            reason = f"it is not installed ({reason})"
        print(
            f"The tracker '{self.name}' is left out: {reason}. The run goes on; log.csv and the"
            " samples hold what it would show.",
            file=sys.stderr,
            flush=True,
        )


class _Thread:
    """A thread that does one thing after the other, and is left behind when one takes too long.

    One thread for all of them: mlflow's run is the one of the thread that began it.
    """

    def __init__(self) -> None:
        self._actions: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="gsv3d-tracker", daemon=True).start()

    def do(self, action: Callable[[], None]) -> BaseException | None:
        """Do an action; return why it failed, or that it took too long, which ends the thread."""
        self._actions.put(action)
        try:
            return self._outcomes.get(timeout=PATIENCE)
        except queue.Empty:
            return TimeoutError(f"it has not answered for {PATIENCE:g} seconds")

    def end(self) -> None:
        self._actions.put(None)

    def _work(self) -> None:
        while (action := self._actions.get()) is not None:
            # Trackers are other people's code that talks to other people's servers: whatever it is
            # that they raise, the run must not end with it.
            try:
                action()
            except BaseException as error:  # noqa: BLE001
                self._outcomes.put(error)
            else:
                self._outcomes.put(None)

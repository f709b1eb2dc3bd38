# SPDX-License-Identifier: Apache-2.0
"""Trackers such as TensorBoard: welcome where they work, never a reason to lose a run."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from gsv3d.errors import ModelError


class Tracker:
    """One of accelerate's trackers, or none.

    A tracker that is not installed, cannot be reached or fails later is named in one sentence and
    left out; the run goes on, and its log.csv and samples hold all that the tracker would.

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
        if name == "none":
            return
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        if name not in LOGGER_TYPE_TO_CLASS:
            raise ModelError(
                f"There is no tracker '{name}'.",
                f"Known are none, {', '.join(sorted(LOGGER_TYPE_TO_CLASS))}.",
            )
        cls = LOGGER_TYPE_TO_CLASS[name]
        # Trackers are other people's code that talks to other people's servers: whatever it is
        # that they raise, the run must not end with it.
        try:
            if name == "tensorboard":
                self._tracker = cls("tensorboard", str(output), purge_step=step or None)
            elif cls.requires_logging_directory:
                self._tracker = cls("gsv3d", str(output))
            else:
                self._tracker = cls("gsv3d")
            self._tracker.start()
        except Exception as error:  # noqa: BLE001
            self._leave_out(error)

    def log(self, values: dict[str, float], step: int) -> None:
        """Numbers of one step; those that are not finite are left out."""
        known = {name: float(v) for name, v in values.items() if math.isfinite(v)}
        self._try(lambda: self._tracker.log(known, step=step))

    def log_picture(self, name: str, picture: np.ndarray, step: int) -> None:
        """A (H, W, 3) uint8 picture, where the tracker takes pictures."""
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

    def _try(self, action: Any) -> None:
        if self._tracker is None:
            return
        try:
            action()
        except Exception as error:  # noqa: BLE001
            self._leave_out(error)

    def _leave_out(self, error: Exception) -> None:
        self._tracker = None
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        if isinstance(error, ImportError | NameError):
            reason = f"it is not installed ({reason})"
        print(
            f"The tracker '{self.name}' is left out: {reason}. The run goes on; log.csv and the"
            " samples hold what it would show.",
            file=sys.stderr,
            flush=True,
        )

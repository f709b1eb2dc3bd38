# SPDX-License-Identifier: Apache-2.0
"""A progress bar for the terminal; plain lines where there is none."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from gsv3d import text_to_image
from gsv3d.generation import PHASES, Observer

WEIGHTS = dict(zip(PHASES, (2, 55, 5, 60, 18, 4, 4, 12), strict=True))
"""Rough shares of a job's time, so that the bar moves evenly."""

IMAGINE_WEIGHTS = dict(zip(text_to_image.PHASES, (95, 5), strict=True))
"""The same for a picture made of words."""


def fraction(phase: str, step: int, of: int, weights: Mapping[str, int] = WEIGHTS) -> float:
    """Return the share of a job that is done, 0..1, at ``step`` of ``of`` in a phase."""
    names = list(weights)
    before = sum(weights[name] for name in names[: names.index(phase)])
    within = weights[phase] * min(max(step / max(of, 1), 0.0), 1.0)
    return (before + within) / sum(weights.values())


class ImageProgress(Observer):
    """A bar or lines that show how far each of several pictures is.

    Args:
        count: number of the pictures.
        weights: shares of the time by phase; may be set anew between two pictures.
    """

    def __init__(self, count: int, weights: Mapping[str, int] = WEIGHTS) -> None:
        self._count, self._index, self._phase = count, 0, ""
        self.weights = weights
        # On stderr, so that what the command prints can be read by another program.
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %  {task.fields[phase]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task: Any = None

    def __enter__(self) -> ImageProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def start(self, name: str, phase: str = "reading") -> None:
        self._index, self._phase = self._index + 1, ""
        label = f"{name} ({self._index}/{self._count})"
        if self._bar.disable:
            print(label, file=sys.stderr, flush=True)
        self._task = self._bar.add_task(escape(label), total=1.0, phase=phase)

    def progress(self, phase: str, step: int, of: int) -> None:
        if self._bar.disable:
            if phase != self._phase:
                self._phase = phase
                print(f"  {phase}", file=sys.stderr, flush=True)
            return
        detail = f"{phase} {step}/{of}" if of > 1 else phase
        self._bar.update(
            self._task, completed=fraction(phase, step, of, self.weights), phase=detail
        )

    def finish(self, image: Path | str, files: Sequence[Path]) -> None:
        self._bar.update(self._task, completed=1.0, phase="done")
        folder = files[0].parent
        print(f"{image} -> {folder}: {', '.join(f.name for f in files)}", flush=True)

    def fail(self, message: str) -> None:
        self._bar.update(self._task, phase="failed")
        self._bar.stop_task(self._task)
        self.remark(message)

    def remark(self, message: str) -> None:
        """Say a sentence on stderr."""
        self._console.print(f"gsv3d: {message}", markup=False, highlight=False, soft_wrap=True)

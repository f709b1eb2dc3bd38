# SPDX-License-Identifier: Apache-2.0
"""The commands ``gather``, ``render``, ``train`` and ``evaluate``, and the checks they share."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from collections.abc import Callable
from datetime import timedelta

from gsv3d.errors import DataError, GSV3DError

HALF_THE_CPUS = max(1, (os.cpu_count() or 2) // 2)


def check_at_least(name: str, value: int | None, low: int = 1) -> None:
    """Refuse an option's value below ``low``; accept None, an option that was not given.

    Raises:
        ValueError: names the option, its value and the least.
    """
    if value is not None and value < low:
        raise ValueError(f"{name} is {value}, but must be at least {low}.")


def require_packages(work: str, extra: str, *packages: str) -> None:
    """Refuse to go on if a package is missing.

    Args:
        work: what needs the packages, the first word of a sentence.
        extra: extra of the project that has them.
        packages: names of the packages.

    Raises:
        DataError: names the missing package.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise DataError(
                f"{work} needs the Python package {package}.",
                f'Install it with: pip install -e ".[{extra}]".',
            )


def require_blender() -> None:
    """Refuse to go on if Blender's packages are missing; DataError as ``require_packages``."""
    require_packages("Rendering", "blender", "bpy", "OpenEXR")


def run_in_words(command: str, work: Callable[[], int]) -> int:
    """Run a command that can go on where it stopped, and say what is wrong in a sentence.

    Returns:
        The exit code; 2 after an error, 130 when interrupted.
    """
    try:
        return work()
    except (GSV3DError, ValueError) as error:
        print(f"gsv3d {command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped; the same command goes on from here.", file=sys.stderr)
        return 130


class Progress:
    """Print a line every few seconds, with the time that is left of the phase."""

    def __init__(self) -> None:
        self._phase, self._started, self._last = "", 0.0, 0.0

    def __call__(self, phase: str, done: int, of: int) -> None:
        now = time.monotonic()
        if phase != self._phase:
            self._phase, self._started, self._last = phase, now, 0.0
        if now - self._last > 5 or done == of:
            self._last = now
            left = timedelta(seconds=int((now - self._started) / done * (of - done)))
            print(f"{phase}: {done}/{of}, {left} left", flush=True)

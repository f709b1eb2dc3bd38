# SPDX-License-Identifier: Apache-2.0
"""The commands ``gather``, ``render``, ``train`` and ``evaluate``, and the checks they share."""

from __future__ import annotations

import importlib.util
import os

from gsv3d.errors import DataError

HALF_THE_CPUS = max(1, (os.cpu_count() or 2) // 2)


def check_at_least(name: str, value: int | None, low: int = 1) -> None:
    """Refuse an option's value below ``low``; accept None, an option that was not given.

    Raises:
        ValueError: names the option, its value and the least.
    """
    if value is not None and value < low:
        raise ValueError(f"{name} is {value}, but must be at least {low}.")


def require_blender() -> None:
    """Refuse to go on if Blender's packages are missing.

    Raises:
        DataError: names the missing package.
    """
    for module, package in (("bpy", "bpy"), ("OpenEXR", "OpenEXR")):
        if importlib.util.find_spec(module) is None:
            raise DataError(
                f"Rendering needs the Python package {package}.",
                'Install it with: pip install -e ".[blender]".',
            )

# SPDX-License-Identifier: Apache-2.0
"""What several commands ask for and check alike."""

from __future__ import annotations

import argparse
import importlib.util
import os
from typing import TYPE_CHECKING

from gsv3d.errors import DataError

if TYPE_CHECKING:
    from gsv3d.multiview.consistency import Consistency

FORMATS = ("glb", "ply", "obj")
ORBITS = ("static", "sine", "dynamic")  # as gsv3d.cameras has them, without importing torch
MEMORY = ("auto", "24", "12", "8")  # as gsv3d.devices has them, without importing torch


def add_formats(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--formats",
        type=_formats,
        default=("glb", "ply"),
        metavar="LIST",
        help="of glb, ply and obj, with commas (glb,ply)",
    )


def add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (%(default)s)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (all cores but one)")


def add_views(parser: argparse._ActionsContainer) -> None:
    """Add what is said of the model's own views; see ``consistency_of``."""
    parser.add_argument(
        "--orbit",
        choices=ORBITS,
        help="of the views: on the picture's elevation, rising and falling once around, or moving"
        " as in SV3D's training, drawn by the seed (the model's own)",
    )
    parser.add_argument("--frames", type=int, metavar="N", help="views, 2..84 (the model's own)")
    parser.add_argument(
        "--consistency",
        type=numbers,
        metavar="STRENGTH[,FROM,TO[,EVERY]]",
        help="0..1: replace so much of the denoised views by renders of the Gaussians made of them,"
        " from the share FROM of the steps to TO, every so many steps; 0 is off (the model's own)",
    )


def numbers(text: str) -> tuple[float, ...]:
    """Read numbers with commas between."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be numbers with commas between.") from None


def consistency_of(values: tuple[float, ...] | None) -> Consistency | None:
    """Return the setting that ``--consistency`` gives.

    Raises:
        ValueError: too many numbers, or one out of bounds.
    """
    if values is None:
        return None
    from gsv3d.multiview.consistency import Consistency

    if len(values) > 4:
        raise ValueError(f"Consistency has at most 4 numbers, not {len(values)}.")
    return Consistency(*values)


def add_memory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--memory",
        choices=MEMORY,
        default="auto",
        help="GB of the card's memory that the model may take; less is slower (%(default)s: by what"
        " is free)",
    )


def add_split(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--split", help="only this split of an index.json")


def add_workers(parser: argparse.ArgumentParser, default: int | None = 1, note: str = "") -> None:
    shown = note or "%(default)s"
    parser.add_argument(
        "--workers",
        type=int,
        default=default,
        metavar="N",
        help=f"Blender processes, one thread each ({shown})",
    )


def half_the_cpus() -> int:
    return max(1, (os.cpu_count() or 2) // 2)


def check_at_least(name: str, value: int | None, low: int = 1) -> None:
    """Refuse an option's value below ``low``; None, not given, passes.

    Raises:
        ValueError: naming the option.
    """
    if value is not None and value < low:
        raise ValueError(f"{name} is {value}, but must be at least {low}.")


def require_blender() -> None:
    """Refuse to go on where Blender's packages are missing.

    Raises:
        DataError: one is.
    """
    for module, package in (("bpy", "bpy"), ("OpenEXR", "OpenEXR")):
        if importlib.util.find_spec(module) is None:
            raise DataError(
                f"Rendering needs the Python package {package}.",
                'Install it with: pip install -e ".[blender]".',
            )


def _formats(text: str) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",") if part.strip()))
    unknown = [part for part in chosen if part not in FORMATS]
    if unknown or not chosen:
        raise argparse.ArgumentTypeError(
            f"{text!r} must name one or more of {', '.join(FORMATS)}, with commas between."
        )
    return chosen

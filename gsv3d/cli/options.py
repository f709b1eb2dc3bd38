# SPDX-License-Identifier: Apache-2.0
"""What several commands ask for and check alike."""

from __future__ import annotations

import argparse
import importlib.util
import os

from gsv3d.errors import DataError

FORMATS = ("glb", "ply", "obj")
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

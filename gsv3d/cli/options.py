# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gsv3d.multiview.guidance import Consistency

FORMATS = ("glb", "ply", "obj")
ORBITS = ("static", "sine", "dynamic")  # as gsv3d.cameras has them, without importing torch
MEMORY = ("auto", "24", "12", "8")  # as gsv3d.devices has them, without importing torch
DEFAULT_CUTOUT = "u2netp"  # as gsv3d.preprocessing.saliency has it, without importing numpy


def add_output(parser: argparse.ArgumentParser, files: str) -> None:
    parser.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="folder for the results"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help=f"replace files of the same name in DIR; without it the {files} get another name",
    )


def add_mesh(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=0, help="seed of what is random (%(default)s)")
    parser.add_argument(
        "--faces", type=int, default=5000, help="most triangles of the mesh (%(default)s)"
    )
    parser.add_argument(
        "--texture-size", type=int, default=1024, help="width and height in pixels (%(default)s)"
    )


def add_formats(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--formats",
        type=_formats,
        default=("glb", "ply"),
        metavar="LIST",
        help="files to write, separated by commas: glb, ply, obj (glb,ply)",
    )


def add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (%(default)s)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (all cores but one)")


def add_views(parser: argparse._ActionsContainer) -> None:
    """Add the options of the model's own views; see ``read_consistency``."""
    parser.add_argument(
        "--orbit",
        choices=ORBITS,
        help="path of the views: at the picture's elevation (static), up and down once around"
        " (sine), or random as in SV3D's training (dynamic) (the model's own)",
    )
    parser.add_argument(
        "--frames", type=int, metavar="N", help="number of views, 2 to 84 (the model's own)"
    )
    parser.add_argument(
        "--consistency",
        type=read_numbers,
        metavar="STRENGTH[,FROM,TO[,EVERY]]",
        help="replace this share (0 to 1) of the denoised views by renders of their Gaussians, from"
        " the share FROM of the steps to TO, at every EVERY-th step; 0 is off (the model's own)",
    )


def read_numbers(text: str) -> tuple[float, ...]:
    """Read numbers separated by commas."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be numbers with commas between.") from None


def read_consistency(values: tuple[float, ...] | None) -> Consistency | None:
    """Return the setting that ``--consistency`` gives.

    Raises:
        ValueError: too many numbers, or one out of bounds.
    """
    if values is None:
        return None
    from gsv3d.multiview.guidance import Consistency

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


def _formats(text: str) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",") if part.strip()))
    unknown = [part for part in chosen if part not in FORMATS]
    if unknown or not chosen:
        raise argparse.ArgumentTypeError(
            f"{text!r} must name one or more of {', '.join(FORMATS)}, with commas between."
        )
    return chosen


def add_cutout(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cutout",
        default=DEFAULT_CUTOUT,
        metavar="NAME",
        help="network that removes the background of pictures without transparency: %(default)s,"
        " or a larger one of rembg's, such as birefnet-general, if rembg is installed"
        " (%(default)s)",
    )


def check_cutout(cutout: str) -> None:
    """Check that a network can be used; say that it may be downloaded.

    Raises:
        ModelError: it cannot.
    """
    if cutout == DEFAULT_CUTOUT:
        return
    from gsv3d.preprocessing import saliency

    saliency.check_cutout(cutout)
    print(
        f"gsv3d: rembg downloads its model '{cutout}' first if it is not there yet.",
        file=sys.stderr,
        flush=True,
    )


def describe_unsure_cutout(image: Path, certainty: float) -> str:
    """Return the warning about an unsure cut-out."""
    return (
        f"{image}: the cut-out of the object is unsure ({100 * certainty:.0f} %); look at it with"
        " 'gsv3d cutout', or use a picture with a plain or transparent background."
    )

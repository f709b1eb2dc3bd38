# SPDX-License-Identifier: GPL-3.0-or-later
"""The arguments of ``python -m blender_addon`` and ``blender --command gsv3d``. No bpy."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path


def make_parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of both forms of the command."""
    parser = argparse.ArgumentParser(
        prog=prog, description="Turn pictures into splats and textured meshes in a .blend."
    )
    add = parser.add_argument
    add("images", nargs="+", metavar="IMAGE", help="picture files or folders")
    add("--output", required=True, type=Path, metavar="SCENE.blend")
    add(
        "--overwrite",
        action="store_true",
        help="replace files of the same name; without it the results get another name",
    )
    add("--model", default="blockout", help="which model (default: %(default)s)")
    add("--steps", type=_whole(1, 200), default=0, help="denoising steps")
    add("--seed", type=_whole(0, 2**31 - 1), default=0)
    add("--faces", type=_whole(20, 500_000), default=5000, help="face budget")
    add("--texture-size", type=_whole(16, 8192), default=1024, metavar="PIXELS")
    add("--height", type=_number(0.001, 10_000, "meters"), default=1.0, metavar="METERS")
    add(
        "--elevation",
        type=_number(-90, 90, "degrees", "auto"),
        default="auto",
        metavar="DEGREES",
        help="how far the picture looks down on the object (default: estimated)",
    )
    add(
        "--mirror",
        type=_number(-360, 360, "degrees", "auto", "off"),
        default="auto",
        metavar="DEGREES",
        help="where the object's mirror plane stands, 0 toward the camera, counter-clockwise seen"
        " from above; auto looks for one, off mirrors nothing (default: auto)",
    )
    add(
        "--orbit",
        choices=("model", "static", "sine", "dynamic"),
        default="model",
        help="where the model's views stand: on its own orbit, on the picture's elevation, rising"
        " and falling once around, or moving at random, drawn by the seed (default: model)",
    )
    add("--frames", type=_whole(2, 84), default=0, metavar="N", help="views (default: the model's)")
    add(
        "--azimuths",
        type=_angles,
        default=(),
        metavar="DEG,…",
        help="of the views, instead of an orbit: growing from 0 to less than 360, counter-clockwise"
        " seen from above, then 0, the picture's own (default: evenly spaced)",
    )
    add(
        "--elevations",
        type=_angles,
        default=(),
        metavar="DEG,…",
        help="of the views, instead of an orbit: -90 to 90, the picture's own last (default: those"
        " of the model's orbit); write --elevations=-5,... where the first is negative",
    )
    add(
        "--refine",
        action="store_true",
        help="fit the splats to the model's own views; those of a model without a decoder are"
        " fitted in any case",
    )
    add("--python", default="", help="the Python that has GSV3D")
    add(
        "--connection-file",
        type=Path,
        metavar="FILE",
        help="use the backend of this connection file if it runs",
    )
    return parser


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be {low} to {high}, not {value}")
        return value

    return read


def _number(low: float, high: float, unit: str, *words: str) -> Callable[[str], float | str]:
    """Return a reader of a number in a range, or of one of the words."""

    def read(text: str) -> float | str:
        if text in words:
            return text
        try:
            value = float(text)
        except ValueError:
            wanted = " or ".join(("a number", *words))
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be {low:g} to {high:g} {unit}, not {text}")
        return value

    return read


def _angles(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be numbers with commas between") from None

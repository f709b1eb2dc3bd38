# SPDX-License-Identifier: Apache-2.0
"""The option ``--cutout``, and what is said of a cut-out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gsv3d.preprocessing.saliency import DEFAULT_CUTOUT


def add_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cutout",
        default=DEFAULT_CUTOUT,
        metavar="NAME",
        help="network that removes the background of pictures without transparency: %(default)s,"
        " or a larger one of rembg's, such as birefnet-general, if rembg is installed"
        " (%(default)s)",
    )


def check(cutout: str) -> None:
    """Check that a network can be used; say that it may be downloaded.

    Raises:
        ModelError: it cannot.
    """
    if cutout == DEFAULT_CUTOUT:
        return
    from gsv3d.preprocessing.saliency import check_cutout

    check_cutout(cutout)
    print(
        f"gsv3d: rembg downloads its model '{cutout}' first if it is not there yet.",
        file=sys.stderr,
        flush=True,
    )


def warning(image: Path, certainty: float) -> str:
    """Return the sentence for a cut-out that is unsure."""
    return (
        f"{image}: the cut-out of the object is unsure ({100 * certainty:.0f} %); look at it with"
        " 'gsv3d cutout', or use a picture with a plain or transparent background."
    )

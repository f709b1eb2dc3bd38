# SPDX-License-Identifier: Apache-2.0
"""Which pictures a command line means, and what their results are called."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from gsv3d.errors import GSV3DError, ImageError
from gsv3d.preprocessing.suffixes import IMAGE_SUFFIXES


def expand_inputs(inputs: Sequence[Path]) -> tuple[list[Path], list[GSV3DError]]:
    """Folders to the pictures in them, sorted by name; each picture once.

    Returns:
        The pictures, and what could not be expanded: folders without pictures or not readable.
        Files are taken as they are: whether they can be read shows when they are.
    """
    pictures: dict[str, Path] = {}
    problems: list[GSV3DError] = []
    for given in inputs:
        if given.is_dir():
            try:
                found = sorted(
                    (
                        path
                        for path in given.iterdir()
                        if path.suffix.lower() in IMAGE_SUFFIXES
                        and not path.name.startswith(".")
                        and path.is_file()
                    ),
                    key=lambda path: (path.name.casefold(), path.name),
                )
            except OSError as error:
                problems.append(
                    ImageError(f"The folder {given} cannot be read: {error.strerror or error}.")
                )
                continue
            if not found:
                problems.append(
                    ImageError(
                        f"The folder {given} holds no pictures.",
                        "Choose a folder with PNG, JPEG, WebP or TIFF files in it.",
                    )
                )
        else:
            found = [given]
        for path in found:
            pictures.setdefault(os.path.normcase(os.path.abspath(path)), path)
    return list(pictures.values()), problems


def name_results(images: Sequence[Path], output: Path) -> list[str]:
    """One name per picture for its results: its stem, made unique.

    No result overwrites another of the same run, on file systems that ignore case too, nor one of
    the pictures, should they lie in the output folder.
    """
    folder = os.path.normcase(os.path.abspath(output))
    taken = {
        image.stem.casefold()
        for image in images
        if os.path.normcase(os.path.dirname(os.path.abspath(image))) == folder
    }
    names: list[str] = []
    for image in images:
        name, number = image.stem, 1
        while _claims(name) & taken:
            number += 1
            name = f"{image.stem}-{number}"
        taken |= _claims(name)
        names.append(name)
    return names


def _claims(name: str) -> set[str]:
    """The stems of all files written under a name: an OBJ's texture has one of its own."""
    return {name.casefold(), f"{name}_texture".casefold()}

# SPDX-License-Identifier: Apache-2.0
"""Which pictures a command line means, and what their results are called."""

from __future__ import annotations

import os
import re
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


def name_results(images: Sequence[Path], output: Path, prompts: Sequence[str] = ()) -> list[str]:
    """One name for the results of each picture, then of each prompt, made unique.

    A picture gives its stem, a prompt its words. No result overwrites another of the same run, on
    file systems that ignore case too, nor one of the pictures, should they lie in the output
    folder.
    """
    folder = os.path.normcase(os.path.abspath(output))
    taken = {
        image.stem.casefold()
        for image in images
        if os.path.normcase(os.path.dirname(os.path.abspath(image))) == folder
    }
    names: list[str] = []
    stems = [(image.stem, False) for image in images]
    stems += [(name_of_prompt(prompt), True) for prompt in prompts]
    for stem, from_words in stems:
        name, number = stem, 1
        while _claims(name, from_words) & taken:
            number += 1
            name = f"{stem}-{number}"
        taken |= _claims(name, from_words)
        names.append(name)
    return names


def name_of_prompt(prompt: str) -> str:
    """Words as a file name on any system: letters, digits and underscores, 48 at most."""
    name = re.sub(r"\W+", "_", prompt).strip("_")[:48].rstrip("_") or "words"
    # Names of devices on Windows, whatever their ending.
    return f"{name}_" if re.fullmatch(r"(?i)con|prn|aux|nul|(com|lpt)\d", name) else name


def reference_of(target: Path) -> Path:
    """Where the reference that was made of words lies, beside the results named ``target``."""
    return target.with_name(f"{target.name}_reference.png")


def _claims(name: str, from_words: bool = False) -> set[str]:
    """The stems of all files written under a name: an OBJ's texture has one of its own."""
    claims = {name.casefold(), f"{name}_texture".casefold()}
    return claims | {f"{name}_reference".casefold()} if from_words else claims

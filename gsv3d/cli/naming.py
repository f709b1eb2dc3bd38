# SPDX-License-Identifier: Apache-2.0
"""Which pictures a command line means, and what their results are called."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from gsv3d.errors import GSV3DError, ImageError
from gsv3d.filenames import free_stem, is_own_result, keys_in, keys_of, safe_stem

IMAGE_SUFFIXES = frozenset(
    ".png .jpg .jpeg .jpe .jfif .webp .tif .tiff .bmp .gif .tga .ppm .pgm .avif .jp2".split()
)
"""Endings of files that count as pictures of a folder: lower case, with the dot."""

ENDINGS = (".glb", ".ply", ".obj", ".mtl", ".png", ".json", "_texture.png")
"""Endings of all files that a result may have."""
REFERENCE_ENDING = "_reference.png"


def expand_inputs(inputs: Sequence[Path]) -> tuple[list[Path], list[GSV3DError]]:
    """Turn folders into the pictures in them, sorted by name; each picture once.

    Results of earlier runs, such as contact sheets, are no pictures to work on: in a folder they
    are passed over.

    Returns:
        The pictures, and what could not be expanded: folders without pictures or not readable, and
        files that are results. Other files are taken as they are: whether they can be read shows
        when they are.
    """
    pictures: dict[str, Path] = {}
    problems: list[GSV3DError] = []
    for given in inputs:
        if os.path.isdir(given):  # False where the name is too long
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
            elif not (
                found := [path for path in found if not is_own_result(path, references=True)]
            ):
                problems.append(
                    ImageError(f"The folder {given} holds no pictures but results of GSV3D.")
                )
        elif is_own_result(given):
            problems.append(
                ImageError(
                    f"{given} was made by GSV3D and is left out.", "Name the picture it shows."
                )
            )
            continue
        else:
            found = [given]
        for path in found:
            pictures.setdefault(os.path.normcase(os.path.abspath(path)), path)
    return list(pictures.values()), problems


def name_results(
    images: Sequence[Path],
    output: Path,
    prompts: Sequence[str] = (),
    overwrite: bool = False,
) -> list[str]:
    """Return a name for the results of each picture, then of each prompt, all different.

    A picture gives its stem, a prompt its words; both as any system takes them. No result
    overwrites another of the same run, on file systems that ignore case too, nor one of the
    pictures, should they lie in the output folder.

    Args:
        images: the pictures.
        output: folder of the results; it may be missing.
        prompts: words that references are made of.
        overwrite: whether results may replace other files in the folder.
    """
    folder = os.path.normcase(os.path.abspath(output))
    taken = set() if overwrite else keys_in(output)
    for image in images:
        if os.path.normcase(os.path.dirname(os.path.abspath(image))) == folder:
            taken |= keys_of(image.stem, ENDINGS)
    names: list[str] = []
    stems: list[tuple[str, tuple[str, ...]]]
    stems = [(safe_stem(image.stem), ENDINGS) for image in images]
    stems += [(name_of_prompt(prompt), (*ENDINGS, REFERENCE_ENDING)) for prompt in prompts]
    for stem, endings in stems:
        names.append(free_stem(stem, endings, taken))
        taken |= keys_of(names[-1], endings)
    return names


def name_of_prompt(prompt: str) -> str:
    """Return words as a file name on any system: letters, digits and underscores, 48 at most."""
    return safe_stem(re.sub(r"\W+", "_", prompt).strip("_")[:48].rstrip("_") or "words")


def reference_of(target: Path) -> Path:
    """Return where the reference that was made of words lies, beside the results ``target``."""
    return target.with_name(target.name + REFERENCE_ENDING)


def with_name(error: Exception, image: Path) -> str:
    """Return an error's sentence, headed by the picture it is about unless it names that."""
    text = str(error)
    return text if str(image) in text else f"{image}: {text}"

# SPDX-License-Identifier: Apache-2.0
"""The pictures that a command line names, and the names of their results."""

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

    Results of earlier runs in a folder, such as contact sheets, are left out.

    Returns:
        The pictures; and errors, one for each folder without pictures or not readable, and for each
        file that is a result. Other files are not looked at yet.
    """
    pictures: dict[str, Path] = {}
    problems: list[GSV3DError] = []
    for given in inputs:
        try:
            for path in _expand(given):
                pictures.setdefault(os.path.normcase(os.path.abspath(path)), path)
        except ImageError as error:
            problems.append(error)
    return list(pictures.values()), problems


def _expand(given: Path) -> list[Path]:
    """Return the pictures of a folder, or a file itself."""
    if not os.path.isdir(given):  # False where the name is too long
        if is_own_result(given):
            raise ImageError(
                f"{given} was made by GSV3D and is left out.", "Name the picture it shows."
            )
        return [given]
    try:
        files = [
            path
            for path in given.iterdir()
            if path.suffix.lower() in IMAGE_SUFFIXES
            and not path.name.startswith(".")
            and path.is_file()
        ]
    except OSError as error:
        raise ImageError(
            f"The folder {given} cannot be read: {error.strerror or error}."
        ) from error
    if not files:
        raise ImageError(
            f"The folder {given} holds no pictures.",
            "Choose a folder with PNG, JPEG, WebP or TIFF files in it.",
        )
    pictures = [path for path in files if not is_own_result(path, references=True)]
    if not pictures:
        raise ImageError(f"The folder {given} holds no pictures but results of GSV3D.")
    return sorted(pictures, key=lambda path: (path.name.casefold(), path.name))


def name_results(
    images: Sequence[Path],
    output: Path,
    prompts: Sequence[str] = (),
    overwrite: bool = False,
) -> list[str]:
    """Return a name for the results of each picture, then of each prompt, all different.

    The name is the picture's stem or the prompt's words, as any system takes them. No result
    overwrites another of the same run, nor a picture that lies in the output folder; this holds
    where file systems ignore case, too.

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
    stems += [(name_prompt(prompt), (*ENDINGS, REFERENCE_ENDING)) for prompt in prompts]
    for stem, endings in stems:
        names.append(free_stem(stem, endings, taken))
        taken |= keys_of(names[-1], endings)
    return names


def name_prompt(prompt: str) -> str:
    """Return a file name of words: letters, digits and underscores, 48 at most."""
    return safe_stem(re.sub(r"\W+", "_", prompt).strip("_")[:48].rstrip("_") or "words")


def name_reference(target: Path) -> Path:
    """Return where the reference that was made of words lies, beside the results ``target``."""
    return target.with_name(target.name + REFERENCE_ENDING)


def name_picture(error: Exception, image: Path) -> str:
    """Return an error's sentence, which begins with the picture unless it names it."""
    text = str(error)
    return text if str(image) in text else f"{image}: {text}"

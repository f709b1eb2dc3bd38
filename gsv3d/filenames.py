# SPDX-License-Identifier: Apache-2.0
"""Names for result files that every system accepts and that no other file has.

The rules are the strictest of Linux, macOS and Windows and hold everywhere, so that results can be
copied from one system to another. The Blender extension has a copy of this module in its zip, which
is why it imports only the standard library.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

MAX_STEM_BYTES = 200
"""Length of a result's stem in UTF-8 bytes.

Linux allows 255 bytes for a whole name. Windows allows 255 UTF-16 units, and a text never has more
of those than UTF-8 bytes. The rest is for ``-12``, ``_reference.png`` and Blender's own endings.
"""

RESULT_NOTE = "GSV3D result"
"""Text under ``Note`` in the PNGs that are results: sheets, textures, previews of Blender. It marks
them wherever they are moved and whatever they are named."""

_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')
_UNREADABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
_DEVICE = re.compile(r"(?i)(con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])(?= *(\.|\Z))")
_RECORD_KEYS = {"version", "model", "settings", "timings", "image", "files"}
_MAX_RECORD_BYTES = 2**20


def readable(text: str) -> str:
    """Replace control characters and lone surrogates, which no text may hold, by U+FFFD.

    Python puts lone surrogates into file names that are not UTF-8 (Linux) or not UTF-16 (Windows).
    Tabs and line ends stay.
    """
    return _UNREADABLE.sub("\ufffd", text)


def safe_stem(text: str) -> str:
    """Return a stem, at most ``MAX_STEM_BYTES`` long, for files on Linux, macOS and Windows.

    Characters that Windows forbids become ``_``, and a name of a Windows device gets one
    (``con_``). Dots and spaces at the end are dropped. A stem without any letter left is ``GSV3D``.
    """
    stem = _shorten(_FORBIDDEN.sub("_", readable(text)), MAX_STEM_BYTES - 1)
    return _DEVICE.sub(r"\1_", stem, count=1) if _DEVICE.match(stem) else stem or "GSV3D"


def numbered(stem: str, number: int) -> str:
    """Return ``stem-2`` for number 2, within ``MAX_STEM_BYTES``; ``stem`` itself for number 1."""
    ending = f"-{number}" if number > 1 else ""
    return _shorten(stem, MAX_STEM_BYTES - len(ending)) + ending if ending else stem


def key_of(name: str) -> str:
    """Return a key that is the same for names that a file system may take for one.

    Windows and macOS ignore case, and macOS ignores how accents are encoded.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def keys_in(folder: str | os.PathLike[str]) -> set[str]:
    """Return the keys of all names in a folder; none if it is missing or cannot be listed."""
    try:
        return {key_of(name) for name in os.listdir(folder)}
    except OSError:
        return set()


def keys_of(stem: str, endings: Iterable[str]) -> set[str]:
    """Return the keys of the files that a stem and several endings make."""
    return {key_of(stem + ending) for ending in endings}


def free_stem(stem: str, endings: Sequence[str], taken: Collection[str]) -> str:
    """Return the first of ``stem``, ``stem-2``, ``stem-3``, ... of which no file is taken.

    Args:
        stem: the name wished for.
        endings: endings of the files to be written under it, such as ``.glb`` and ``_texture.png``.
        taken: keys of names that are in use (`keys_in`).
    """
    names = (numbered(stem, number) for number in itertools.count(1))
    return next(name for name in names if keys_of(name, endings).isdisjoint(taken))


def claim(paths: Sequence[Path]) -> bool:
    """Create all these files, empty, or none of them if one is there already.

    Creating a file fails where another program was quicker, on every system: of two runs only one
    gets a name.

    Returns:
        True when the files are ours to write.

    Raises:
        OSError: the folder cannot be written to.
    """
    made: list[Path] = []
    try:
        for path in paths:
            with open(path, "xb"):
                made.append(path)
    except FileExistsError:
        release(made)
        return False
    except BaseException:
        release(made)
        raise
    return True


def release(paths: Iterable[Path]) -> None:
    """Delete those of the claimed files into which nothing was written."""
    for path in paths:
        with contextlib.suppress(OSError):
            if path.stat().st_size == 0:
                path.unlink()


def is_own_result(picture: Path, references: bool = False) -> bool:
    """Return True for a picture that GSV3D wrote as a result: a contact sheet, texture or preview.

    It is known by its note or, where a program has taken that out, by a record (``.json``) beside
    it that names it.

    Args:
        picture: path of the picture.
        references: return True for a reference made of words as well, if a record names it: its
            object is made.
    """
    if picture.suffix.lower() != ".png":
        return False
    key = key_of(readable(picture.name))
    for stem in {picture.stem, picture.stem.removesuffix("_texture")}:
        files = _record(picture.with_name(f"{stem}.json")).get("files")
        if isinstance(files, list) and key in {key_of(str(name)) for name in files}:
            return True
    if references and picture.stem.endswith("_reference"):
        stem = picture.stem.removesuffix("_reference")
        image = str(_record(picture.with_name(f"{stem}.json")).get("image"))
        if key == key_of(re.split(r"[\\/]", image)[-1]):
            return True
    return _has_note(picture)


def _record(path: Path) -> dict[str, Any]:
    """Return the content of a result's record; nothing where there is no such file."""
    try:
        if path.stat().st_size > _MAX_RECORD_BYTES:
            return {}
        content: Any = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) and content.keys() >= _RECORD_KEYS else {}


def _has_note(picture: Path) -> bool:
    if not os.path.isfile(picture):  # to open a pipe is to wait for who writes into it
        return False
    try:
        with open(picture, "rb") as file:
            return f"tEXtNote\0{RESULT_NOTE}".encode() in file.read(4096)
    except OSError:
        return False


def _shorten(text: str, size: int) -> str:
    """Cut to so many UTF-8 bytes, between characters, and drop dots and spaces at the end."""
    return text.encode()[:size].decode("utf-8", "ignore").rstrip(". ")

# SPDX-License-Identifier: GPL-3.0-or-later
"""What went wrong, in words an artist can act on."""

from __future__ import annotations

import os

from .filenames import readable

MAX_PATH_CHARS = 259 if os.name == "nt" else None
"""Length of a whole path on Windows, where longer ones have not been allowed."""


class Problem(Exception):  # noqa: N818 - it is told to artists, and not every one is an error
    """One sentence about what is wrong, and what to do about it.

    ``str()`` is both; the panel shows them on lines of their own. File names in them are made
    `readable`: Blender takes no others.
    """

    def __init__(self, what: str, hint: str = "") -> None:
        self.what = readable(what)
        self.hint = readable(hint)
        super().__init__(self.what)

    def __str__(self) -> str:
        return f"{self.what} {self.hint}".strip()


def file_problem(error: OSError, path: object, doing: str) -> Problem:
    """Put an operating-system error about ``path`` into words; ``doing`` is e.g. ``"read"``."""
    if MAX_PATH_CHARS is not None and len(os.path.abspath(str(path))) > MAX_PATH_CHARS:
        return Problem(
            f"The path is too long, Windows allows {MAX_PATH_CHARS} characters: {path}.",
            "Choose a folder with a shorter path.",
        )
    if isinstance(error, FileNotFoundError):
        return Problem(f"There is no file {path}.", "Check the path.")
    if isinstance(error, PermissionError):
        return Problem(f"No permission to {doing} {path}.", "Choose another place.")
    if isinstance(error, IsADirectoryError):
        return Problem(f"{path} is a folder, not a file.", "Name a file.")
    if error.errno == 28:  # ENOSPC has this number on every platform Blender runs on
        return Problem(
            f"The disk is full: could not {doing} {path}.", "Free some space and try again."
        )
    return Problem(f"Could not {doing} {path}: {error.strerror or error}.", "Check the path.")

# SPDX-License-Identifier: GPL-3.0-or-later
"""What went wrong, in words an artist can act on."""

from __future__ import annotations


class Problem(Exception):  # noqa: N818 - it is told to artists, and not every one is an error
    """One sentence about what is wrong, and what to do about it.

    ``str()`` is both; the panel shows them on lines of their own.
    """

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what} {self.hint}".strip()


def file_problem(error: OSError, path: object, doing: str) -> Problem:
    """Put an operating-system error about ``path`` into words; ``doing`` is e.g. ``"read"``."""
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

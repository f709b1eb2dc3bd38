# SPDX-License-Identifier: Apache-2.0
"""Errors a user may see: one sentence that says what and where, and a hint that says what to do."""

from __future__ import annotations


class GSV3DError(Exception):
    """Base of all errors meant for the user's eyes.

    Args:
        message: one sentence: what went wrong, and with which file, field or object.
        hint: one sentence: what to do about it; may be empty.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()


class ImageError(GSV3DError):
    """A picture that cannot be used as a reference."""


class ModelError(GSV3DError):
    """A model that is missing, incomplete or of another kind."""


class DataError(GSV3DError):
    """A data set or an object file that cannot be used."""


class OutputError(GSV3DError):
    """A result that cannot be written."""


class Cancelled(GSV3DError):  # noqa: N818 - a wish, not an error
    """The user asked to stop; raised from an observer, passed through by the pipeline."""

    def __init__(self, message: str = "The generation was cancelled.", hint: str = "") -> None:
        super().__init__(message, hint)

# SPDX-License-Identifier: Apache-2.0
"""Errors of the protocol package."""

from __future__ import annotations

#: What to do about a fault of the other side.
REPORT = "This is a fault of GSV3D: please report it with the backend's log file."


class WordedError(Exception):
    """Base of the errors whose words are shown to the user.

    Args:
        what: one sentence: what is wrong, and where.
        hint: one sentence: what to do about it; may be empty.
    """

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what, hint)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what} {self.hint}".rstrip()


class ProtocolError(WordedError, ValueError):
    """A message is not valid; `what` names the field, its value's size and its bounds.

    Args:
        job: the job the message was about, where that could be read.
    """

    def __init__(self, what: str, hint: str = "", job: str | None = None) -> None:
        super().__init__(what, hint)
        self.job = job


class VersionError(ProtocolError):
    """The two sides speak no common version of the protocol."""


class ConnectionFileError(ProtocolError):
    """The connection file is missing, unreadable or damaged."""

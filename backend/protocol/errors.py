# SPDX-License-Identifier: Apache-2.0
"""What the protocol package raises: one sentence, and a hint where there is something to do."""

from __future__ import annotations

#: What to do about a fault of the other side.
REPORT = "This is a fault of GSV3D: please report it with the backend's log file."


class ProtocolError(ValueError):
    """Something that is not a valid message: names the field, its value's size and its bounds.

    Args:
        what: one sentence: what is wrong.
        hint: one sentence: what to do about it; may be empty.
        job: the job the message was about, where that could be read.
    """

    def __init__(self, what: str, hint: str = "", job: str | None = None) -> None:
        super().__init__(what, hint)
        self.what = what
        self.hint = hint
        self.job = job

    def __str__(self) -> str:
        return f"{self.what} {self.hint}".rstrip()


class VersionError(ProtocolError):
    """The two sides speak no common version of the protocol."""


class ConnectionFileError(ProtocolError):
    """The connection file is missing, unreadable or damaged."""

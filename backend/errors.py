# SPDX-License-Identifier: Apache-2.0
"""What the backend itself raises, in the words its user sees."""

from __future__ import annotations

import errno


class BackendError(Exception):
    """One sentence that says what is wrong and where, and one that says what to do."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what, hint)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what} {self.hint}".rstrip()


class StorageError(BackendError):
    """The data folder cannot be written or read."""


#: No space, quota used up, file size limit.
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG}


def storage_error(error: OSError, folder: object, doing: str) -> StorageError:
    """Return what to tell of an operating system error met while `doing` something in `folder`."""
    # Windows reports a full disk as 112 (ERROR_DISK_FULL) or 39 (ERROR_HANDLE_DISK_FULL).
    if error.errno in _FULL or getattr(error, "winerror", None) in (112, 39):
        return StorageError(
            f"The disk is full: there is no space in {folder} for {doing}.",
            "Free some space, or start the backend with --data-dir on another disk, and try again.",
        )
    return StorageError(
        f"The folder {folder} cannot be used for {doing}: {error.strerror or error}.",
        "Check that it is there and that you may write in it.",
    )

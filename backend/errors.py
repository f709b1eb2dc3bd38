# SPDX-License-Identifier: Apache-2.0
"""Errors of the backend, worded for its user."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from .protocol.errors import WordedError


class BackendError(WordedError):
    """Something that the backend cannot do."""


class StorageError(BackendError):
    """The data folder cannot be written or read."""


#: No space, quota used up, file size limit.
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG}


@contextlib.contextmanager
def storing(what: str, folder: object) -> Iterator[None]:
    """Raise StorageError where the system refuses to store something in a folder in this block."""
    try:
        yield
    except OSError as error:
        # Windows reports a full disk as 112 (ERROR_DISK_FULL) or 39 (ERROR_HANDLE_DISK_FULL).
        if error.errno in _FULL or getattr(error, "winerror", None) in (112, 39):
            raise StorageError(
                f"The disk is full: there is no space in {folder} for {what}.",
                "Free some space, or start the backend with --data-dir on another disk, and try "
                "again.",
            ) from error
        raise StorageError(
            f"The folder {folder} cannot be used for {what}: {error.strerror or error}.",
            "Check that it is there and that you may write in it.",
        ) from error

# SPDX-License-Identifier: Apache-2.0
"""A disk without space."""

import errno
import os


def report_full(*_: object, **__: object) -> None:
    """Raise what the system raises when the disk is full, in place of a function that writes."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

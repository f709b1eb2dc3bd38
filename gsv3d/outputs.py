# SPDX-License-Identifier: Apache-2.0
"""Writing results: whole or not at all, and a failure said in words."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from pathlib import Path

from gsv3d.errors import OutputError

_REASONS = {
    errno.ENOSPC: ("the disk is full", "Free some space, or choose another folder."),
    errno.EFBIG: ("the file is larger than is allowed here", "Choose another folder."),
    errno.EACCES: ("writing there is not allowed", "Choose a folder of your own."),
    errno.EPERM: ("writing there is not allowed", "Choose a folder of your own."),
    errno.EROFS: ("the disk is read-only", "Choose another folder."),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "Choose another folder."),
    errno.ENAMETOOLONG: ("the name is too long", "Choose a shorter name."),
}
if hasattr(errno, "EDQUOT"):  # not on Windows
    _REASONS[errno.EDQUOT] = ("your disk quota is used up", "Free some space.")

_WINDOWS_DISK_FULL = (39, 112)  # ERROR_HANDLE_DISK_FULL, ERROR_DISK_FULL


def write_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file through a temporary one beside it, so that no half-written file is ever seen.

    Args:
        path: of the file; an older one is replaced only when the new one is complete.
        data: the file's bytes.

    Raises:
        OutputError: the disk is full, writing is not allowed, ...
    """
    target = Path(path)
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(
            dir=target.parent, prefix=f".{target.name[:40]}.", suffix=".part"
        )
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _share_like_new(temporary)
        os.replace(temporary, target)
    except OSError as error:
        raise output_error(target, error) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Makes a folder and those above it where missing.

    Raises:
        OutputError: it can't be made, or a file has that name.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise OutputError(f"{folder} is a file, not a folder.", "Choose another folder.") from error
    except OSError as error:
        raise output_error(folder, error) from error
    return folder


def output_error(path: Path, error: OSError) -> OutputError:
    """The sentence for an operating system's refusal to write ``path``."""
    code = error.errno
    if getattr(error, "winerror", None) in _WINDOWS_DISK_FULL:
        code = errno.ENOSPC
    if code == errno.ENOENT:
        return OutputError(
            f"{path} could not be written: its folder {path.parent} is not there.",
            "Choose another folder.",
        )
    reason, hint = _REASONS.get(
        code or 0, ((error.strerror or str(error)).lower(), "Choose another folder.")
    )
    return OutputError(f"{path} could not be written: {reason}.", hint)


def _share_like_new(path: str) -> None:
    """Gives the temporary file the permissions of any new file (mkstemp makes it private)."""
    if os.name == "posix":
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(path, 0o666 & ~mask)

# SPDX-License-Identifier: Apache-2.0
"""Files and folders that only their user can open."""

from __future__ import annotations

import errno
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path

#: Seconds in which a file is replaced that others have open on Windows.
REPLACE_S = 2.0


def create_private(path: Path) -> int:
    """Create a new file only its user can open, and return its descriptor, open for writing.

    Raises:
        OSError: it exists already, or cannot be made private.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags, 0o600)
    if sys.platform == "win32":
        try:
            _restrict_windows(path, "F")
        except OSError:
            os.close(descriptor)
            path.unlink()
            raise
    return descriptor


def replace(source: Path, target: Path) -> None:
    """Rename a file, in place of the one that is there.

    Windows refuses that while a program has one of the two open, as scanners and clients have for
    a moment; so it is tried for some seconds.

    Raises:
        OSError: it cannot be renamed.
    """
    end = time.monotonic() + REPLACE_S
    while True:
        try:
            os.replace(source, target)
            return
        except PermissionError:
            if sys.platform != "win32" or time.monotonic() > end:
                raise
        time.sleep(0.02)


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its user can open, in place of the one that is there.

    It is written under a random name and renamed, so that nobody sees a part of it.

    Raises:
        OSError: its folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = create_private(temporary)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def make_private_folder(path: Path) -> None:
    """Make a folder, and the missing ones above it, that only their user can open.

    On POSIX an existing folder is closed to others. On Windows it keeps its rights, since folders
    under the user's own are private anyway.

    Raises:
        OSError: it cannot be made, or it is another user's, who could exchange its files.
    """
    for folder in (*reversed(path.parents), path):
        if folder.exists():
            continue
        folder.mkdir(mode=0o700, exist_ok=True)
        if sys.platform == "win32":
            _restrict_windows(folder, "(OI)(CI)F")
    if sys.platform == "win32":
        return
    status = path.stat()
    if status.st_uid != os.getuid():
        raise PermissionError(errno.EPERM, "it belongs to another user", str(path))
    if status.st_mode & 0o077:
        path.chmod(0o700)


def _restrict_windows(path: Path, rights: str) -> None:
    """Take inherited rights off an empty file or folder, and give them only to its user."""
    user = os.environ.get("USERNAME", "")
    domain = os.environ.get("USERDOMAIN", "")
    if not user:
        raise OSError("the name of the user is not known (USERNAME is empty)")
    account = f"{domain}\\{user}" if domain else user
    # A full path, since Windows looks into the current folder first.
    icacls = Path(os.environ.get("SystemRoot", r"C:\Windows"), "System32", "icacls.exe")
    try:
        result = subprocess.run(
            [str(icacls), str(path), "/inheritance:r", "/grant:r", f"{account}:{rights}"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=20,
            check=False,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(f"icacls did not answer within {error.timeout} s for {path}") from error
    if result.returncode:
        raise OSError(f"icacls could not restrict {path}: {result.stderr.strip()}")

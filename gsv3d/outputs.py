# SPDX-License-Identifier: Apache-2.0
"""Write files and folders whole or not at all, and say in words why one cannot be written."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from gsv3d.errors import OutputError, OutputNameError
from gsv3d.filenames import claim, numbered, release

MAX_PATH_CHARS = 259 if os.name == "nt" else None
"""Longest path that Windows takes unless longer ones have been allowed."""

_REASONS = {
    errno.ENOSPC: ("the disk is full", "Free some space, or choose another folder."),
    errno.EFBIG: ("the file is larger than is allowed here", "Choose another folder."),
    errno.EACCES: ("writing there is not allowed", "Choose a folder of your own."),
    errno.EPERM: ("writing there is not allowed", "Choose a folder of your own."),
    errno.EROFS: ("the disk is read-only", "Choose another folder."),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "Choose another folder."),
}
if hasattr(errno, "EDQUOT"):  # not on Windows
    _REASONS[errno.EDQUOT] = ("your disk quota is used up", "Free some space.")

_BAD_NAMES = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)
_WINDOWS_DISK_FULL = (39, 112)  # ERROR_HANDLE_DISK_FULL, ERROR_DISK_FULL


def write_atomic(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write a file through a temporary one beside it, so that no half-written file is ever seen.

    Args:
        path: path of the file; an older one is replaced only when the new one is complete.
        data: the file's bytes.

    Returns:
        The path.

    Raises:
        OutputError: it cannot be written, as on a full disk or where writing is not allowed.
    """
    target = Path(path)
    temporary = _temporary(target.parent)
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
        return target
    except OSError as error:
        raise output_error(target, error) from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Make a folder and those above it where missing, and try to write into it.

    Raises:
        OutputError: it can't be made or written to, or a file has that name.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = _temporary(folder)
        with open(probe, "xb"):
            pass
        os.unlink(probe)
    except FileExistsError as error:
        raise OutputError(f"{folder} is a file, not a folder.", "Choose another folder.") from error
    except OSError as error:
        raise output_error(folder, error) from error
    return folder


@contextlib.contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Yield a folder beside ``target``, which must not exist; at the end it gets that name.

    If anything is raised, the folder is deleted.

    Raises:
        OutputError: something could not be written.
    """
    partial = target.with_name(f".{target.name}.part")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        os.rename(partial, target)
    except OSError as error:
        raise output_error(target, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_room(what: str, size: int, folder: Path) -> None:
    """Check that a disk has room for a model.

    Args:
        what: begins the sentence, such as "sv3d needs".
        size: bytes that will be written.
        folder: on the disk; it must exist.

    Raises:
        OutputError: the disk has too little room.
    """
    free = shutil.disk_usage(folder).free
    if free < size:
        raise OutputError(
            f"{what} {size / 1e9:.1f} GB, and the disk of {folder} has {free / 1e9:.1f} GB free.",
            "Free some space, or let GSV3D_MODELS name a folder on another disk.",
        )


@contextlib.contextmanager
def free_target(target: Path, endings: Sequence[str], overwrite: bool = False) -> Iterator[Path]:
    """Hold a name for a result's files that no other file has while they are written.

    Empty files hold it, so that two runs into one folder never mix their results. Those that are
    still empty at the end are deleted.

    Args:
        target: path of the files without their endings: the name wished for.
        endings: endings of all files.
        overwrite: whether to take ``target`` itself in any case.

    Yields:
        ``target``, or with ``-2``, ``-3``, ... where one of its files is there already.

    Raises:
        OutputError: the folder cannot be written to.
    """
    if overwrite:
        yield target
        return
    held = _claim_first(target, endings)
    try:
        yield held
    finally:
        release(held.with_name(held.name + ending) for ending in endings)


def _claim_first(target: Path, endings: Sequence[str]) -> Path:
    try:
        for number in itertools.count(1):
            name = numbered(target.name, number)
            if claim([target.with_name(name + ending) for ending in endings]):
                break
    except OSError as error:
        raise output_error(target, error) from error
    return target.with_name(name)


def output_error(path: Path, error: OSError) -> OutputError:
    """Return the user's error for an operating system's refusal to write ``path``."""
    code = error.errno
    length = len(str(path.absolute())) + len(_temporary(Path()).name)
    if code == errno.ENOENT and MAX_PATH_CHARS is not None and length > MAX_PATH_CHARS:
        return OutputNameError(
            f"{path} could not be written: the path is too long for Windows, "
            f"which allows {MAX_PATH_CHARS} characters.",
            "Choose a folder with a shorter path.",
        )
    if code in _BAD_NAMES:
        return OutputNameError(
            f"{path} could not be written: the name is too long or has characters that are not "
            "allowed there.",
            "Choose another name.",
        )
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


def _temporary(folder: Path) -> Path:
    """Return a new name in a folder.

    ``tempfile`` tries thousands of names where Windows denies the folder, and makes private files.
    """
    return folder / f".{uuid.uuid4().hex[:12]}.part"

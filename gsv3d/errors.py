# SPDX-License-Identifier: Apache-2.0
"""Errors a user may see: one sentence that says what and where, and a hint that says what to do."""

from __future__ import annotations

import errno
import traceback

TEXTURE_MODULES = ("gsv3d.meshing.texture", "gsv3d.meshing.export", "gsv3d.results")
"""Modules whose memory depends on the texture. A job that fails before them would also fail with a
smaller texture."""

JOB_BYTES = 100_000_000
"""Memory that a job takes beside its texture. With it, jobs of the sizes named under limits of 2.2
and 2.6 GB (3904 and 7104 texels a side) ran to their end."""

TEXEL_BYTES = 11
"""Bytes for each texel of a large texture: colors, charts, the file being written.

Measured: ``gsv3d generate`` peaks at 1,097 MB with 4096 texels a side and at 1,649 MB with 8192.
"""

_STEP = 64


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


class OutputNameError(OutputError):
    """A file name that cannot be used where the result should go; others can be."""


class Cancelled(GSV3DError):  # noqa: N818 - a wish, not an error
    """The user asked to stop; raised from an observer, passed through by the pipeline."""

    def __init__(self, message: str = "The generation was cancelled.", hint: str = "") -> None:
        super().__init__(message, hint)


def no_decoder() -> ModelError:
    """Return the error for a model that only draws views."""
    return ModelError(
        "This model draws views of the object but has no decoder that makes 3D Gaussians of them.",
        "Choose another model, or train a decoder for it (docs/training.md).",
    )


def first_line(error: BaseException) -> str:
    """Return an error's first line, for a sentence."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def out_of_memory(error: BaseException, texture_size: int = 0) -> GSV3DError | None:
    """Return the user's error for one that says that memory ran out; None for any other error.

    Args:
        error: from any library: numpy and Pillow raise MemoryError, torch a RuntimeError.
        texture_size: side of the texture that was asked for, in texels.
    """
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which is slow to import
        return GSV3DError(
            "The graphics card has not enough memory.",
            "Close other programs that use it, or work on the processor (--device cpu).",
        )
    by_system = isinstance(error, OSError) and error.errno == errno.ENOMEM
    by_torch = isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    if not (isinstance(error, MemoryError) or by_system or by_torch):
        return None
    hint = "Close other programs"
    largest = find_largest_texture(error) if texture_size else 0
    if 0 < largest < texture_size:
        hint += (
            f", or choose a smaller texture: {largest} instead of {texture_size} fits into the"
            " memory that is free"
        )
    return GSV3DError("The memory of this computer was not enough.", f"{hint}.")


def find_largest_texture(error: BaseException) -> int:
    """Return the side of the largest texture for which the memory is enough.

    Args:
        error: error of the job whose memory was not enough; the memory that its functions still
            hold is freed.

    Returns:
        The side in texels; 0 where no texture fits, or the memory ran out before the texture.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if not any(frame.f_globals["__name__"] in TEXTURE_MODULES for frame in frames):
        return 0
    del frames
    traceback.clear_frames(error.__traceback__)
    spare = _free_bytes() - JOB_BYTES
    return int((max(spare, 0) / TEXEL_BYTES) ** 0.5) // _STEP * _STEP


def _free_bytes() -> int:
    """Return the computer's free bytes, or what this process may still take if that is less."""
    import numpy as np
    import psutil

    least, most = 0, int(psutil.virtual_memory().available)
    while most - least > 2**22:
        middle = (least + most) // 2
        try:
            np.empty(middle, np.uint8)  # memory that is not written to costs nothing
        except MemoryError:
            most = middle
        else:
            least = middle
    return least

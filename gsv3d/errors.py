# SPDX-License-Identifier: Apache-2.0
"""Errors a user may see: one sentence that says what and where, and a hint that says what to do."""

from __future__ import annotations

import errno

from gsv3d.memory import largest_texture


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
    """Return the sentence for a model that draws views alone."""
    return ModelError(
        "This model draws views of the object but has no decoder that makes 3D Gaussians of them.",
        "Choose another model, or train a decoder for it (docs/training.md).",
    )


def out_of_memory(error: BaseException, texture_size: int = 0) -> GSV3DError | None:
    """Return the sentence for an error that says that memory ran out; None for any other error.

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
    largest = largest_texture(error) if texture_size else 0
    if 0 < largest < texture_size:
        hint += (
            f", or choose a smaller texture: {largest} instead of {texture_size} fits into the"
            " memory that is free"
        )
    return GSV3DError("The memory of this computer was not enough.", f"{hint}.")

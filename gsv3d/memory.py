# SPDX-License-Identifier: Apache-2.0
"""The largest texture that a job has memory for."""

from __future__ import annotations

import traceback

TEXTURE_MODULES = ("gsv3d.meshing.texture", "gsv3d.meshing.export", "gsv3d.results")
"""Name the modules that take memory for the texture. A job that fails before it gets to them would
fail with a smaller texture, too."""

JOB_BYTES = 100_000_000
"""Leave so much for what a job takes beside its texture. With it, jobs of the sizes that are named
under limits of 2.2 and 2.6 GB (3904 and 7104 texels a side) ran to their end."""

TEXEL_BYTES = 11
"""Count so many bytes for each texel of a large texture: colors, charts, the file being written.

Measured: ``gsv3d generate`` peaks at 1,097 MB with 4096 texels a side and at 1,649 MB with 8192.
"""

_STEP = 64


def largest_texture(error: BaseException) -> int:
    """Return the side of the largest texture that the memory is enough for.

    Args:
        error: of the job whose memory was not enough; what its functions still hold is let go.

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
    """Return what the computer has left, or what this process may still take if that is less."""
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

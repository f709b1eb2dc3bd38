# SPDX-License-Identifier: Apache-2.0
"""Samples drawn while training: grids of pictures, written as PNG into the run's folder."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gsv3d.outputs import make_folder, write_atomic

WIDEST = 4096
"""Pixels of a sheet's longer side; larger ones are made smaller."""


def on_white(pictures: Tensor) -> Tensor:
    """What the autoencoder reads or writes to colours one can look at.

    Args:
        pictures: (..., 3 or 4, H, W) in -1..1; with a fourth channel the colours are on white
            already, and coverage follows.

    Returns:
        (..., H, W, 3) in 0..1.
    """
    return ((pictures[..., :3, :, :].float() + 1) / 2).clamp(0, 1).movedim(-3, -1)


def rgba_on_white(rgba: Tensor) -> Tensor:
    """(..., 4, H, W) straight alpha in 0..1 to (..., H, W, 3) on white."""
    alpha = rgba[..., 3:, :, :]
    return (rgba[..., :3, :, :] * alpha + 1 - alpha).clamp(0, 1).movedim(-3, -1)


def sheet(grid: Tensor) -> np.ndarray:
    """(rows, columns, H, W, 3) in 0..1 to one picture (rows H, columns W, 3) uint8."""
    rows, columns, height, width, _ = grid.shape
    joined = grid.permute(0, 2, 1, 3, 4).reshape(rows * height, columns * width, 3)
    return (joined.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def write_sheet(path: Path, picture: np.ndarray) -> None:
    """Write a (H, W, 3) uint8 picture as PNG.

    Raises:
        OutputError: the disk is full, ...
    """
    image = Image.fromarray(picture)
    image.thumbnail((WIDEST, WIDEST))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    make_folder(path.parent)
    write_atomic(path, buffer.getvalue())

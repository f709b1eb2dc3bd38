# SPDX-License-Identifier: Apache-2.0
"""Texture coordinates."""

from __future__ import annotations

import numpy as np
import xatlas


def unwrap_uvs(vertices: np.ndarray, faces: np.ndarray, texture_size: int) -> np.ndarray:
    """Cut the surface into charts without overlap, packed into one square texture (xatlas).

    Args:
        vertices: (V, 3).
        faces: (F, 3).
        texture_size: T, for the gap between charts: 2 texels or more, growing with T.

    Returns:
        (F, 3, 2) float32 in 0..1, origin at the bottom left.
    """
    atlas = xatlas.Atlas()
    atlas.add_mesh(
        np.ascontiguousarray(vertices, dtype=np.float32),
        np.ascontiguousarray(faces, dtype=np.uint32),
    )
    charts = xatlas.ChartOptions()
    packing = xatlas.PackOptions()
    packing.resolution = texture_size
    packing.padding = max(2, texture_size // 256)
    packing.bilinear = True
    atlas.generate(charts, packing)
    _, indices, uvs = atlas[0]
    # xatlas normalizes by the atlas' own width and height; one scale for both keeps texels square.
    extent = np.array([atlas.width, atlas.height], dtype=np.float32)
    scaled = np.asarray(uvs, dtype=np.float32) * (extent / extent.max())
    corners = scaled[np.asarray(indices, dtype=np.int64)]
    return np.clip(corners.reshape(len(faces), 3, 2), 0.0, 1.0)

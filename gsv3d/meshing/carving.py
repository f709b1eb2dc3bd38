# SPDX-License-Identifier: Apache-2.0
"""Carve gaps finer than the mesh's grid by the texture: between leaves, strings and lattices.

Where a picture's gaps are narrower than the grid can hold, the mesh gets an outline with the gaps
filled, a little wider than the picture's, and the texture's alpha has the gaps, as in games'
foliage and fences. A point that lands beside the picture's object is carved, whatever its depth.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import ndimage

from gsv3d.meshing.distances import measure_distances
from gsv3d.meshing.reference import Reference
from gsv3d.meshing.settings import MeshSettings


def cover_fine_gaps(
    reference: Reference, voxel: float, settings: MeshSettings = MeshSettings()
) -> Reference:
    """Return the picture with an outline that the mesh can follow, and an alpha that carves it.

    Args:
        reference: the picture and its camera.
        voxel: edge length of a voxel of the mesh's grid, in the world.
        settings: what is carved, and how.

    Returns:
        The same reference where its outline is no finer than the grid.
    """
    shown = reference.coverage > 0.5
    camera = reference.camera.resized(len(shown))
    pixels = voxel * float(camera.Ks[0, 0, 0]) / float(np.linalg.norm(camera.positions[0].numpy()))
    gaps = _close_gaps(shown, settings.narrow_gap / 2 * pixels) & ~shown
    if gaps.sum() <= settings.carved_share * shown.sum():
        return reference
    near = settings.filled_gap / 2 * pixels
    fine = (
        ndimage.uniform_filter(gaps - settings.carved_share_near * shown, 2 * round(near) + 1)
        > 1e-6
    )
    filled = shown | (_close_gaps(shown, near) & fine)
    filled |= (measure_distances(~filled) <= settings.filled_margin * pixels) & fine
    rows, columns = ndimage.distance_transform_edt(
        ~shown, return_distances=False, return_indices=True
    )
    rgba = np.dstack([reference.rgba[rows, columns, :3], np.where(filled, 255, 0)])
    steep = np.clip((reference.coverage - 0.5) * settings.alpha_steepness + 0.5, 0, 1)
    alpha = np.where(fine, steep, 1).astype(np.float32)
    return replace(reference, rgba=rgba.astype(np.uint8), alpha=alpha)


def _close_gaps(mask: np.ndarray, radius: float) -> np.ndarray:
    """Fill what no disc of the radius (in pixels) fits into (morphological closing)."""
    margin = int(np.ceil(radius)) + 1
    near = measure_distances(~np.pad(mask, margin)) <= radius
    return mask | (measure_distances(near) > radius)[margin:-margin, margin:-margin]

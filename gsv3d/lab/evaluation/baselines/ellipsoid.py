# SPDX-License-Identifier: Apache-2.0
"""An ellipsoid with the picture's outline and mean colour: a volume without a shape."""

from __future__ import annotations

import numpy as np

from gsv3d.lab.evaluation.baselines.cropping import crop_to_mask
from gsv3d.meshing.mesh import TexturedMesh


def ellipsoid(rgba: np.ndarray, rings: int = 24, segments: int = 48) -> TexturedMesh:
    """An ellipsoid of the picture's mean colour.

    Its axes across and up are those of the mask's box, its depth is their mean.

    Args:
        rgba: (H, W, 4) uint8 with straight alpha.
        rings: of faces between the poles.
        segments: around.
    """
    cropped = crop_to_mask(rgba)
    height, width = cropped.shape[:2]
    colour = cropped[cropped[..., 3] > 127][:, :3].astype(np.float64).mean(axis=0)
    axes = np.array([width, (width + height) / 2, height]) / max(width, height) / 2
    polar = np.linspace(0, np.pi, rings + 1)[:, None]
    around = np.arange(segments) * 2 * np.pi / segments
    sphere = np.stack(
        [
            np.sin(polar) * np.cos(around),
            np.sin(polar) * np.sin(around),
            np.broadcast_to(np.cos(polar), (rings + 1, segments)),
        ],
        axis=-1,
    )
    ring, segment = np.meshgrid(np.arange(rings), np.arange(segments), indexing="ij")
    a = ring * segments + segment
    b = ring * segments + (segment + 1) % segments
    c, d = a + segments, b + segments
    # At the poles a ring shrinks to a point, and with it one triangle of each quad.
    lower, upper = np.stack([a, c, d], axis=-1)[:-1], np.stack([a, d, b], axis=-1)[1:]
    faces = np.concatenate([lower.reshape(-1, 3), upper.reshape(-1, 3)])
    texture = np.broadcast_to(np.rint(colour).astype(np.uint8), (2, 2, 3))
    uvs = np.full((len(faces), 3, 2), 0.5)
    return TexturedMesh(sphere.reshape(-1, 3) * axes, faces, uvs, texture)

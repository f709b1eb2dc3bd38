# SPDX-License-Identifier: Apache-2.0
"""The picture extruded: depth without any knowledge of it."""

from __future__ import annotations

import numpy as np

from gsv3d.lab.evaluation.baselines.cropping import crop_to_mask
from gsv3d.meshing.mesh import TexturedMesh

SLAB_DEPTH = 0.25
"""Thickness of the slab in parts of its larger side."""

SLAB_PIXELS = 96
"""Pixels along the larger side of the slab's picture."""


def slab(rgba: np.ndarray, depth: float = SLAB_DEPTH) -> TexturedMesh:
    """The picture extruded: its opaque pixels as upright bars, facing azimuth 0.

    Front, back and sides show the pixels' colours.

    Args:
        rgba: (H, W, 4) uint8 with straight alpha.
        depth: thickness in parts of the larger side.
    """
    from PIL import Image

    cropped = crop_to_mask(rgba)
    scale = min(1.0, SLAB_PIXELS / max(cropped.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in cropped.shape[:2])
    premultiplied = (
        Image.fromarray(cropped).convert("RGBa").resize((width, height), Image.Resampling.BOX)
    )
    small = np.asarray(premultiplied.convert("RGBA"))
    mask = np.pad(small[..., 3] > 127, 1)
    side = max(height, width)
    half = depth / 2
    quads: list[np.ndarray] = []
    owners: list[np.ndarray] = []
    rows, columns = np.nonzero(mask[1:-1, 1:-1])
    x0 = (columns - width / 2) / side
    z1 = (height / 2 - rows) / side
    x1, z0 = x0 + 1 / side, z1 - 1 / side
    near, far = np.full(len(rows), -half), np.full(len(rows), half)
    corner = {
        "front": [(x0, near, z0), (x1, near, z0), (x1, near, z1), (x0, near, z1)],
        "back": [(x1, far, z0), (x0, far, z0), (x0, far, z1), (x1, far, z1)],
        "left": [(x0, far, z0), (x0, near, z0), (x0, near, z1), (x0, far, z1)],
        "right": [(x1, near, z0), (x1, far, z0), (x1, far, z1), (x1, near, z1)],
        "top": [(x0, near, z1), (x1, near, z1), (x1, far, z1), (x0, far, z1)],
        "bottom": [(x0, far, z0), (x1, far, z0), (x1, near, z0), (x0, near, z0)],
    }
    neighbour = {"left": (0, -1), "right": (0, 1), "top": (-1, 0), "bottom": (1, 0)}
    for name, corners in corner.items():
        keep = np.ones(len(rows), dtype=bool)
        if name in neighbour:
            down, right = neighbour[name]
            keep = ~mask[rows + 1 + down, columns + 1 + right]
        quads.append(np.stack([np.stack(c, axis=-1) for c in corners], axis=1)[keep])
        owners.append(np.flatnonzero(keep))
    vertices = np.concatenate(quads).reshape(-1, 3)
    owner = np.concatenate(owners)
    first = np.arange(len(owner))[:, None] * 4
    faces = np.concatenate([first + [0, 1, 2], first + [0, 2, 3]])
    texture = np.zeros((side, side, 3), dtype=np.uint8)
    texture[:height, :width] = small[..., :3]
    uv = np.stack([(columns + 0.5) / side, 1 - (rows + 0.5) / side], axis=-1)[owner]
    corner_uvs = np.repeat(np.concatenate([uv, uv])[:, None], 3, axis=1)
    return TexturedMesh(vertices, faces, corner_uvs, texture)

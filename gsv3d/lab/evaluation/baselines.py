# SPDX-License-Identifier: Apache-2.0
"""Baselines, which a model has to be better than: results made without any generation.

The module itself has those that need the reference picture alone: the picture extruded, which is
depth without any knowledge of it, and an ellipsoid, a volume without a shape.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from gsv3d.masks import box_of
from gsv3d.meshing.mesh import TexturedMesh

SLAB_DEPTH = 0.25
"""Thickness of the slab in parts of its larger side."""

SLAB_PIXELS = 96
"""Pixels along the larger side of the slab's picture."""


def crop_to_mask(rgba: np.ndarray) -> np.ndarray:
    """Crop an (H, W, 4) uint8 picture to the box of its alpha above one half.

    Raises:
        ValueError: nothing is opaque.
    """
    box = box_of(rgba[..., 3] > 127)
    if box is None:
        raise ValueError("nothing in the picture is opaque")
    return rgba[box]


def extrude_slab(rgba: np.ndarray) -> TexturedMesh:
    """Extrude the picture: its opaque pixels become upright bars, facing azimuth 0.

    Front, back and sides show the pixels' colors.

    Args:
        rgba: (H, W, 4) uint8 with straight alpha.
    """
    cropped = crop_to_mask(rgba)
    scale = min(1.0, SLAB_PIXELS / max(cropped.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in cropped.shape[:2])
    premultiplied = (
        Image.fromarray(cropped).convert("RGBa").resize((width, height), Image.Resampling.BOX)
    )
    small = np.asarray(premultiplied.convert("RGBA"))
    mask = np.pad(small[..., 3] > 127, 1)
    side = max(height, width)
    half = SLAB_DEPTH / 2
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
    neighbor = {"left": (0, -1), "right": (0, 1), "top": (-1, 0), "bottom": (1, 0)}
    for name, corners in corner.items():
        keep = np.ones(len(rows), dtype=bool)
        if name in neighbor:
            down, right = neighbor[name]
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


def make_ellipsoid(rgba: np.ndarray) -> TexturedMesh:
    """Make an ellipsoid of the picture's mean color.

    Its axes across and up are those of the mask's box, its depth is their mean.

    Args:
        rgba: (H, W, 4) uint8 with straight alpha.
    """
    cropped = crop_to_mask(rgba)
    height, width = cropped.shape[:2]
    color = cropped[cropped[..., 3] > 127][:, :3].astype(np.float64).mean(axis=0)
    axes = np.array([width, (width + height) / 2, height]) / max(width, height) / 2
    rings, segments = 24, 48  # of faces between the poles, and around
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
    texture = np.broadcast_to(np.rint(color).astype(np.uint8), (2, 2, 3))
    uvs = np.full((len(faces), 3, 2), 0.5)
    return TexturedMesh(sphere.reshape(-1, 3) * axes, faces, uvs, texture)


FROM_THE_PICTURE: dict[str, Callable[[np.ndarray], TexturedMesh]] = {
    "slab": extrude_slab,
    "ellipsoid": make_ellipsoid,
}
"""Baselines that need the (H, W, 4) uint8 reference alone."""

RETRIEVAL = "retrieval"
EMPTY = "empty"
NAMES = (RETRIEVAL, *FROM_THE_PICTURE, EMPTY)
"""All baselines, in the order of a table's rows; no model may have one of these names."""

# SPDX-License-Identifier: Apache-2.0
"""Input, views and mesh side by side on one picture."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gsv3d.cameras import DISTANCE, orbit
from gsv3d.meshing import TexturedMesh
from gsv3d.meshing.preview import render_mesh

TILE = 256
COLUMNS = 6
_BACKGROUND = (236, 236, 236, 255)
_INK = (60, 60, 60, 255)


def contact_sheet(
    prepared: np.ndarray,
    views: np.ndarray,
    azimuths_deg: np.ndarray,
    mesh: TexturedMesh,
    elevations_deg: np.ndarray,
    distance: float = DISTANCE,
) -> Image.Image:
    """Draw one picture of a whole result.

    The first row holds the input and some of the model's views, the second the textured mesh from
    the same sides, the third its bare shape.

    Args:
        prepared: (S, S, 4) uint8, the reference as the model saw it.
        views: (V, S, S, 3) uint8.
        azimuths_deg: (V,) of the views.
        mesh: the result.
        elevations_deg: (V,) of the views.
        distance: of the views' cameras from the origin.

    Returns:
        An RGB picture.
    """
    by_azimuth = np.argsort(np.asarray(azimuths_deg, dtype=np.float64) % 360.0, kind="stable")
    count = min(COLUMNS - 1, len(by_azimuth))
    chosen = by_azimuth[[round(i * len(by_azimuth) / count) for i in range(count)]]
    azimuths = [float(azimuths_deg[i]) % 360.0 for i in chosen]
    elevations = [float(elevations_deg[i]) for i in chosen]

    cameras = orbit(azimuths, elevations, size=TILE, distance=distance)
    textured = render_mesh(mesh, cameras, shading=0.35)
    clay = render_mesh(mesh, cameras, shading=1.0, clay=True)
    sides = [f"{azimuth:.0f}°" for azimuth in azimuths]
    rows: list[list[tuple[str, np.ndarray | None]]] = [
        [("input", prepared)],
        [(f"{len(mesh.faces):,} triangles", _texture_tile(mesh))],
        [("", None)],
    ]
    for side, view, color, shape in zip(sides, views[chosen], textured, clay, strict=True):
        rows[0].append((f"view {side}", view))
        rows[1].append((f"mesh {side}", color))
        rows[2].append((f"shape {side}", shape))

    sheet = Image.new("RGBA", (TILE * (count + 1), TILE * len(rows)), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=13)
    for row, tiles in enumerate(rows):
        for column, (label, tile) in enumerate(tiles):
            if tile is None:
                continue
            picture = Image.fromarray(tile).convert("RGBA")
            picture = picture.resize((TILE, TILE), Image.Resampling.BILINEAR)
            sheet.alpha_composite(picture, (column * TILE, row * TILE))
            draw.text((column * TILE + 6, row * TILE + 4), label, fill=_INK, font=font)
    return sheet.convert("RGB")


def _texture_tile(mesh: TexturedMesh) -> np.ndarray:
    """Return the texture with a margin, so that the label above it can be read."""
    inner = TILE - 48
    texture = Image.fromarray(mesh.texture).convert("RGBA")
    tile = np.zeros((TILE, TILE, 4), dtype=np.uint8)
    tile[28 : 28 + inner, 24 : 24 + inner] = texture.resize((inner, inner), Image.Resampling.BOX)
    return tile

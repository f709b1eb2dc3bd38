# SPDX-License-Identifier: Apache-2.0
"""Small pictures of a textured mesh without a graphics card, by a z-buffer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gsv3d.cameras import Cameras
from gsv3d.compiling import run_in_threads
from gsv3d.meshing import native
from gsv3d.meshing.mesh import ALPHA_CUTOFF, TexturedMesh
from gsv3d.meshing.raster import rasterize

CLAY = (0.72, 0.70, 0.68)


def rasterize_mesh(
    mesh: TexturedMesh,
    cameras: Cameras,
    *,
    shading: float = 0.0,
    clay: bool = False,
    supersample: int = 2,
) -> np.ndarray:
    """Rasterize the mesh; back faces are not drawn.

    Args:
        mesh: mesh in the world.
        cameras: V views.
        shading: 0 shows the texture as it is, 1 darkens fully by a light at the camera.
        clay: one gray instead of the texture, faces flat: shows the geometry.
        supersample: pixels are means of this many by this many samples.

    Returns:
        (V, H, W, 4) uint8 straight-alpha sRGB.
    """
    return rasterize_looks(mesh, cameras, ((shading, clay),), supersample)[0]


def rasterize_looks(
    mesh: TexturedMesh,
    cameras: Cameras,
    looks: Sequence[tuple[float, bool]],
    supersample: int = 2,
) -> np.ndarray:
    """Rasterize the mesh once and draw it in several looks; return (L, V, H, W, 4).

    Args:
        mesh, cameras, supersample: as ``rasterize_mesh`` takes them.
        looks: L pairs of its shading and clay.
    """

    def draw(i: int) -> list[np.ndarray]:
        return _rasterize_view(mesh, cameras, i, looks, supersample)

    pictures = [drawn for _, drawn in run_in_threads(draw, range(len(cameras)))]
    return np.stack([np.stack(views) for views in zip(*pictures, strict=True)])


def _rasterize_view(
    mesh: TexturedMesh,
    cameras: Cameras,
    i: int,
    looks: Sequence[tuple[float, bool]],
    factor: int,
) -> list[np.ndarray]:
    width, height = cameras.width * factor, cameras.height * factor
    viewmat = cameras.viewmats[i].cpu().numpy().astype(np.float64)
    (uv,), (z,) = cameras[i].project(mesh.vertices)
    corners, corner_z = uv[mesh.faces] * factor, z[mesh.faces]

    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    # Counter-clockwise from outside is clockwise in a picture whose y points down.
    turn = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    shown = np.flatnonzero(((turn < 0) | mesh.clipped) & (corner_z > 1e-2).all(axis=1))

    count = width * height
    depth, nearest = np.full(count, np.inf), np.full(count, -1)
    shares = np.empty((count, 3), dtype=np.float32)
    corners, corner_z = corners[shown], corner_z[shown]
    for fragments in rasterize(corners, width, height):
        pixels, triangles, weights = fragments.pixels, fragments.triangles, fragments.weights
        if mesh.clipped:
            over_z = weights / corner_z[triangles]
            over_z /= over_z.sum(axis=1, keepdims=True)  # perspective-correct
            solid = (
                _look_up_texels(mesh, _blend_uvs(mesh, shown[triangles], over_z))[:, 3]
                >= ALPHA_CUTOFF
            )
            pixels, triangles, weights = pixels[solid], triangles[solid], weights[solid]
        native.keep_nearest(pixels, triangles, weights, corner_z, depth, nearest, shares)
    covered = np.flatnonzero(nearest >= 0)
    faces = shown[nearest[covered]]
    weights = shares[covered]
    return [
        _average_samples(
            covered, _shade_pixels(mesh, viewmat, faces, weights, *look), cameras, factor
        )
        for look in looks
    ]


def _average_samples(
    covered: np.ndarray, colors: np.ndarray, cameras: Cameras, factor: int
) -> np.ndarray:
    """Return a picture (H, W, 4) uint8, each pixel the mean of its samples.

    Args:
        covered: (N,) which samples show the mesh.
        colors: (N, 3) in 0..1.
        cameras: give the size.
        factor: samples along a pixel's side.
    """
    picture = np.zeros((cameras.height * cameras.width * factor**2, 4), dtype=np.float32)
    picture[covered, :3], picture[covered, 3] = colors, 1.0
    samples = picture.reshape(cameras.height, factor, cameras.width, factor, 4)
    total = np.zeros((cameras.height, cameras.width, 4), dtype=np.float32)
    for row, column in np.ndindex(factor, factor):  # numpy's sum along short axes takes longer
        total += samples[:, row, :, column]
    alpha = total[..., 3] / factor**2
    color = total[..., :3] / np.maximum(total[..., 3:], 1e-6)
    result = np.concatenate([color, alpha[..., None]], axis=-1)
    return np.round(np.clip(result, 0, 1) * 255).astype(np.uint8)


def _shade_pixels(
    mesh: TexturedMesh,
    viewmat: np.ndarray,
    faces: np.ndarray,
    weights: np.ndarray,
    shading: float,
    clay: bool,
) -> np.ndarray:
    if clay:
        color = np.broadcast_to(np.array(CLAY, dtype=np.float32), (len(faces), 3))
        normals = mesh.face_normals()[faces]
    else:
        color = _look_up_texels(mesh, _blend_uvs(mesh, faces, weights))[:, :3]
        normals = native.blend_corners(mesh.vertex_normals(), mesh.faces, faces, weights)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-6)
    toward = normals @ -viewmat[2, :3]
    above = normals @ -viewmat[1, :3]
    if mesh.clipped:
        above, toward = np.where(toward < 0, -above, above), abs(toward)
    light = np.clip(0.3 + 0.6 * np.clip(toward, 0, 1) + 0.25 * above, 0.1, 1.0)
    return color * (1.0 - shading + shading * light)[:, None].astype(np.float32)


def _blend_uvs(mesh: TexturedMesh, faces: np.ndarray, weights: np.ndarray) -> np.ndarray:
    corners = np.arange(mesh.faces.size).reshape(-1, 3)
    return native.blend_corners(mesh.corner_uvs.reshape(-1, 2), corners, faces, weights)


def _look_up_texels(mesh: TexturedMesh, uvs: np.ndarray) -> np.ndarray:
    """Return (N, C) float32 bilinear texels in 0..1."""
    return native.look_up_texels(mesh.texture, uvs)

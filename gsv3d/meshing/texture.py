# SPDX-License-Identifier: Apache-2.0
"""The texture: each texel takes its colour from the views that see its point best.

Where a reference picture shows the point, the picture's own pixels come first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn.functional import grid_sample

from gsv3d.meshing.mesh import broad_normals, vertex_normals
from gsv3d.meshing.raster import rasterise
from gsv3d.meshing.reference import Projection, look_up
from gsv3d.meshing.views import DepthViews

FACING_POWER = 4
"""Weight of a view is cos(angle to the normal) to this power: sharp, yet without seams."""


@dataclass(frozen=True)
class _Texels:
    """pixels (N,) int64 into the texture; points, normals, broad (N, 3) float32.

    ``broad`` are normals averaged over a neighbourhood: bumps don't turn them.
    """

    pixels: np.ndarray
    points: np.ndarray
    normals: np.ndarray
    broad: np.ndarray


def bake(
    vertices: np.ndarray,
    faces: np.ndarray,
    corner_uvs: np.ndarray,
    texture_size: int,
    views: DepthViews,
    cloud: tuple[np.ndarray, np.ndarray],
    depth_tolerance: float,
    progress: Callable[[int, int], None] | None = None,
    projections: Sequence[Projection | None] = (),
) -> np.ndarray:
    """Bakes the views' colours into a texture.

    Args:
        vertices: (V, 3) in the world.
        faces: (F, 3) outward.
        corner_uvs: (F, 3, 2), origin bottom left.
        texture_size: T.
        views: pictures of the Gaussians with depth.
        cloud: positions (N, 3) and sRGB colours (N, 3) of the Gaussians, for what no view sees.
        depth_tolerance: a point farther than this behind a view's depth is hidden from it.
        progress: called with (steps done, steps).
        projections: of reference pictures onto the mesh, the first before all; None for one that
            does not fit.

    Returns:
        (T, T, 3) uint8 sRGB, row 0 at the top; the gaps between charts continue the nearest one.
    """
    texels = _texels(vertices, faces, corner_uvs, texture_size)
    if len(texels.pixels) == 0:  # every chart is smaller than a texel
        texels = _corner_texels(vertices, faces, corner_uvs, texture_size)
    points = torch.from_numpy(texels.points)
    normals = torch.from_numpy(texels.normals)
    total = torch.zeros(len(points), 3)
    weight = torch.zeros(len(points), 1)
    for i in range(len(views)):
        colour, share = _see(points, normals, views, i, depth_tolerance)
        total += colour * share
        weight += share
        if progress is not None:
            progress(i + 1, len(views) + 1)
    colours = (total / weight.clamp(min=1e-8)).numpy()
    unseen = (weight[:, 0] < 1e-4).numpy()
    if unseen.any():
        colours[unseen] = _nearest(texels.points[unseen], *cloud)
    for projection in reversed(projections):  # each lies over those that follow it
        if projection is not None:
            pictured, share = look_up(projection, texels.points, texels.broad)
            colours += (pictured - colours) * share[:, None]

    picture = np.zeros((texture_size * texture_size, 3), dtype=np.float32)
    picture[texels.pixels] = colours
    covered = np.zeros(texture_size * texture_size, dtype=bool)
    covered[texels.pixels] = True
    picture = _fill_gaps(
        picture.reshape(texture_size, texture_size, 3), covered.reshape(texture_size, texture_size)
    )
    if progress is not None:
        progress(len(views) + 1, len(views) + 1)
    return np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def _texels(vertices: np.ndarray, faces: np.ndarray, corner_uvs: np.ndarray, size: int) -> _Texels:
    """The texels inside charts, with the point and the smooth normal under each."""
    normals = vertex_normals(vertices, faces)
    wide = broad_normals(normals, faces)
    corners = corner_uvs.astype(np.float64) * size
    corners[..., 1] = size - corners[..., 1]
    pixels, points, directions, broad = [], [], [], []
    for fragments in rasterise(corners, size, size):
        ids = faces[fragments.triangles]
        pixels.append(fragments.pixels)
        points.append(_blend(vertices, ids, fragments.weights))
        directions.append(_blend(normals, ids, fragments.weights))
        broad.append(_blend(wide, ids, fragments.weights))
    if not pixels:
        return _Texels(np.zeros(0, np.int64), *(np.zeros((0, 3), np.float32) for _ in range(3)))
    return _Texels(*(np.concatenate(parts) for parts in (pixels, points, directions, broad)))


def _corner_texels(
    vertices: np.ndarray, faces: np.ndarray, corner_uvs: np.ndarray, size: int
) -> _Texels:
    """One texel for each corner: for textures too small for any chart to hold a texel centre."""
    cells = np.clip((corner_uvs.reshape(-1, 2) * size).astype(np.int64), 0, size - 1)
    normals = vertex_normals(vertices, faces)
    ids = faces.reshape(-1)
    pixels = (size - 1 - cells[:, 1]) * size + cells[:, 0]
    wide = broad_normals(normals, faces)
    return _Texels(pixels, vertices[ids].astype(np.float32), normals[ids], wide[ids])


def _blend(values: np.ndarray, ids: np.ndarray, weights: np.ndarray) -> np.ndarray:
    result = np.zeros((len(ids), 3), dtype=np.float32)
    for corner in range(3):
        result += values[ids[:, corner]].astype(np.float32) * weights[:, corner, None]
    return result


def _see(
    points: Tensor, normals: Tensor, views: DepthViews, i: int, tolerance: float
) -> tuple[Tensor, Tensor]:
    """(N, 3) colours in view i and (N, 1) weights: 0 where the point is hidden or turned away."""
    viewmat, K = views.cameras.viewmats[i], views.cameras.Ks[i]
    to_camera = views.cameras.positions[i] - points
    to_camera = to_camera / to_camera.norm(dim=1, keepdim=True)
    facing = (to_camera * normals).sum(dim=1, keepdim=True)
    facing = facing / normals.norm(dim=1, keepdim=True).clamp(min=1e-6)
    colour = torch.zeros(len(points), 3)
    weight = torch.zeros(len(points), 1)
    front = (facing[:, 0] > 0.15).nonzero()[:, 0]
    if len(front) == 0:
        return colour, weight
    local = points[front] @ viewmat[:3, :3].T + viewmat[:3, 3]
    size = torch.tensor([views.cameras.width, views.cameras.height], dtype=torch.float32)
    uv = local[:, :2] / local[:, 2:].clamp(min=1e-3) * K[0, 0] + K[:2, 2]
    alpha = torch.from_numpy(views.alpha[i])
    maps = torch.cat(
        [
            torch.from_numpy(views.colour[i]).permute(2, 0, 1) * alpha,
            torch.from_numpy(views.depth[i])[None] * alpha,
            alpha[None],
        ]
    )
    sampled = grid_sample(
        maps[None],
        (uv / size * 2 - 1)[None, None],
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )[0, :, 0]
    cover = sampled[4].clamp(min=1e-4)
    depth = sampled[3] / cover
    # At a grazing angle a pixel spans more depth: allow for it.
    allowed = tolerance / facing[front, 0]
    visible = ((local[:, 2] - depth).abs() < allowed) & (sampled[4] > 0.4)
    colour[front] = (sampled[:3] / cover).T
    weight[front] = (facing[front] ** FACING_POWER) * (visible * sampled[4])[:, None]
    return colour, weight


def _nearest(points: np.ndarray, positions: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """(N, 3) colours of the nearest Gaussians, weighted by 1/distance."""
    count = min(4, len(positions))
    distances, ids = cKDTree(positions).query(points, k=count)
    distances, ids = distances.reshape(len(points), count), ids.reshape(len(points), count)
    weights = 1.0 / np.maximum(distances, 1e-6)
    weights /= weights.sum(axis=1, keepdims=True)
    return (colours[ids] * weights[..., None]).sum(axis=1).astype(np.float32)


def _fill_gaps(picture: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """Continues the charts into the gaps, so that filtering and mip levels show no seams."""
    rows, columns = ndimage.distance_transform_edt(
        ~covered, return_distances=False, return_indices=True
    )
    return picture[rows, columns]

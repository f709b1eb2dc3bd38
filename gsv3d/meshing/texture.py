# SPDX-License-Identifier: Apache-2.0
"""The texture: each texel takes its color from the views that see its point best.

Where a reference picture shows the point, the picture's own pixels come first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from gsv3d.compiling import run_in_threads
from gsv3d.meshing import native
from gsv3d.meshing.mesh import smooth_normals, vertex_normals
from gsv3d.meshing.nearest import Nearest
from gsv3d.meshing.raster import Candidates, Fragments
from gsv3d.meshing.reference import Projection, sample_alpha, sample_reference
from gsv3d.meshing.settings import MeshSettings
from gsv3d.meshing.views import DepthViews

BACKS = ("model", "picture")
"""Ways to paint the sides that no picture shows: as the model's views have them, or as if the
picture were seen through to them. The first is the default: docs/quality.md compares them."""

FILL_PIXELS, FILL_MARGIN = 2048**2, 64
"""Texels of a band in which gaps between charts are filled, and rows on either side of it that are
looked at as well: enough for every filter and mip level that shows."""


@dataclass(frozen=True)
class _Texels:
    """Texels that lie in charts.

    Attributes:
        pixels: (N,) int64 into the texture.
        points: (N, 3) float32.
        normals: (N, 3) float32.
        broad: (N, 3) float32 normals averaged over a neighborhood: bumps don't turn them.
    """

    pixels: np.ndarray
    points: np.ndarray
    normals: np.ndarray
    broad: np.ndarray


def bake_texture(
    vertices: np.ndarray,
    faces: np.ndarray,
    corner_uvs: np.ndarray,
    texture_size: int,
    views: DepthViews,
    cloud: tuple[np.ndarray, np.ndarray],
    progress: Callable[[int, int], None] | None = None,
    projections: Sequence[Projection | None] = (),
    backs: str = BACKS[0],
    settings: MeshSettings = MeshSettings(),
) -> np.ndarray:
    """Bake the views' colors into a texture, and pictures over them.

    Texels are worked on in chunks: beside the texture itself memory does not grow with its size.

    Args:
        vertices: (V, 3) in the world.
        faces: (F, 3) outward.
        corner_uvs: (F, 3, 2), origin bottom left.
        texture_size: T.
        views: pictures of the Gaussians with depth.
        cloud: positions (N, 3) and sRGB colors (N, 3) of the Gaussians, for what no view sees.
        progress: called with (steps done, steps).
        projections: projections of reference pictures onto the mesh, the first before all; None for
            one that does not fit. One with an alpha gives the texture an alpha channel.
        backs: one of ``BACKS``; the first picture is the one seen through.
        settings: what the views and the pictures show of a point.

    Returns:
        (T, T, 3) uint8 sRGB, or (T, T, 4) with an alpha, row 0 at the top; the gaps between charts
        continue the nearest one.
    """
    of = 2 * len(faces) + 1

    def report(step: int) -> None:
        if progress is not None:
            progress(step, of)

    seen, nearest = _Seen(views), Nearest(*cloud)
    tolerance = settings.depth_tolerance * float(np.ptp(vertices, axis=0).max())

    def from_views(texels: _Texels) -> np.ndarray:
        return _average_colors(texels.points, texels.normals, seen, nearest, tolerance)

    def from_both(texels: _Texels) -> np.ndarray:
        def below(wanted: np.ndarray) -> np.ndarray:
            colors = np.zeros((len(wanted), 3), dtype=np.float32)
            colors[wanted] = _average_colors(
                texels.points[wanted], texels.normals[wanted], seen, nearest, tolerance
            )
            return colors

        return with_pictures(texels, below)

    def with_pictures(texels: _Texels, below: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Return (N, C) colors of the pictures over what ``below`` returns.

        ``below`` takes (N,) bool, where not only the pictures show, and returns (N, 3).
        """
        colors = np.zeros((len(texels.points), 3), dtype=np.float32)
        rest = np.ones(len(colors), dtype=np.float32)
        for projection, through in layers:
            pictured, share = sample_reference(
                projection, texels.points, texels.broad, through, settings
            )
            colors += (pictured - colors) * share[:, None]
            rest *= 1 - share
        colors += below(rest > 0) * rest[:, None]
        if carved is not None:
            alpha = sample_alpha(carved, texels.points)
            colors = np.concatenate([colors, alpha[:, None]], axis=1)
        return colors

    # Each lies over those before it.
    layers = [(p, False) for p in reversed(projections) if p is not None]
    if backs == "picture" and projections and projections[0] is not None:
        layers.insert(0, (projections[0], True))
    first = projections[0] if projections else None
    carved = first if first is not None and first.alpha is not None else None
    mesh = (vertices, faces, corner_uvs)
    picture = np.zeros((texture_size, texture_size, 3 if carved is None else 4), np.uint8)
    if texture_size <= settings.views_texture:
        _paint(picture, mesh, from_both, report)
    else:
        small = np.zeros((settings.views_texture, settings.views_texture, 3), np.uint8)
        _paint(small, mesh, from_views, report)
        size = (texture_size, texture_size)
        enlarged = np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BILINEAR))
        picture[..., :3], picture[..., 3:] = enlarged, 255

        def from_pictures(texels: _Texels) -> np.ndarray:
            colors = enlarged.reshape(-1, 3)[texels.pixels].astype(np.float32) / 255
            return with_pictures(texels, lambda _: colors)

        if layers:
            _paint(picture, mesh, from_pictures, lambda step: report(len(faces) + step))
    report(of)
    return picture


def _paint(
    picture: np.ndarray,
    mesh: tuple[np.ndarray, np.ndarray, np.ndarray],
    paint: Callable[[_Texels], np.ndarray],
    report: Callable[[int], None],
) -> None:
    """Give the texels in charts the colors that ``paint`` returns, and continue the charts.

    Args:
        picture: (T, T, C) uint8, changed.
        mesh: vertices, faces and corner_uvs.
        paint: returns (N, C) colors in 0..1 of N texels; called in threads.
        report: called with the number of faces done.
    """
    vertices, faces, corner_uvs = mesh
    size = len(picture)
    flat, covered = picture.reshape(-1, picture.shape[2]), np.zeros(size * size, dtype=bool)
    normals = vertex_normals(vertices, faces)
    broad = smooth_normals(normals, faces)
    corners = corner_uvs.astype(np.float64) * size
    corners[..., 1] = size - corners[..., 1]
    candidates = Candidates(corners, size, size)

    def color(texels: _Texels) -> tuple[np.ndarray, np.ndarray]:
        colors = np.round(np.clip(paint(texels), 0, 1) * 255).astype(np.uint8)
        return texels.pixels, colors

    def color_chunk(chunk: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, int]:
        fragments = candidates.find_fragments(chunk)
        last = int(fragments.triangles.max(initial=0))
        return *color(_find_points(fragments, vertices, normals, broad, faces)), last

    for _, (pixels, colors, last) in run_in_threads(color_chunk, candidates.chunks):
        flat[pixels], covered[pixels] = colors, True
        report(last)
    if not covered.any():  # every chart is smaller than a texel
        pixels, flat[pixels] = color(_make_corner_texels(vertices, faces, corner_uvs, size))
        covered[pixels] = True
    _fill_gaps(picture, covered.reshape(size, size))


def _find_points(
    fragments: Fragments,
    vertices: np.ndarray,
    normals: np.ndarray,
    broad: np.ndarray,
    faces: np.ndarray,
) -> _Texels:
    """Return fragments' texels, with the point and the smooth normals under each."""
    values = (
        native.blend_corners(values, faces, fragments.triangles, fragments.weights)
        for values in (vertices, normals, broad)
    )
    return _Texels(fragments.pixels, *values)


def _make_corner_texels(
    vertices: np.ndarray, faces: np.ndarray, corner_uvs: np.ndarray, size: int
) -> _Texels:
    """Return one texel for each corner, for textures too small for charts to hold texel centers."""
    cells = np.clip((corner_uvs.reshape(-1, 2) * size).astype(np.int64), 0, size - 1)
    normals = vertex_normals(vertices, faces)
    ids = faces.reshape(-1)
    pixels = (size - 1 - cells[:, 1]) * size + cells[:, 0]
    wide = smooth_normals(normals, faces)
    points = vertices[ids].astype(np.float32)
    return _Texels(pixels, points, normals[ids], wide[ids])


class _Seen:
    """The views, ready to be looked up.

    Attributes:
        cameras, positions: (V, 16) as ``native`` takes them, and (V, 3) in the world.
        maps: (V, S, S, 5): color and depth, times alpha, and alpha.
    """

    def __init__(self, views: DepthViews) -> None:
        self.cameras = native.camera_rows(views.cameras)
        self.positions = views.cameras.positions.numpy().astype(np.float64)
        alpha = views.alpha[..., None]
        layers = [views.color * alpha, views.depth[..., None] * alpha, alpha]
        self.maps = np.concatenate(layers, axis=-1)


def _average_colors(
    points: np.ndarray, normals: np.ndarray, seen: _Seen, nearest: Nearest, tolerance: float
) -> np.ndarray:
    """Return (N, 3) means of the views' colors, or the nearest Gaussians' where no view sees."""
    colors = np.empty((len(points), 3), dtype=np.float32)
    weight = np.empty(len(points), dtype=np.float32)
    native.mean_colors(
        points, normals, seen.cameras, seen.positions, seen.maps, tolerance, colors, weight
    )
    unseen = weight < 1e-4
    if unseen.any():
        colors[unseen] = nearest(points[unseen])
    return colors


def _fill_gaps(picture: np.ndarray, covered: np.ndarray) -> None:
    """Continue the charts into the gaps, so that filtering and mip levels show no seams.

    Args:
        picture: (T, T, C); its gaps are filled in place.
        covered: (T, T) bool, where charts are.
    """
    size = len(picture)
    rows_each = max(FILL_PIXELS // size, 1)
    for start in range(0, size, rows_each):
        stop = min(start + rows_each, size)
        low, high = max(start - FILL_MARGIN, 0), min(stop + FILL_MARGIN, size)
        gaps = ~covered[low:high]
        if gaps.all():
            continue
        rows, columns = ndimage.distance_transform_edt(
            gaps, return_distances=False, return_indices=True
        )[:, start - low : stop - low]
        gaps = gaps[start - low : stop - low]
        picture[start:stop][gaps] = picture[rows[gaps] + low, columns[gaps]]

# SPDX-License-Identifier: Apache-2.0
"""Gaussians to a textured mesh within a face budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gsv3d.compiling import run_in_threads
from gsv3d.errors import GSV3DError
from gsv3d.meshing.carving import cover_fine_gaps
from gsv3d.meshing.fusion import Volume, fuse_depths
from gsv3d.meshing.level import smooth_and_level
from gsv3d.meshing.mesh import TexturedMesh
from gsv3d.meshing.mirror import match_outlines
from gsv3d.meshing.outline import find_outline_bounds
from gsv3d.meshing.reference import Projection, Reference, align_reference
from gsv3d.meshing.settings import MeshSettings
from gsv3d.meshing.shape_prior import ShapePrior, add_shape_prior
from gsv3d.meshing.simplify import simplify
from gsv3d.meshing.surface import extract_surface, keep_parts, smooth_taubin
from gsv3d.meshing.texture import BACKS, bake_texture
from gsv3d.meshing.unwrap import unwrap_uvs
from gsv3d.meshing.views import DepthViews, fit_bounds, render_views, surround_with_cameras

if TYPE_CHECKING:
    from gsv3d.gaussians import Gaussians

Progress = Callable[[str, int, int], None]
"""Called with (phase, step, of); phases "fusing", "simplifying", "unwrapping", "texturing"."""

MIN_FACES, MAX_FACES = 20, 500_000
MIN_TEXTURE, MAX_TEXTURE = 16, 8192

_NO_SURFACE_HINT = "Try another picture, more steps or another seed."


def extract_mesh(
    gaussians: Gaussians,
    faces: int = 5000,
    texture_size: int = 1024,
    progress: Progress | None = None,
    references: Sequence[Reference] = (),
    backs: str = BACKS[0],
    settings: MeshSettings = MeshSettings(),
    shape: ShapePrior | None = None,
) -> TexturedMesh:
    """Fuse depth maps of the Gaussians; extract, simplify, unwrap and texture the surface.

    Args:
        gaussians: Gaussians in the world, the object within about a unit of the origin.
        faces: most triangles of the result; never exceeded.
        texture_size: T.
        progress: called with (phase, step, of).
        references: pictures of the object, the surest first. The mesh gets the first one's outline
            and loses what stands clearly out of the others'; the pixels of each are baked on the
            side it shows, the first one's before all.
        backs: one of ``BACKS``, what the sides look like that no picture shows.
        settings: how the mesh is made.
        shape: what the first reference's object probably fills; None where nothing is known.

    Raises:
        ValueError: faces or texture_size out of bounds.
        GSV3DError: the Gaussians have no surface.
    """
    if not MIN_FACES <= faces <= MAX_FACES:
        raise ValueError(f"faces must be {MIN_FACES}..{MAX_FACES}, not {faces}.")
    if not MIN_TEXTURE <= texture_size <= MAX_TEXTURE:
        raise ValueError(f"texture_size must be {MIN_TEXTURE}..{MAX_TEXTURE}, not {texture_size}.")
    positions, colors, low, high = _read_cloud(gaussians)
    low, high = fit_bounds(gaussians, low, high)
    if references:
        shown_low, shown_high = find_outline_bounds(references[0])
        low, high = np.minimum(low, shown_low), np.maximum(high, shown_high)
    if shape is not None:
        likely_low, likely_high = shape.find_bounds()
        low, high = np.minimum(low, likely_low), np.maximum(high, likely_high)
    voxel = float((high - low).max()) / settings.voxels
    radius = float(np.linalg.norm(high - low)) / 2 + 4 * voxel
    size = round(settings.view_pixels * settings.voxels)
    cameras = surround_with_cameras(radius, size, (low + high) / 2, settings)

    half = len(cameras)  # the first half of "fusing" is rendering, the second the volume
    # Gaussians stand on their views' grids, which would show in the texture as dots: where color
    # is looked up they are widened by about the distance of so many on one surface.
    blur = float((high - low).max()) * min(len(positions) ** -0.5, settings.max_blur)
    report = _report_phase(progress, "fusing", 0, 2 * half)
    views = render_views(gaussians, cameras, report, blur, settings.hidden_behind)
    report = _report_phase(progress, "fusing", half, 2 * half)
    volume = fuse_depths(views, low, high, voxel, report, settings)
    volume = smooth_and_level(volume, views, settings)
    if shape is not None:
        volume = add_shape_prior(volume, shape, settings)
    if references:
        references = [cover_fine_gaps(reference, voxel, settings) for reference in references]
        volume, references = match_outlines(volume, references, settings)
    cloud = (positions, colors)
    return mesh_from_volume(
        volume, views, cloud, faces, texture_size, progress, references, backs, settings
    )


def mesh_from_volume(
    volume: Volume,
    views: DepthViews,
    cloud: tuple[np.ndarray, np.ndarray],
    faces: int,
    texture_size: int,
    progress: Progress | None = None,
    references: Sequence[Reference] = (),
    backs: str = BACKS[0],
    settings: MeshSettings = MeshSettings(),
) -> TexturedMesh:
    """Make a mesh of a fused volume, without Gaussians, by what they looked like."""
    report = progress or (lambda phase, step, of: None)
    report("simplifying", 0, 3)
    points, triangles = extract_surface(volume)
    # With a reference the outline has judged the parts: even a small one is kept if it is seen.
    share = 0.0 if references else settings.part_share
    points, triangles = keep_parts(points, triangles, share)
    if len(triangles) == 0:
        raise GSV3DError("The Gaussians have no closed surface.", _NO_SURFACE_HINT)
    points = smooth_taubin(points, triangles, settings.smoothing_rounds)
    report("simplifying", 1, 3)
    points, triangles = simplify(points, triangles, faces, settings.faces_per_part)
    report("simplifying", 3, 3)

    report("unwrapping", 0, 1)
    points = points.astype(np.float32)
    corner_uvs = unwrap_uvs(points, triangles, texture_size)
    report("unwrapping", 1, 1)

    def align(reference: Reference) -> Projection | None:
        return align_reference(points, triangles, reference, settings)

    texture = bake_texture(
        points,
        triangles,
        corner_uvs,
        texture_size,
        views,
        cloud,
        progress=lambda step, of: report("texturing", step, of),
        projections=[projection for _, projection in run_in_threads(align, references)],
        backs=backs,
        settings=settings,
    )
    return TexturedMesh(points, triangles, corner_uvs, texture)


def _read_cloud(gaussians: Gaussians) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return positions and colors of the usable Gaussians, and the corners of the box they fill.

    Strays far off would make the box, and with it memory, as large as they like: it is that of the
    middle 99.8 percent along each axis, each with three of its standard deviations.
    """
    positions = gaussians.means.detach().float().cpu().numpy()
    scales = gaussians.scales.detach().float().cpu().numpy()
    opacities = gaussians.opacities.detach().float().cpu().numpy().reshape(-1)
    colors = gaussians.rgb().detach().float().cpu().numpy()
    usable = (
        np.isfinite(positions).all(axis=1)
        & np.isfinite(scales).all(axis=1)
        & np.isfinite(colors).all(axis=1)
        & (opacities > 0.02)
    )
    if not usable.any():
        raise GSV3DError("There are no visible Gaussians to make a mesh of.", _NO_SURFACE_HINT)
    positions, scales = positions[usable], scales[usable]
    reach = np.minimum(3.0 * scales.max(axis=1, keepdims=True), 0.1)
    low = np.quantile(positions - reach, 0.001, axis=0)
    high = np.quantile(positions + reach, 0.999, axis=0)
    low, high = np.clip(low, -1.0, 1.0), np.clip(high, -1.0, 1.0)
    return positions, np.clip(colors[usable], 0, 1), low, high


def _report_phase(
    progress: Progress | None, phase: str, start: int, of: int
) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda step, _: progress(phase, start + step, of)

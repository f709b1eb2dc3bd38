# SPDX-License-Identifier: Apache-2.0
"""The reference picture's own pixels on what it shows of the mesh.

The model's views are small; the picture it was given is not. Where the mesh fills the picture's
outline, the picture is projected onto it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage

from gsv3d.cameras import Cameras
from gsv3d.compiling import list_parts, run_in_threads
from gsv3d.masks import box_of, object_coverage
from gsv3d.meshing import native, native_outline
from gsv3d.meshing.distances import measure_distances
from gsv3d.meshing.fusion import Volume
from gsv3d.meshing.native_reference import sample_picture
from gsv3d.meshing.raster import rasterize
from gsv3d.meshing.settings import MeshSettings


@dataclass(frozen=True)
class Reference:
    """A picture of the object and the camera that took it.

    Attributes:
        rgba: (S, S, 4) uint8 sRGB, straight alpha.
        camera: one view; of any size, it is brought to S.
        alpha: (S, S) float32, what the texture shows of the mesh in each pixel, where the object is
            finer than the mesh (``gsv3d.meshing.carving``); the colors of ``rgba`` then go on under
            all of its outline.
    """

    rgba: np.ndarray
    camera: Cameras
    alpha: np.ndarray | None = None

    def __post_init__(self) -> None:
        shape = self.rgba.shape
        if self.rgba.dtype != np.uint8 or len(shape) != 3 or shape[0] != shape[1] or shape[2] != 4:
            raise ValueError(f"rgba must be (S, S, 4) uint8, not {shape} {self.rgba.dtype}.")
        if len(self.camera) != 1:
            raise ValueError(f"camera must be one view, not {len(self.camera)}.")

    @cached_property
    def coverage(self) -> np.ndarray:
        """Return (S, S) float32, the object's share of each pixel; its outline is at one half."""
        return object_coverage(self.rgba[..., 3].astype(np.float32) / 255)


@dataclass(frozen=True)
class Projection:
    """A map from points of the mesh to the reference picture.

    Attributes:
        camera: the picture's, of S pixels.
        layers: (S, S, 5) float32: the picture's colors times alpha, its alpha, and the distance in
            pixels from the object's outline inward.
        front: (S, S) least z-depth of the mesh in a pixel and those around it, infinite where it is
            not.
        scale, offset: (2,) pixel (u, v) of the mesh to ``scale * uv + offset`` of the picture.
        agreement: intersection over union of the outlines, so aligned.
        alpha: alpha of the reference; as the camera sees it, not aligned.
    """

    camera: Cameras
    layers: np.ndarray
    front: np.ndarray
    scale: np.ndarray
    offset: np.ndarray
    agreement: float
    alpha: np.ndarray | None = None


def align_reference(
    vertices: np.ndarray,
    faces: np.ndarray,
    reference: Reference,
    settings: MeshSettings = MeshSettings(),
) -> Projection | None:
    """Lay the mesh's outline over the picture's; return None where they do not agree.

    The boxes of the two outlines are aligned, since a model places and scales its object only
    roughly as the picture shows it.

    Args:
        vertices: (V, 3) in the world.
        faces: (F, 3) outward.
        reference: the picture.
        settings: how far the outlines may differ.
    """
    size = reference.rgba.shape[0]
    camera = reference.camera.resized(size)
    (uv,), (z,) = camera.project(vertices)
    depth = _rasterize_depth(uv, z, faces, size)
    mine, wanted = np.isfinite(depth), reference.coverage > 0.5
    mine_box, box = find_corners(mine), find_corners(wanted)
    if mine_box is None or box is None:
        return None
    (mine_low, mine_high), (low, high) = mine_box, box
    scale = (high - low) / (mine_high - mine_low)
    offset = (low + high) / 2 - scale * (mine_low + mine_high) / 2
    shift = np.abs((low + high) - (mine_low + mine_high)).max() / 2 / size
    if not 1 / settings.max_stretch <= scale.min() <= scale.max() <= settings.max_stretch:
        return None
    if shift > settings.max_shift:
        return None
    columns = np.floor((np.arange(size) + 0.5 - offset[0]) / scale[0]).astype(int)
    rows = np.floor((np.arange(size) + 0.5 - offset[1]) / scale[1]).astype(int)
    seen = np.zeros_like(mine)
    valid_rows = np.flatnonzero((rows >= 0) & (rows < size))
    valid_columns = np.flatnonzero((columns >= 0) & (columns < size))
    seen[np.ix_(valid_rows, valid_columns)] = mine[np.ix_(rows[valid_rows], columns[valid_columns])]
    agreement = float((seen & wanted).sum() / (seen | wanted).sum())
    if agreement < settings.picture_agreement:
        return None
    layers = np.empty((size, size, 5), dtype=np.float32)
    layers[..., :4] = reference.rgba.astype(np.float32) / 255
    layers[..., :3] *= layers[..., 3:4]
    if reference.alpha is None:
        layers[..., 4] = measure_distances(np.pad(wanted, 1))[1:-1, 1:-1]
    else:  # no background in its outermost pixels, and no other pixels in its thinnest parts
        layers[..., 4] = wanted * size
    # Next to an outline the nearest depth around is what hides a point, or what it is itself.
    front = ndimage.minimum_filter(depth, 3)
    return Projection(camera, layers, front, scale, offset, agreement, reference.alpha)


def sample_reference(
    projection: Projection,
    points: np.ndarray,
    normals: np.ndarray,
    through: bool = False,
    settings: MeshSettings = MeshSettings(),
) -> tuple[np.ndarray, np.ndarray]:
    """Look up the picture's colors at points of the mesh.

    Args:
        projection: as returned by ``align_reference``.
        points: (N, 3) on the mesh.
        normals: (N, 3) outward, of any length.
        through: color the sides that are turned away, as if they looked like those in front of
            them, instead of what the picture shows.
        settings: what counts as shown.

    Returns:
        (N, 3) sRGB in 0..1 and (N,) weights in 0..1: 1 where the picture alone should show, 0 where
        it sees nothing of the point.
    """
    colors = np.empty((len(points), 3), dtype=np.float32)
    weights = np.empty(len(points), dtype=np.float32)
    eye = projection.camera.positions[0].numpy().astype(np.float64)
    camera = native.camera_rows(projection.camera)
    placing = np.concatenate([projection.scale, projection.offset])
    rim = settings.rim * len(projection.front)

    sample_picture(
        points, normals, eye, camera, projection.layers[None], projection.front, placing,
        settings.facing, settings.bump, rim, through, colors, weights,
    )  # fmt: skip
    return colors, weights


def sample_alpha(projection: Projection, points: np.ndarray) -> np.ndarray:
    """Return (N,) alpha at points (N, 3) of the mesh; for projections that have one.

    The picture's outline goes through the whole depth of the object: so does its alpha.
    """
    (uv,), _ = projection.camera.project(points)
    where = [uv[:, 1] - 0.5, uv[:, 0] - 0.5]
    return ndimage.map_coordinates(projection.alpha, where, order=1, mode="nearest")


def project_voxels(
    volume: Volume, voxels: np.ndarray, camera: Cameras
) -> tuple[np.ndarray, np.ndarray]:
    """Project voxels as ``Cameras.project`` does points.

    Args:
        volume: gives the grid.
        voxels: (N,) flat indices.
        camera: one view.

    Returns:
        (N, 2) pixels and (N,) z-depths.
    """
    uv, z = np.empty((len(voxels), 2)), np.empty(len(voxels))
    shape, row = np.array(volume.field.shape), native.camera_rows(camera)

    def project(part: slice) -> None:
        native_outline.project_voxels(
            voxels[part], shape, volume.origin, volume.voxel, row, uv[part], z[part]
        )

    for _ in run_in_threads(project, list_parts(len(voxels))):
        pass
    return uv, z


def measure_outside(
    volume: Volume, voxels: np.ndarray, camera: Cameras, distance: np.ndarray
) -> np.ndarray:
    """Return (N,) distances of voxels to an outline, in the world.

    Args:
        volume: gives the grid.
        voxels: (N,) flat indices.
        camera: one view of S pixels.
        distance: (S, S) in pixels, positive outside; beyond the picture it is S.
    """
    outside = np.empty(len(voxels))
    shape, row = np.array(volume.field.shape), native.camera_rows(camera)
    maps = np.ascontiguousarray(distance)[None, ..., None]

    def measure(part: slice) -> None:
        native_outline.measure_outside(
            voxels[part], shape, volume.origin, volume.voxel, row, maps, outside[part]
        )

    for _ in run_in_threads(measure, list_parts(len(voxels))):
        pass
    return outside


def _rasterize_depth(uv: np.ndarray, z: np.ndarray, faces: np.ndarray, size: int) -> np.ndarray:
    depth, nearest = np.full(size * size, np.inf), np.empty(size * size, dtype=np.int64)
    shares, corner_z = np.empty((size * size, 3), dtype=np.float32), z[faces]
    for fragments in rasterize(uv[faces], size, size):
        native.keep_nearest(
            fragments.pixels, fragments.triangles, fragments.weights, corner_z,
            depth, nearest, shares,
        )  # fmt: skip
    return depth.reshape(size, size)


def find_corners(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the first (2,) and end (2,) column and row of what a mask holds; None if nothing."""
    box = box_of(mask)
    if box is None:
        return None
    rows, columns = box
    return np.array([columns.start, rows.start]), np.array([columns.stop, rows.stop])

# SPDX-License-Identifier: Apache-2.0
"""The reference picture's outline on the fused volume: what the picture shows is not guessed.

A model's views are small and soft; the outline of the picture it was given is known to the pixel.
Seen from the picture's camera the solid gets exactly that outline: what stands out of it is cut
off, and where the outline holds something that the Gaussians lost, a table's leg, a necklace, it is
put back, round, as thick as it is wide, in the depth where the Gaussians come nearest to something
or, where they know nothing, where the parts beside it are.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from gsv3d.meshing.fusion import TRUNCATION_VOXELS, Volume, close_walls, silhouette_distance
from gsv3d.meshing.reference import Reference, corners_of, project

OUTLINE = 0.5
"""Coverage at the picture's outline."""

OUTLINE_SIZE = 256
"""Pixels along the side of the picture as the outline is taken from it: below a voxel each."""

MIN_AGREEMENT = 0.05
"""Silhouettes with a lower intersection over union show different things: nothing is changed."""

RAY_VOXELS = 1.5
"""Width of the rays that are looked along, in voxels: each then holds some of every depth."""

THINNEST, THICKEST = 0.8, 0.08
"""Half the thickness of what is put back: at least so many voxels, at most so many extents."""

EVIDENCE = 0.9
"""A ray whose nearest miss is below this part of the truncation says where something should be."""

_SMOOTHING = 1.5
"""Of the depths of what is put back, in rays."""


def reach(reference: Reference) -> tuple[np.ndarray, np.ndarray]:
    """Corners of a box that holds the outline, at the depth of the world's origin.

    Returns:
        twice (3,); an empty box, inf and -inf, where the picture shows nothing.
    """
    corners = corners_of(reference.rgba[..., 3] > 127)
    if corners is None:
        return np.full(3, np.inf), np.full(3, -np.inf)
    first, end = corners
    camera = reference.camera.resized(len(reference.rgba))
    viewmat, K = camera.viewmats[0].cpu().numpy(), camera.Ks[0].cpu().numpy()
    depth = float(np.linalg.norm(camera.positions[0].numpy()))
    shown = [
        [(u - K[0, 2]) / K[0, 0] * depth, (v - K[1, 2]) / K[1, 1] * depth, depth]
        for u in (first[0], end[0])
        for v in (first[1], end[1])
    ]
    world = (np.array(shown) - viewmat[:3, 3]) @ viewmat[:3, :3]
    return world.min(axis=0), world.max(axis=0)


def follow(volume: Volume, reference: Reference) -> Volume:
    """Gives the solid the picture's outline, seen from its camera.

    Args:
        volume: settled; its walls are outside.
        reference: the picture and its camera.

    Returns:
        A volume of the same size; the same one where the two show different things.
    """
    alpha = _coverage(reference, OUTLINE_SIZE)
    if not (alpha > OUTLINE).any():
        return volume
    grid = np.indices(volume.field.shape, dtype=np.float32).reshape(3, -1).T
    points = grid * np.float32(volume.voxel) + volume.origin.astype(np.float32)
    uv, z = project(points, reference.camera.resized(OUTLINE_SIZE))
    field = volume.field.ravel()
    truncation = TRUNCATION_VOXELS * volume.voxel
    focal = float(reference.camera.resized(OUTLINE_SIZE).Ks[0, 0, 0])
    outside = _sample(silhouette_distance(alpha, OUTLINE), uv, cval=OUTLINE_SIZE) * z / focal

    rays = _Rays(volume, alpha, uv, z, float(reference.camera.resized(1).Ks[0, 0, 0]))
    if rays.agreement(field) < MIN_AGREEMENT:
        return volume
    added = rays.lost_parts(field, truncation)
    field = np.maximum(np.minimum(field, added), outside)
    field = np.clip(field, -truncation, truncation).astype(np.float32)
    return Volume(
        close_walls(field.reshape(volume.field.shape), float(volume.field.max())),
        volume.origin,
        volume.voxel,
    )


class _Rays:
    """The volume's voxels by the ray of the picture that they lie on."""

    def __init__(
        self, volume: Volume, alpha: np.ndarray, uv: np.ndarray, z: np.ndarray, focal: float
    ) -> None:
        middle = float(np.median(z))
        rays = middle / (focal * volume.voxel * RAY_VOXELS)
        self.size = int(np.clip(rays, 8, OUTLINE_SIZE))
        self.voxel, self.z = volume.voxel, z
        self.pixel = middle / (focal * self.size)  # of a ray, in the world
        self.uv = uv * (self.size / OUTLINE_SIZE)
        cells = np.floor(self.uv).astype(np.int64)
        self.inside = ((cells >= 0) & (cells < self.size)).all(axis=1)
        cells = np.clip(cells, 0, self.size - 1)
        self.ray = cells[:, 1] * self.size + cells[:, 0]
        zoomed = ndimage.zoom(alpha, self.size / OUTLINE_SIZE, order=1, grid_mode=True,
                              mode="nearest")  # fmt: skip
        self.wanted = zoomed > OUTLINE

    def agreement(self, field: np.ndarray) -> float:
        """Intersection over union of the solid's silhouette and the picture's."""
        seen = self._hit(field)
        return float((seen & self.wanted).sum() / max((seen | self.wanted).sum(), 1))

    def _hit(self, field: np.ndarray) -> np.ndarray:
        chosen = self.inside & (field < 0)
        return (np.bincount(self.ray[chosen], minlength=self.size**2) > 0).reshape(
            self.size, self.size
        )

    def _mean_depth(self, chosen: np.ndarray) -> np.ndarray:
        """(S, S) mean z of the chosen voxels on each ray; NaN where there is none."""
        count = np.bincount(self.ray[chosen], minlength=self.size**2)
        total = np.bincount(self.ray[chosen], self.z[chosen], minlength=self.size**2)
        with np.errstate(invalid="ignore"):
            return (total / count).reshape(self.size, self.size)

    def lost_parts(self, field: np.ndarray, truncation: float) -> np.ndarray:
        """(voxels,) distances to what the outline holds and no voxel does; infinite elsewhere."""
        hit = self._hit(field)
        missing = self.wanted & ~hit
        if not missing.any() or not hit.any():
            return np.full(len(field), np.inf)
        nearest = np.full(self.size**2, np.inf)
        np.minimum.at(nearest, self.ray[self.inside], field[self.inside])
        near_miss = self.inside & (field <= nearest[self.ray] + 1e-6)
        depth = np.where(
            missing.ravel() & (nearest < EVIDENCE * truncation),
            self._mean_depth(near_miss).ravel(),
            np.nan,
        ).reshape(hit.shape)
        depth = np.where(hit, self._mean_depth(self.inside & (field < 0)), depth)
        # Where nothing is known: as deep as the nearest ray that knows.
        known = np.isfinite(depth)
        row, column = ndimage.distance_transform_edt(
            ~known, return_distances=False, return_indices=True
        )
        depth = ndimage.gaussian_filter(depth[row, column], _SMOOTHING, mode="nearest")
        width = (ndimage.distance_transform_edt(self.wanted) - 0.5) * self.pixel
        half = np.clip(width, THINNEST * self.voxel, THICKEST)
        # Half a ray beyond: parts that meet must not be parted by the rays' own width.
        share = ndimage.uniform_filter(missing.astype(np.float32), 3) > 0
        chosen = self.inside & share.ravel()[self.ray]
        where = self.uv[chosen]
        distances = np.full(len(field), np.inf)
        across = np.abs(self.z[chosen] - _sample(depth, where)) - _sample(half, where)
        distances[chosen] = across
        return distances


def _sample(values: np.ndarray, uv: np.ndarray, cval: float | None = None) -> np.ndarray:
    """(N,) bilinear; beyond the picture ``cval``, or the nearest pixel's."""
    mode = "nearest" if cval is None else "constant"
    where = [uv[:, 1] - 0.5, uv[:, 0] - 0.5]
    return ndimage.map_coordinates(
        values.astype(np.float32), where, order=1, mode=mode, cval=cval or 0.0
    )


def _coverage(reference: Reference, size: int) -> np.ndarray:
    """(size, size) alpha in 0..1, each pixel the mean of those it stands for."""
    from PIL import Image

    alpha = Image.fromarray(reference.rgba[..., 3])
    return np.asarray(alpha.resize((size, size), Image.Resampling.BOX), np.float32) / 255

# SPDX-License-Identifier: Apache-2.0
"""Give the fused volume the reference picture's outline.

A model's views are small and soft; the outline of the picture it was given is known to the pixel.
Seen from the picture's camera the solid gets exactly that outline. What stands out of it is cut
off. What the outline holds and the solid lacks, such as a table's leg or a necklace, is put back,
as thick as it is wide. Its depth continues that of the solid beside it in the picture, drawn toward
where the Gaussians nearly show something, so that the parts connect. Loose crumbs of the solid are
removed first: where the picture shows something there, it is put back in one piece.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage, sparse
from scipy.sparse.linalg import spsolve

from gsv3d.cameras import Cameras
from gsv3d.meshing import native_outline
from gsv3d.meshing.distances import measure_distances
from gsv3d.meshing.fusion import Volume, close_walls, measure_distance
from gsv3d.meshing.reference import Reference, find_corners, measure_outside, project_voxels
from gsv3d.meshing.settings import MeshSettings

OUTLINE = 0.5
"""Coverage at the picture's outline."""


def find_outline_bounds(reference: Reference) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners of a box that holds the outline, at the depth of the world's origin.

    Returns:
        twice (3,); an empty box, inf and -inf, where the picture shows nothing.
    """
    corners = find_corners(reference.coverage > OUTLINE)
    if corners is None:
        return np.full(3, np.inf), np.full(3, -np.inf)
    first, end = corners
    camera = reference.camera.resized(len(reference.rgba))
    depth = float(np.linalg.norm(camera.positions[0].numpy()))
    pixels = np.array([[u, v] for u in (first[0], end[0]) for v in (first[1], end[1])])
    (world,) = camera.unproject(pixels[None], np.full((1, 4), depth))
    return world.min(axis=0), world.max(axis=0)


def match_reference_outline(
    volume: Volume, reference: Reference, settings: MeshSettings = MeshSettings()
) -> Volume:
    """Give the solid the picture's outline, seen from its camera.

    Args:
        volume: settled; its walls are outside.
        reference: the picture and its camera.
        settings: how the outline is matched.

    Returns:
        A volume of the same box, finer where the object is slim; the same one where the two show
        different things.
    """
    coverage = resize_map(reference.coverage, settings.outline_pixels)
    shown = coverage > OUTLINE
    if not shown.any():
        return volume
    camera = reference.camera.resized(settings.outline_pixels)
    focal = float(camera.Ks[0, 0, 0])
    middle = _find_middle_depth(volume, camera)
    uv, z = project_voxels(volume, np.flatnonzero(volume.field < 0), camera)
    rays = _Rays(volume.voxel, shown, uv, z, focal, middle, settings)
    if rays.measure_agreement() < settings.outline_agreement:
        return volume
    coarse, volume = volume, _refine(volume, settings)
    truncation, walls = settings.truncation * coarse.voxel, float(coarse.field.max())
    line_half = settings.line_half * (volume.voxel * focal / middle)
    distance = _measure_outline(coverage, line_half)
    beside = measure_outside(coarse, np.arange(coarse.field.size), camera, distance)
    near = (beside < settings.outline_reach * coarse.voxel).reshape(coarse.field.shape)
    near = _find_finer(near, coarse, volume)
    uv, z = project_voxels(volume, near, camera)
    outside = measure_outside(volume, near, camera, distance)
    width = _look_up(_measure_half_width(distance), uv) * z / focal

    rays = _Rays(volume.voxel, distance < 0, uv, z, focal, float(np.median(z)), settings)
    field = np.full(volume.field.shape, truncation, dtype=np.float32)
    flat = field.reshape(-1)
    flat[near] = np.maximum(volume.field.ravel()[near], outside)
    solid = _drop_crumbs(field, settings.part_share).ravel()[near]
    solid = np.minimum(solid, rays.find_lost_parts(solid, outside, width, truncation))
    flat[near] = np.clip(np.maximum(solid, outside), -truncation, truncation)
    field = rays.drop_hidden_parts(close_walls(field, walls), near)
    return Volume(field, volume.origin, volume.voxel)


def _find_middle_depth(volume: Volume, camera: Cameras) -> float:
    """Return the z-depth of the grid's center: the median of its voxels'."""
    center = volume.origin + (np.array(volume.field.shape) - 1) / 2 * volume.voxel
    _, (depths,) = camera.project(center[None])
    return float(depths[0])


def _refine(volume: Volume, settings: MeshSettings) -> Volume:
    inside = volume.field < 0
    crossings = sum(int(np.diff(inside, axis=axis).sum()) for axis in range(3))
    finer = min(
        settings.max_finer,
        (settings.fine_voxels / inside.size) ** (1 / 3),
        (settings.fine_crossings / max(crossings, 1)) ** (1 / 2),
    )
    if finer < 1.1:
        return volume
    shape = tuple(int((n - 1) * finer) + 1 for n in volume.field.shape)
    field = ndimage.affine_transform(
        volume.field, np.full(3, 1 / finer), output_shape=shape, order=1, mode="nearest"
    )
    return Volume(field, volume.origin, volume.voxel / finer)


def _find_finer(mask: np.ndarray, coarse: Volume, fine: Volume) -> np.ndarray:
    """Return the flat indices of fine voxels whose nearest coarse voxel is in the mask."""
    step = fine.voxel / coarse.voxel
    nearest = [np.rint(np.arange(n) * step).astype(np.intp) for n in fine.field.shape]
    return np.flatnonzero(mask[np.ix_(*nearest)])


def _measure_outline(coverage: np.ndarray, line_half: float) -> np.ndarray:
    """Return (S, S) signed distances to the outline in pixels; widen lines too thin for voxels.

    Args:
        coverage: (S, S) in 0..1.
        line_half: half the width in pixels that lines get at least.
    """
    distance = measure_distance(coverage, OUTLINE)
    shown = coverage > OUTLINE
    width = int(np.ceil(2 * line_half))
    wide = ndimage.grey_opening(shown.astype(np.uint8), (width, width)) > 0
    # A line leads away from what is wide; a mere corner does not.
    labels, count = ndimage.label(shown & ~wide, np.ones((3, 3)))
    lines = np.zeros(count + 1, dtype=bool)
    lines[labels[~ndimage.maximum_filter(wide, 2 * width + 1)]] = True
    lines[0] = False
    if not lines.any():
        return distance
    middle = lines[labels] & _find_middle(distance)
    return np.minimum(distance, measure_distances(~middle) - line_half)


def _measure_half_width(distance: np.ndarray) -> np.ndarray:
    """Return (S, S) half widths of the outline: its distance at the nearest middle line."""
    row, column = ndimage.distance_transform_edt(
        ~_find_middle(distance), return_distances=False, return_indices=True
    )
    return np.maximum(-distance, 0)[row, column]


def _find_middle(distance: np.ndarray) -> np.ndarray:
    """Return (S, S) bool: inside pixels farther from the outline than those beside them."""
    inside = np.maximum(-distance, 0)
    return (inside == ndimage.maximum_filter(inside, 3)) & (inside > 0)


def _drop_crumbs(field: np.ndarray, share: float) -> np.ndarray:
    """Put the smallest parts of the field just outside: their place is still the nearest miss."""
    labels, count = ndimage.label(field < 0)
    if count < 2:
        return field
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    small = sizes < share * sizes[1:].max(initial=0)
    return np.where(small[labels], np.abs(field), field)


class _Rays:
    """Voxels of a volume, each with the ray of the picture that it lies on.

    Args:
        voxel: edge length of a voxel.
        shown: (S, S) bool, the outline.
        uv, z: (voxels, 2) of these pixels and (voxels,) depths of the voxels' centers.
        focal: focal length in these pixels.
        depth: at which a ray is as wide as it should be.
        settings: how the outline is matched.
    """

    def __init__(
        self,
        voxel: float,
        shown: np.ndarray,
        uv: np.ndarray,
        z: np.ndarray,
        focal: float,
        depth: float,
        settings: MeshSettings,
    ) -> None:
        pixels = len(shown)
        side = pixels / focal * depth  # of the picture, in the world
        self.size = int(np.clip(side / (voxel * settings.ray_width), 8, pixels))
        self.voxel, self.z, self.settings = voxel, z, settings
        self.pixel = side / self.size  # of a ray, in the world
        scale = self.size / pixels
        self.uv = uv * scale
        self.ray, self.inside = native_outline.find_rays(self.uv, self.size)
        rows, columns = np.nonzero(shown)
        self.wanted = np.zeros((self.size, self.size), dtype=bool)
        self.wanted[((rows + 0.5) * scale).astype(int), ((columns + 0.5) * scale).astype(int)] = (
            True
        )

    def measure_agreement(self) -> float:
        """Return the intersection over union of the voxels' silhouette and the picture's."""
        seen = self._find_hit(np.ones(len(self.z), dtype=bool))
        return float((seen & self.wanted).sum() / max((seen | self.wanted).sum(), 1))

    def _find_hit(self, solid: np.ndarray) -> np.ndarray:
        hit = np.zeros(self.size**2, dtype=bool)
        hit[self.ray[self.inside & solid]] = True
        return hit.reshape(self.size, self.size)

    def _average_depth(self, chosen: np.ndarray) -> np.ndarray:
        """Return (S, S) mean z of the chosen voxels on each ray; NaN where there is none."""
        count = np.bincount(self.ray[chosen], minlength=self.size**2)
        total = np.bincount(self.ray[chosen], self.z[chosen], minlength=self.size**2)
        with np.errstate(invalid="ignore"):
            return (total / count).reshape(self.size, self.size)

    def find_lost_parts(
        self, field: np.ndarray, outside: np.ndarray, width: np.ndarray, truncation: float
    ) -> np.ndarray:
        """Return (voxels,) distances to what the outline holds and no voxel does, else infinity.

        Args:
            field: (voxels,) distances to the solid.
            outside: (voxels,) distances to the outline.
            width: (voxels,) half the width of the outline there.
            truncation: largest distance of the field.
        """
        settings, distances = self.settings, np.full(len(field), np.inf)
        hit = self._find_hit(field < 0)
        missing = self.wanted & ~hit
        if not missing.any() or not hit.any():
            return distances
        nearest = np.full(self.size**2, np.inf)
        native_outline.lower_rays(self.ray[self.inside], field[self.inside], nearest)
        near_miss = self.inside & (field <= nearest[self.ray] + 1e-6)
        guess = self._average_depth(near_miss)
        trust = np.clip(
            1 - nearest.reshape(hit.shape) / (settings.miss_evidence * truncation), 0, 1
        )
        known = self._average_depth(self.inside & (field < 0))
        depth = _bridge_depths(known, missing, guess, settings.miss_weight * trust**2)
        slope = np.hypot(*np.gradient(depth)) / self.pixel
        stretch = np.sqrt(1 + np.minimum(slope, settings.steepest) ** 2)
        # Half a ray beyond: parts that meet must not be parted by the rays' own width.
        share = ndimage.maximum_filter(missing, 3)
        chosen = np.flatnonzero(self.inside & share.ravel()[self.ray] & (outside < self.voxel))
        where = self.uv[chosen]
        depth_inside = np.clip(-outside[chosen], 0, width[chosen])
        round_half = np.sqrt(depth_inside * (2 * width[chosen] - depth_inside))
        half = np.minimum(round_half, settings.most_half)
        half = np.maximum(half, settings.least_half * self.voxel * _look_up(stretch, where))
        distances[chosen] = np.abs(self.z[chosen] - _look_up(depth, where)) - half
        return distances

    def drop_hidden_parts(self, field: np.ndarray, voxels: np.ndarray) -> np.ndarray:
        """Drop loose parts of the field without which the picture loses at most a speck.

        Args:
            field: (X, Y, Z) distances.
            voxels: (voxels,) flat indices in it; all others are outside.
        """
        labels, count = ndimage.label(field < 0)
        if count < 2:
            return field
        flat = labels.ravel()[voxels]
        inside = np.flatnonzero(self.inside & (flat > 0))
        order = np.argsort(-np.bincount(flat, minlength=count + 1)[1:]) + 1
        covered = np.zeros(self.size**2, dtype=bool)
        keep = np.zeros(count + 1, dtype=bool)
        by_part = np.split(
            self.ray[inside[np.argsort(flat[inside], kind="stable")]],
            np.cumsum(np.bincount(flat[inside], minlength=count + 1)[1:])[:-1],
        )
        for part in order:
            rays = by_part[part - 1]
            keep[part] = (
                len(np.unique(rays[~covered[rays]])) > self.settings.speck * self.wanted.sum()
            )
            covered[rays] = True
        return np.where(keep[labels] | (labels == 0), field, np.abs(field))


def _bridge_depths(
    known: np.ndarray, missing: np.ndarray, guess: np.ndarray, pull: np.ndarray
) -> np.ndarray:
    """Fill NaN in (S, S) depths smoothly from the known rays around.

    A membrane: each missing ray is the mean of its neighbors, known or missing, drawn toward its
    guess.

    Args:
        known: (S, S) depths, NaN where there is none.
        missing: (S, S) bool, rays without a known depth that are to get one.
        guess: (S, S) depths; may be NaN where its weight is 0.
        pull: (S, S) in 0..1, weights of the guess.
    """
    row, column = ndimage.distance_transform_edt(
        np.isnan(known), return_distances=False, return_indices=True
    )
    nearest = known[row, column]
    size = len(known)
    rows, columns = np.nonzero(missing)
    number = np.full((size + 2, size + 2), -1)
    number[rows + 1, columns + 1] = np.arange(len(rows))
    padded = np.pad(known, 1, constant_values=np.nan)
    pull = np.where(np.isfinite(guess), pull, 0.0)[rows, columns]
    # A part that touches nothing is as deep as the nearest ray that knows.
    diagonal = pull + 1e-4
    right = pull * np.nan_to_num(guess[rows, columns]) + 1e-4 * nearest[rows, columns]
    links = []
    for down, across in ((-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1)):
        weight = 1.0 if down * across == 0 else 0.5
        where = (rows + 1 + down, columns + 1 + across)
        other, value = number[where], padded[where]
        held = np.isfinite(value)
        free = (other >= 0) & ~held
        diagonal = diagonal + weight * (held | free)
        right = right + weight * np.where(held, value, 0.0)
        links.append((np.flatnonzero(free), other[free], np.full(int(free.sum()), -weight)))
    first, second, weights = (np.concatenate(parts) for parts in zip(*links, strict=True))
    count = len(rows)
    matrix = sparse.coo_matrix((weights, (first, second)), (count, count)) + sparse.diags(diagonal)
    depth = known.copy()
    depth[rows, columns] = spsolve(matrix.tocsc(), right)
    row, column = ndimage.distance_transform_edt(
        np.isnan(depth), return_distances=False, return_indices=True
    )
    return depth[row, column]


def _look_up(values: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Return (N,) bilinear values; beyond the picture the nearest pixel's."""
    return native_outline.look_up(values.astype(np.float32)[None, ..., None], uv)


def resize_map(values: np.ndarray, size: int) -> np.ndarray:
    """Return (size, size) float32, each pixel the mean of those it stands for."""
    return np.asarray(Image.fromarray(values).resize((size, size), Image.Resampling.BOX))

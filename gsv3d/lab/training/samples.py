# SPDX-License-Identifier: Apache-2.0
"""Choose the views of an orbit that make a sample, and change them all alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gsv3d.cameras import Cameras
from gsv3d.errors import DataError
from gsv3d.lab.training.bank import Orbit
from gsv3d.masks import box_of
from gsv3d.preprocessing import FILL


@dataclass(frozen=True)
class OrbitSamples:
    """B samples of T input views, the last of which is the reference, and M novel views.

    Attributes:
        rgba: (B, T, 4, H, W) float in 0..1, straight alpha.
        depth: (B, T, H, W) float z-depth, 0 where empty.
        pose: (B, T, 3), see ``pose_ids``.
        viewmats: (B, T, 4, 4) world to camera; azimuths count from the reference, which has 0.
        novel_rgba: (B, M, 4, H, W), as ``rgba``.
        novel_depth: (B, M, H, W), as ``depth``.
        novel_viewmats: (B, M, 4, 4), as ``viewmats``.
        K: (3, 3) intrinsics in pixels, of all views.
        mirror_azimuth, log_depth: (B,), see ``gsv3d.multiview.hints.Hints``.
    """

    rgba: Tensor
    depth: Tensor
    pose: Tensor
    viewmats: Tensor
    novel_rgba: Tensor
    novel_depth: Tensor
    novel_viewmats: Tensor
    K: Tensor  # noqa: N815 - the field's name for it, and gsplat's
    mirror_azimuth: Tensor
    log_depth: Tensor

    def __len__(self) -> int:
        return len(self.rgba)

    def __getitem__(self, chosen: Sequence[int]) -> OrbitSamples:
        """Return some of the samples."""
        parts = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "K"}
        return OrbitSamples(**{name: part[list(chosen)] for name, part in parts.items()}, K=self.K)

    @property
    def size(self) -> int:
        """Return the side of the pictures in pixels."""
        return self.rgba.shape[-1]

    def cameras(self) -> Cameras:
        """Return the B * T cameras of the views around, one sample after the other."""
        return self.cameras_of(self.viewmats)

    def cameras_of(self, viewmats: Tensor) -> Cameras:
        """Return the cameras of (..., 4, 4) ``viewmats``, in one row."""
        flat = viewmats.flatten(0, -3)
        return Cameras(flat, self.K.expand(len(flat), 3, 3), self.size, self.size)


def check_views(num_orbit: int, num_frames: int) -> None:
    """Refuse orbits from which ``num_frames`` evenly spaced views cannot be taken.

    Args:
        num_orbit: number of views on each orbit.
        num_frames: number of views to take, T.

    Raises:
        DataError: ``num_orbit`` is no multiple of ``num_frames``.
    """
    if num_orbit % num_frames:
        reason = f"which is no multiple of {num_frames}."
        if num_orbit < num_frames:
            reason = f"fewer than the {num_frames} asked for."
        raise DataError(
            f"The orbits have {num_orbit} views each, {reason}",
            "Render with another --orbit-views, or train with another num_frames.",
        )


@dataclass(frozen=True)
class Chosen:
    """Views of one orbit that make a sample.

    Attributes:
        frames: indices of T views, the reference last; for a mirrored object the order of the
            others is reversed.
        novel: indices of M other views.
        azimuths_deg, elevations_deg: T + M angles; azimuths count from the reference.
    """

    frames: list[int]
    novel: list[int]
    azimuths_deg: list[float]
    elevations_deg: list[float]


def choose_views(
    orbit: Orbit, num_frames: int, num_novel: int, rng: np.random.Generator, mirrored: bool
) -> Chosen:
    """Choose a reference, views evenly spaced around it (SV3D, appendix B), and novel views.

    Args:
        orbit: the orbit; the number of its views is a multiple of ``num_frames``.
        num_frames: T, the reference included.
        num_novel: M, drawn from all other views; views repeat if there are fewer.
        rng: random generator.
        mirrored: the object is reflected at the upright plane through the reference's axis.

    Raises:
        DataError: see ``check_views``.
    """
    check_views(orbit.num_orbit, num_frames)
    start = int(rng.integers(orbit.num_orbit))
    step = orbit.num_orbit // num_frames
    frames = [(start + step * (i + 1)) % orbit.num_orbit for i in range(num_frames)]
    others = np.array([i for i in range(len(orbit.azimuths_deg)) if i not in frames] or frames)
    novel = rng.choice(others, size=num_novel, replace=len(others) < num_novel).tolist()
    if mirrored:
        frames = frames[-2::-1] + frames[-1:]
    sign = -1.0 if mirrored else 1.0
    zero = float(orbit.azimuths_deg[start])
    views = frames + novel
    return Chosen(
        frames=frames,
        novel=novel,
        azimuths_deg=[sign * (float(orbit.azimuths_deg[i]) - zero) % 360.0 for i in views],
        elevations_deg=[float(orbit.elevations_deg[i]) for i in views],
    )


RECOLORED = 0.7
"""Share of the samples whose colors are changed."""
ORBIT_ZOOM = (0.85, 1.2)
"""Range of the enlargement. Precomputed latents draw from it: their reference is not chosen yet."""


@dataclass(frozen=True)
class Change:
    """A change of one object's pictures, the same for all views.

    Attributes:
        mirrored: the object is reflected, and the order of its views reversed.
        order: indices of the channels that become the first, second and third.
        gamma: exponents of the three reordered channels.
        zoom: factor of enlargement; below 1 reduces.
    """

    mirrored: bool = False
    order: tuple[int, int, int] = (0, 1, 2)
    gamma: tuple[float, float, float] = (1.0, 1.0, 1.0)
    zoom: float = 1.0

    @staticmethod
    def drawn(
        rng: np.random.Generator, zoom: tuple[float, float] = (1.0, 1.0), zoomed: float = 1.0
    ) -> Change:
        """Draw a random change.

        Args:
            rng: random generator.
            zoom: smallest and largest factor of enlargement.
            zoomed: probability in 0..1 that the size is changed.
        """
        mirrored = bool(rng.random() < 0.5)
        plain = Change(mirrored)
        order, gamma = plain.order, plain.gamma
        if rng.random() < RECOLORED:
            first, second, third = (int(i) for i in rng.permutation(3))
            order = (first, second, third)
            red, green, blue = (float(g) for g in np.exp(0.25 * rng.standard_normal(3)))
            gamma = (red, green, blue)
        factor = float(rng.uniform(*zoom)) if rng.random() < zoomed else 1.0
        return Change(mirrored, order, gamma, factor)

    @staticmethod
    def of_orbit(seed: int) -> Change:
        """Return the change of an orbit for the multi-view model; it depends on the seed alone."""
        return Change.drawn(np.random.default_rng(seed), ORBIT_ZOOM)

    def framed(self, alpha: np.ndarray) -> Change:
        """Return this change with the zoom at which the reference is framed like a user's picture.

        At a fixed distance, an object of extent 1 looks smaller the deeper it is. Framing removes
        that cue from a user's picture, so a model that relies on it would be misled.

        Args:
            alpha: (H, W) uint8 alpha of the reference.
        """
        box = box_of(alpha > 127)
        if box is None:
            return self
        fill = max(side.stop - side.start for side in box) / len(alpha)
        return replace(self, zoom=float(np.clip(FILL / fill, *ORBIT_ZOOM)))

    def apply(self, rgba: Tensor) -> Tensor:
        """Change (V, 4, H, W) pictures in 0..1."""
        return Changes.of([self]).apply(rgba[None])[0]


@dataclass(frozen=True)
class Changes:
    """The changes of B samples, on the device of their pictures.

    Attributes:
        mirrored: (B,) bool.
        order: (B, 3) int64.
        gamma: (B, 3) float.
        zoom: (B,) float, or None if no sample is enlarged.
    """

    mirrored: Tensor
    order: Tensor
    gamma: Tensor
    zoom: Tensor | None

    @staticmethod
    def of(changes: Sequence[Change]) -> Changes:
        """Join the changes of single samples."""
        zoom = torch.tensor([change.zoom for change in changes])
        return Changes(
            mirrored=torch.tensor([change.mirrored for change in changes]),
            order=torch.tensor([change.order for change in changes]),
            gamma=torch.tensor([change.gamma for change in changes]),
            zoom=None if all(change.zoom == 1.0 for change in changes) else zoom,
        )

    def apply(self, rgba: Tensor) -> Tensor:
        """Change (B, V, 4, H, W) pictures in 0..1 with straight alpha."""
        rgba = self.flip(rgba)
        rgba = recolor(rgba, self.order, self.gamma)
        return rgba if self.zoom is None else zoom(rgba, self.zoom)

    def apply_depth(self, depth: Tensor, distance: Tensor) -> Tensor:
        """Change z-depths as the objects are changed.

        Enlarging the picture stands for enlarging the object around the world's origin; the
        perspective of that, some percent stronger, is neglected.

        Args:
            depth: (B, V, H, W) z-depths, 0 where empty.
            distance: (B,) distances of the samples' cameras from the origin.
        """
        depth = self.flip(depth)
        if self.zoom is None:
            return depth
        moved = F.grid_sample(
            depth.flatten(0, 1)[:, None], _grid(self.zoom, depth.shape), mode="nearest",
            align_corners=False,
        )[:, 0].view_as(depth)  # fmt: skip
        factor, middle = self.zoom[:, None, None, None], distance[:, None, None, None]
        return torch.where(moved > 0, middle + factor * (moved - middle), 0.0)

    def flip(self, values: Tensor) -> Tensor:
        """Flip (B, V, ..., W) values of the mirrored samples left for right."""
        chosen = self.mirrored.view(-1, *[1] * (values.dim() - 1))
        return torch.where(chosen, values.flip(-1), values)


def recolor(rgba: Tensor, order: Tensor, gamma: Tensor) -> Tensor:
    """Permute the color channels and change their gamma, the same for all views.

    Args:
        rgba: (B, V, 4, H, W) in 0..1.
        order: (B, 3) int64 indices of the channels that become the first, second and third.
        gamma: (B, 3) exponents of the permuted channels.
    """
    color = rgba[:, :, :3]
    wide = order[:, None, :, None, None].expand_as(color)
    color = color.gather(2, wide).clamp_min(1e-4) ** gamma[:, None, :, None, None]
    return torch.cat([color, rgba[:, :, 3:]], dim=2)


def zoom(rgba: Tensor, factor: Tensor) -> Tensor:
    """Enlarge pictures around their center; what comes in from outside is empty.

    Args:
        rgba: (B, V, 4, H, W) in 0..1, straight alpha.
        factor: (B,) factors; below 1 reduces.
    """
    flat, grid = rgba.flatten(0, 1), _grid(factor, rgba.shape)
    # Premultiplied, or the color of empty pixels would bleed into the rim.
    alpha = flat[:, 3:]
    moved = F.grid_sample(torch.cat([flat[:, :3] * alpha, alpha], dim=1), grid, align_corners=False)
    color = moved[:, :3] / moved[:, 3:].clamp_min(1e-4)
    moved = torch.cat([color.clamp(0, 1), moved[:, 3:].clamp(0, 1)], dim=1)
    return moved.view_as(rgba)


def _grid(factor: Tensor, shape: Sequence[int]) -> Tensor:
    """Return (B V, H, W, 2) points at which enlarged (B, V, ..., H, W) pictures are sampled."""
    (batch, views), (height, width) = shape[:2], shape[-2:]
    rows = torch.zeros(batch, 2, 3, device=factor.device)
    rows[:, 0, 0] = rows[:, 1, 1] = 1 / factor
    theta = rows.repeat_interleave(views, dim=0)
    return F.affine_grid(theta, [batch * views, 1, height, width], align_corners=False)

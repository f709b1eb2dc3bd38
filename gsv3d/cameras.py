# SPDX-License-Identifier: Apache-2.0
"""Cameras on orbits, and the one camera convention of the project.

World: right-handed, +Z up, the object centered at the origin with largest extent 1. Azimuth 0 looks
at the object from -Y, azimuth grows counter-clockwise seen from above (90 degrees is +X), elevation
is positive above the horizon. Angles are degrees here at the interface.

Camera: OpenCV (x right, y down, z forward), ``viewmats`` map world to camera, ``Ks`` are in pixels
with pixel centers at half-integers: what gsplat expects. Blender's own cameras look along -Z with
+Y up, which is ``camera_to_world @ diag(1, -1, -1, 1)`` (``to_blender``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

FOV_DEG = 33.8
"""Field of view of SV3D's renders (SV3D, appendix B)."""

DISTANCE = 2.35
"""Canonical camera distance: an object of extent 1 fills some 0.7 of the frame."""

Angles = TypeVar("Angles", float, np.ndarray)
Points = TypeVar("Points", Tensor, np.ndarray)

MAX_ELEVATION_DEG = 89.0
"""Limit of orbits that move: straight above the object a camera's azimuth means nothing."""

DYNAMIC_FRAMES = 84
"""Frames of SV3D's orbits, at which a dynamic one's elevations are smoothed."""


@dataclass(frozen=True)
class Cameras:
    """V pinhole cameras that share an image size.

    Attributes:
        viewmats: (V, 4, 4) world to camera, OpenCV axes.
        Ks: (V, 3, 3) intrinsics in pixels.
        width: image width in pixels.
        height: image height in pixels.
    """

    viewmats: Tensor
    Ks: Tensor  # noqa: N815 - the field's name for it, and gsplat's
    width: int
    height: int

    def __len__(self) -> int:
        return self.viewmats.shape[0]

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Cameras:
        """Return some of the views; a single one keeps the views' axis."""
        if isinstance(index, (int, np.integer)):
            index = [int(index)]
        return Cameras(self.viewmats[index], self.Ks[index], self.width, self.height)

    def to(self, device: torch.device | str) -> Cameras:
        return Cameras(self.viewmats.to(device), self.Ks.to(device), self.width, self.height)

    def resized(self, size: int) -> Cameras:
        """Return the same views with square pictures of ``size`` pixels."""
        scale = torch.tensor(
            [[size / self.width], [size / self.height], [1.0]], device=self.Ks.device
        )
        return Cameras(self.viewmats, self.Ks * scale, size, size)

    @staticmethod
    def concatenate(cameras: Sequence[Cameras]) -> Cameras:
        """Return all views of several sets that share an image size, one set after the other."""
        first = cameras[0]
        if any((c.width, c.height) != (first.width, first.height) for c in cameras):
            raise ValueError("Cameras of different image sizes cannot be concatenated.")
        return Cameras(
            torch.cat([c.viewmats for c in cameras]),
            torch.cat([c.Ks for c in cameras]),
            first.width,
            first.height,
        )

    @property
    def positions(self) -> Tensor:
        """Return (V, 3) camera centers in the world."""
        rotation, translation = self.viewmats[:, :3, :3], self.viewmats[:, :3, 3]
        with _full_precision(self.viewmats):
            return -(rotation.transpose(1, 2) @ translation[..., None])[..., 0]

    def project(self, points: Points) -> tuple[Points, Points]:
        """Project points of the world into every view.

        Args:
            points: (N, 3), or (V, N, 3) for other points in each view. Tensors are projected on
                their device in their type, arrays in float64.

        Returns:
            (V, N, 2) pixels and (V, N) z-depths. A point beside or behind the camera gets the pixel
            that it would have just in front of it, far outside the picture.
        """
        rotation, shift, focal, center = self._pinholes(points)
        with _full_precision(self.viewmats):
            local = points @ rotation.swapaxes(1, 2) + shift
            depths = local[..., 2]
            return local[..., :2] / depths.clip(min=1e-6)[..., None] * focal + center, depths

    def unproject(self, pixels: Points, depths: Points) -> Points:
        """Return the (V, N, 3) points of the world at z-depths (V, N) under pixels (V, N, 2)."""
        rotation, shift, focal, center = self._pinholes(pixels)
        across = (pixels - center) / focal * depths[..., None]
        join = np.concatenate if isinstance(pixels, np.ndarray) else torch.cat
        with _full_precision(self.viewmats):
            return (join([across, depths[..., None]], -1) - shift) @ rotation

    def _pinholes(self, like: Points) -> tuple[Points, Points, Points, Points]:
        """Return rotations (V, 3, 3), shifts, focal lengths and centers (V, 1, 3 or 2)."""
        viewmats: Any
        Ks: Any
        if isinstance(like, np.ndarray):
            viewmats, Ks = (m.double().cpu().numpy() for m in (self.viewmats, self.Ks))
        else:
            viewmats, Ks = self.viewmats.to(like), self.Ks.to(like)
        rotation, shift = viewmats[:, :3, :3], viewmats[:, None, :3, 3]
        return rotation, shift, Ks.diagonal(0, 1, 2)[:, None, :2], Ks[:, None, :2, 2]

    def rays(self) -> tuple[Tensor, Tensor]:
        """Return rays through the pixel centers.

        Returns:
            origins (V, H, W, 3) and directions (V, H, W, 3) in the world; the directions have unit
            z-depth (not unit length), so ``origin + z * direction`` is the point at z-depth z.
        """
        device = self.Ks.device
        u = torch.arange(self.width, device=device) + 0.5
        v = torch.arange(self.height, device=device) + 0.5
        grid_v, grid_u = torch.meshgrid(v, u, indexing="ij")
        pixels = torch.stack([grid_u, grid_v, torch.ones_like(grid_u)], dim=-1)
        with _full_precision(self.Ks):
            local = torch.einsum("vij,hwj->vhwi", torch.linalg.inv(self.Ks), pixels)
            directions = torch.einsum("vji,vhwj->vhwi", self.viewmats[:, :3, :3], local)
        origins = self.positions[:, None, None].expand_as(directions)
        return origins, directions

    def pluecker(self) -> Tensor:
        """Return (V, 6, H, W) Pluecker coordinates (o x d, d) with unit d of the pixels' rays."""
        origins, directions = self.rays()
        directions = torch.nn.functional.normalize(directions, dim=-1)
        moments = torch.cross(origins, directions, dim=-1)
        return torch.cat([moments, directions], dim=-1).permute(0, 3, 1, 2)


def _full_precision(tensor: Tensor) -> torch.autocast:
    """Leave mixed precision: bfloat16 would turn rays by as much as a pixel."""
    return torch.autocast(tensor.device.type, enabled=False)


def intrinsics(size: int, fov_deg: float = FOV_DEG) -> Tensor:
    """Return the (3, 3) pinhole matrix of a square picture of ``size`` pixels."""
    focal = 0.5 * size / np.tan(np.deg2rad(fov_deg) / 2)
    return torch.tensor([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]]).float()


def look_at_origin(azimuth_deg: float, elevation_deg: float, distance: float) -> np.ndarray:
    """Return (4, 4) float64 world to camera, of a camera on the sphere that looks at the origin."""
    azimuth, elevation = np.deg2rad(azimuth_deg), np.deg2rad(elevation_deg)
    right = np.array([np.cos(azimuth), np.sin(azimuth), 0.0])
    outward = np.array(
        [
            np.sin(azimuth) * np.cos(elevation),
            -np.cos(azimuth) * np.cos(elevation),
            np.sin(elevation),
        ]
    )
    forward = -outward
    down = np.cross(forward, right)
    viewmat = np.eye(4)
    viewmat[:3, :3] = np.stack([right, down, forward])
    viewmat[:3, 3] = -viewmat[:3, :3] @ (outward * distance)
    return viewmat


def orbit(
    azimuths_deg: Sequence[float],
    elevations_deg: Sequence[float] | float,
    *,
    size: int,
    distance: float = DISTANCE,
    fov_deg: float = FOV_DEG,
) -> Cameras:
    """Place cameras on a sphere around the origin.

    Args:
        azimuths_deg: V azimuths in degrees.
        elevations_deg: V elevations in degrees, or one for all.
        size: width and height of the pictures in pixels.
        distance: from the origin, in extents of the object.
        fov_deg: horizontal and vertical field of view.
    """
    azimuths = [float(a) for a in azimuths_deg]
    if isinstance(elevations_deg, (int, float)):
        elevations = [float(elevations_deg)] * len(azimuths)
    else:
        elevations = [float(e) for e in elevations_deg]
    if len(elevations) != len(azimuths):
        raise ValueError(f"{len(azimuths)} azimuths but {len(elevations)} elevations.")
    mats = np.stack(
        [look_at_origin(a, e, distance) for a, e in zip(azimuths, elevations, strict=True)]
    )
    viewmats = torch.from_numpy(mats).float()
    return Cameras(viewmats, intrinsics(size, fov_deg).repeat(len(azimuths), 1, 1), size, size)


def static_azimuths_deg(num_frames: int) -> list[float]:
    """Return SV3D's azimuths: evenly spaced, the reference view last at azimuth 0."""
    return [360.0 * (i + 1) / num_frames % 360.0 for i in range(num_frames)]


def sine_elevations_deg(azimuths_deg: Sequence[float], elevation_deg: float) -> list[float]:
    """Return elevations that rise and fall once around (SV3D's sine-30, appendix G.2), within +-89.

    Args:
        azimuths_deg: azimuths of the frames; at azimuth 0 the elevation is ``elevation_deg``.
        elevation_deg: elevation of the reference view.
    """
    waves = elevation_deg + 30.0 * np.sin(np.deg2rad(np.asarray(azimuths_deg)))
    return np.clip(waves, -MAX_ELEVATION_DEG, MAX_ELEVATION_DEG).tolist()


ORBITS = ("static", "sine")
"""Orbits that a model may be made for."""

ORBIT_CHOICES = (*ORBITS, "dynamic")
"""Orbits that a user may ask for."""

MAX_VIEWS = DYNAMIC_FRAMES
"""Most views of an orbit that a user may ask for: as many as SV3D's orbits were rendered with."""


def model_elevations_deg(
    kind: str, azimuths_deg: Sequence[float], elevation_deg: float
) -> list[float]:
    """Return elevations of a model's views.

    Args:
        kind: one of ``ORBITS``.
        azimuths_deg: azimuths of the views, the reference's 0.
        elevation_deg: elevation of the reference.

    Raises:
        ValueError: there is no such orbit.
    """
    if kind == "sine":
        return sine_elevations_deg(azimuths_deg, elevation_deg)
    if kind == "static":
        return [float(elevation_deg)] * len(azimuths_deg)
    raise ValueError(f"There is no orbit '{kind}'; there are {', '.join(ORBITS)}.")


def views_deg(
    kind: str,
    num_frames: int,
    elevation_deg: float,
    *,
    azimuths_deg: Sequence[float] | None = None,
    elevations_deg: Sequence[float] | None = None,
    seed: int = 0,
) -> tuple[list[float], list[float]]:
    """Return the azimuths and the elevations of a model's views, the picture's own last.

    Args:
        kind: one of ``ORBIT_CHOICES``.
        num_frames: V, 2..``MAX_VIEWS``; where angles are given they say how many views there are.
        elevation_deg: elevation of the picture, -90..90.
        azimuths_deg: 0..360, growing, then 0; evenly spaced unless given.
        elevations_deg: -90..90, the last the picture's; those of ``kind`` unless given.
        seed: seed of a dynamic orbit without given angles.

    Raises:
        ValueError: the angles are not such lists; the sentence says what a list must hold.
    """
    if not -90 <= elevation_deg <= 90:
        raise ValueError(f"elevation must lie in [-90, 90] degrees, not {elevation_deg}.")
    given = azimuths_deg if azimuths_deg is not None else elevations_deg
    frames = num_frames if given is None else len(given)
    if not 2 <= frames <= MAX_VIEWS:
        raise ValueError(f"An orbit has 2 to {MAX_VIEWS} views, not {frames}.")
    azimuths = static_azimuths_deg(frames)
    if azimuths_deg is not None:
        azimuths = [float(azimuth) for azimuth in azimuths_deg]
        *others, last = azimuths
        growing = all(a <= b for a, b in zip([0.0, *others], others, strict=False))
        if not (growing and others[-1] < 360 and last in (0, 360)):
            raise ValueError(
                "Azimuths must grow from 0 to less than 360 degrees and end with 0, the picture's"
                f" own view, not {_list(azimuths)}."
            )
        azimuths[-1] = 0.0
    if elevations_deg is not None:
        elevations = [float(elevation) for elevation in elevations_deg]
        if len(elevations) != frames:
            raise ValueError(
                f"There are {frames} azimuths but {len(elevations)} elevations; every view needs"
                " one of each."
            )
        if not all(-90 <= elevation <= 90 for elevation in elevations):
            raise ValueError(f"Elevations must be -90..90 degrees, not {_list(elevations)}.")
        if elevations[-1] != elevation_deg:
            raise ValueError(
                f"The last elevation must be the picture's own, {elevation_deg:g} degrees, not"
                f" {elevations[-1]:g}."
            )
        return azimuths, elevations
    if given is None and kind == "dynamic":
        rng = np.random.default_rng(seed)
        azimuths, elevations = dynamic_orbit_deg(frames, elevation_deg, rng, from_reference=True)
    else:
        elevations = model_elevations_deg(kind, azimuths, elevation_deg)
    elevations[-1] = float(elevation_deg)  # moving orbits stay within +-89
    return azimuths, elevations


def _list(angles: Sequence[float]) -> str:
    return ", ".join(f"{angle:g}" for angle in angles)


def mirrored_azimuth_deg(plane_azimuth_deg: Angles) -> Angles:
    """Return the azimuth of the camera that sees the mirrored input picture.

    A vertical mirror plane of the object is named by the horizontal direction in which it extends,
    as the azimuth p in [0, 180) of a camera that lies in the plane; p and p + 180 are one plane, 0
    is the plane through the input camera. Mirrored in it, the input camera at azimuth 0 comes to
    2 p, at the same elevation. A camera there sees the input picture flipped left to right.

    Args:
        plane_azimuth_deg: p, one or an array of them.

    Returns:
        2 p in [0, 360).
    """
    return 2.0 * plane_azimuth_deg % 360.0


def dynamic_orbit_deg(
    num_frames: int,
    elevation_deg: float,
    rng: np.random.Generator,
    num_sinusoids: int = 84,
    from_reference: bool = False,
) -> tuple[list[float], list[float]]:
    """Draw one of SV3D's dynamic orbits (appendix B), which closes on itself.

    The elevation is a sum of sinusoids of 1 to 5 whole periods, amplitudes U[0.5, 10] degrees and
    random phases about ``elevation_deg``, averaged over 5 of 84 frames and limited to +-89 degrees;
    azimuths are evenly spaced but for noise of up to half a step. The paper leaves open how many
    sinusoids and how much noise: 84 is what its authors' published generator adds.

    Args:
        num_frames: T, at least 1.
        elevation_deg: about which the camera moves.
        rng: the draw's generator.
        num_sinusoids: number of sinusoids that are added.
        from_reference: whether the reference is at ``elevation_deg`` itself: phases are 0 or pi
            then, as in the authors' published generator.

    Returns:
        T azimuths in 0..360, growing, the last being the reference at 0, and T elevations.
    """
    finer = -(-DYNAMIC_FRAMES // num_frames)
    time = 2 * np.pi * np.arange(num_frames * finer) / (num_frames * finer)
    periods = rng.integers(1, 6, num_sinusoids)
    amplitudes = rng.uniform(0.5, 10.0, num_sinusoids)
    if from_reference:
        phases = np.pi * rng.integers(0, 2, num_sinusoids)
    else:
        phases = rng.uniform(0, 2 * np.pi, num_sinusoids)
    waves = amplitudes[:, None] * np.sin(periods[:, None] * time + phases[:, None])
    elevations = elevation_deg + waves.sum(axis=0)
    elevations = np.mean([np.roll(elevations, shift) for shift in range(-2, 3)], axis=0)
    elevations = np.clip(elevations, -MAX_ELEVATION_DEG, MAX_ELEVATION_DEG)[::finer]
    noise = rng.uniform(-0.5, 0.5, num_frames)
    noise[0] = 0.0
    azimuths = (np.arange(num_frames) + noise) * 360.0 / num_frames
    return np.roll(azimuths, -1).tolist(), np.roll(elevations, -1).tolist()


def to_blender(viewmat: Tensor | np.ndarray) -> np.ndarray:
    """Convert (4, 4) world-to-camera in OpenCV axes to Blender's ``matrix_world`` of a camera."""
    matrix = np.linalg.inv(np.asarray(viewmat, dtype=np.float64))
    return matrix @ np.diag([1.0, -1.0, -1.0, 1.0])

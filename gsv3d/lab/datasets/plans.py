# SPDX-License-Identifier: Apache-2.0
"""Plan how an object is rendered: settings, random choices and placement.

As in SV3D (arXiv 2403.12008, appendix B): the bounding box centered at the origin with largest
extent 1, a static or a dynamic orbit about an elevation of U[-5, 30] degrees and a field of view of
33.8 degrees under a random HDRI, a random background color; besides, novel views from anywhere
around. SV3D moves the camera back until nothing is clipped; here the camera's distance is fixed and
the object is scaled down instead, which gives the same pictures up to perspective and one set of
cameras for all objects.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

MAX_PIXELS = 89_000_000
"""Most pixels of all views of an object together: Pillow warns of larger picture files."""

MARGIN = 0.94
"""Part of the frame's half width that no vertex exceeds in any view."""


CHOICES: dict[str, tuple[str | None, ...]] = {
    "orbit": ("static", "dynamic", "sine"),
    "engine": ("cycles", "eevee"),
    "normals": (None, "camera", "world"),
    "light": ("hdri", "flat"),
    "materials": ("matt", "original"),
}
"""Allowed values of the settings that are words."""


@dataclass(frozen=True)
class OrbitSettings:
    """Settings of the renderings of a data set, the same for all its objects.

    Attributes:
        size: width and height of the pictures in pixels, 16..2048.
        orbit: "static" (one elevation, azimuths k * 360 / orbit_views), "dynamic" (SV3D's, see
            ``gsv3d.cameras.dynamic_orbit_deg``) or "sine" (elevations as a sine of the azimuth).
        orbit_views: number of views on the orbit, at least 1.
        novel_views: number of further views from random directions, at least 0.
        samples: number of samples of a pixel, at least 1.
        engine: "cycles", or "eevee" (needs a GPU or EGL).
        normals: None, or the axes they are stored in: "camera" (OpenCV's: x right, y down, z away
            from the camera) or "world".
        seed: seed of all random choices, together with the object's name.
        light: "hdri" (one of Blender's own, turned at random) or "flat" (uniform white).
        materials: "matt" (the base color alone, diffuse) or "original".
        random_colors: give objects without any color of their own a random one.
        orbit_elevation_deg: range of the orbit's (mean) elevation in degrees.
        novel_elevation_deg: range of the novel views' elevations in degrees.
        distance: distance of the camera from the origin; the object's extent is 1.
        fov_deg: field of view in degrees.
    """

    size: int = 128
    orbit_views: int = 16
    novel_views: int = 4
    orbit: str = "static"
    samples: int = 8
    engine: str = "cycles"
    normals: str | None = None
    seed: int = 0
    light: str = "hdri"
    materials: str = "matt"
    random_colors: bool = False
    orbit_elevation_deg: tuple[float, float] = (-5.0, 30.0)
    novel_elevation_deg: tuple[float, float] = (-20.0, 60.0)
    distance: float = 2.35
    fov_deg: float = 33.8

    def __post_init__(self) -> None:
        for name, low, high in (
            ("size", 16, 2048),
            ("orbit_views", 1, 1024),
            ("novel_views", 0, 1024),
            ("samples", 1, 65536),
            ("seed", 0, 2**63 - 1),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}, but must lie in {low}..{high}.")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                named = " or ".join(repr(choice) for choice in choices)
                raise ValueError(f"{name} is {getattr(self, name)!r}, but must be {named}.")
        pixels = (self.orbit_views + self.novel_views) * self.size**2
        if pixels > MAX_PIXELS:
            raise ValueError(
                f"{self.orbit_views + self.novel_views} views of {self.size} x {self.size} are "
                f"{pixels / 1e6:.0f} million pixels an object, but {MAX_PIXELS // 10**6} are the "
                "most; take fewer or smaller views."
            )


@dataclass(frozen=True)
class OrbitPlan:
    """The random choices for one object; they depend on the seed and its name alone.

    Attributes:
        azimuths_deg: (V,) float32.
        elevations_deg: (V,) float32.
        yaw_deg: turn of the object about +Z.
        light_choice: choice of an HDRI, in 0..1.
        light_yaw_deg: turn of the HDRI about +Z.
        hsv: (3,) base color in 0..1 for an object without color.
        background: (3,) sRGB in 0..255 of the color that the pictures may be shown on.
    """

    azimuths_deg: np.ndarray
    elevations_deg: np.ndarray
    yaw_deg: float
    light_choice: float
    light_yaw_deg: float
    hsv: tuple[float, float, float]
    background: tuple[int, int, int]


def object_rng(seed: int, name: str) -> np.random.Generator:
    """Make a random generator for one object, independent of the other objects."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))


def plan_orbit(settings: OrbitSettings, name: str) -> OrbitPlan:
    """Draw yaw, cameras, light and colors of one object."""
    from gsv3d.cameras import dynamic_orbit_deg, sine_elevations_deg

    rng = object_rng(settings.seed, name)
    yaw = float(rng.uniform(0, 360))
    elevation = float(rng.uniform(*settings.orbit_elevation_deg))
    light_choice, light_yaw = float(rng.random()), float(rng.uniform(0, 360))
    hsv = (float(rng.random()), float(rng.uniform(0.1, 0.85)), float(rng.uniform(0.25, 0.9)))
    n, m = settings.orbit_views, settings.novel_views
    novel_azimuths = rng.uniform(0, 360, m)
    novel_elevations = rng.uniform(*settings.novel_elevation_deg, m)
    red, green, blue = (int(c) for c in rng.integers(0, 256, 3))
    azimuths, elevations = np.arange(n) * 360.0 / n, np.full(n, elevation)
    if settings.orbit == "sine":
        elevations = np.array(sine_elevations_deg(azimuths.tolist(), elevation))
    elif settings.orbit == "dynamic":
        # Its reference comes last, but an orbit in a file begins at azimuth 0.
        moving = dynamic_orbit_deg(n, elevation, rng)
        azimuths, elevations = (np.roll(values, 1) for values in moving)
    return OrbitPlan(
        np.concatenate([azimuths, novel_azimuths]).astype(np.float32),
        np.concatenate([elevations, novel_elevations]).astype(np.float32),
        yaw,
        light_choice,
        light_yaw,
        hsv,
        (red, green, blue),
    )


def normalizing_transform(
    points: np.ndarray, yaw_deg: float, viewmats: np.ndarray, fov_deg: float
) -> tuple[np.ndarray, float]:
    """Turn, center and scale an object so that it is whole in every view.

    Args:
        points: (N, 3) vertices of the object in its own world.
        yaw_deg: turn about +Z, applied first.
        viewmats: (V, 4, 4) world to camera, OpenCV axes, of cameras that look at the origin.
        fov_deg: field of view of the square pictures.

    Returns:
        (4, 4) similarity to apply to the object, and the largest extent it then has: 1, or less
        where a view would have clipped it.

    Raises:
        ValueError: there are no points, or they are not finite or without extent.
    """
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or len(points) == 0:
        raise ValueError("it has no vertices")
    if not np.isfinite(points).all():
        raise ValueError("it has vertices that are not finite numbers")
    angle = np.deg2rad(yaw_deg)
    c, s = np.cos(angle), np.sin(angle)
    rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
    turned = points @ rotation.T
    low, high = turned.min(axis=0), turned.max(axis=0)
    extent = float((high - low).max())
    if not extent > 0 or not np.isfinite(1.0 / extent):
        raise ValueError("it has no extent")
    unit = (turned - (low + high) / 2) / extent
    # A scaled point s*p is inside when |s*x| <= t*(d + s*z): linear in s for each view and point.
    tangent = np.tan(np.deg2rad(fov_deg) / 2) * MARGIN
    scale = 1.0
    for viewmat in np.asarray(viewmats, dtype=np.float64):
        local, depth = unit @ viewmat[:3, :3].T, viewmat[2, 3]
        slope = np.abs(local[:, :2]).max(axis=1) - tangent * local[:, 2]
        steepest = float(slope.max())
        if steepest > 0:
            scale = min(scale, tangent * depth / steepest)
    transform = np.eye(4)
    transform[:3, :3] = rotation * (scale / extent)
    transform[:3, 3] = -(low + high) / 2 * (scale / extent)
    return transform, scale

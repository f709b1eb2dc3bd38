# SPDX-License-Identifier: Apache-2.0
"""Plan how an object is rendered, and store its views as pictures and a JSON.

As in SV3D (arXiv 2403.12008, appendix B): the bounding box centered at the origin with largest
extent 1, a static or a dynamic orbit about an elevation of U[-5, 30] degrees and a field of view of
33.8 degrees under a random HDRI, a random background color; besides, novel views from anywhere
around. SV3D moves the camera back until nothing is clipped; here the camera's distance is fixed and
the object is scaled down instead, which gives the same pictures up to perspective and one set of
cameras for all objects.

The views of an object stand one below the other in one PNG: RGBA of 8 bits, depth in 16-bit steps,
normals as 8-bit RGB. A JSON has all other facts; docs/data.md describes its fields.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from PIL import Image

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


FORMAT = "gsv3d-orbits/2"

DEPTH_UNIT = 2.0**-14
"""World units of one step of the stored depth: depths reach to 4, the object's extent is 1."""

RGBA, DEPTH, NORMAL, FACTS = "rgba.png", "depth.png", "normal.png", "json"
"""Suffixes of an object's files, after its name and a dot."""


@dataclass(frozen=True)
class OrbitRecord:
    """The rendered views of one object.

    Attributes:
        name: name of the object, without dots.
        rgba: (V, H, W, 4) uint8, sRGB, straight alpha.
        depth: (V, H, W) float32, z-depth along the optical axis in world units (extent 1 = 1), at
            one point inside the pixel; 0 where that point sees nothing.
        azimuths_deg, elevations_deg: (V,) float32 degrees.
        viewmats: (V, 4, 4) float64 world to camera, OpenCV axes.
        intrinsics: (3, 3) float64 in pixels, of all views.
        num_orbit: number of views on the orbit, which come first; the others are novel views.
        orbit: "static", "dynamic" or "sine".
        distance: distance of the cameras from the origin.
        fov_deg: field of view in degrees.
        transform: (4, 4) float64, object's own (+Z up) world to the pictures' world.
        normals: (V, H, W, 3) float32 unit normals, 0 where nothing is seen; or None.
        normal_axes: "camera" (OpenCV's), "world", or None without normals.
        background: (3,) sRGB in 0..255, a random color to show the pictures on.
        source: origin of the object: file, pack, split, license, author, as far as known.
        render: facts of the rendering: engine, samples, light, seed and others.
        missing_textures: names of the textures that it was rendered without.
        frame: frame that an animated object is shown at, else None.
    """

    name: str
    rgba: np.ndarray
    depth: np.ndarray
    azimuths_deg: np.ndarray
    elevations_deg: np.ndarray
    viewmats: np.ndarray
    intrinsics: np.ndarray
    num_orbit: int
    orbit: str
    distance: float
    fov_deg: float
    transform: np.ndarray
    normals: np.ndarray | None = None
    normal_axes: str | None = None
    background: tuple[int, int, int] = (255, 255, 255)
    source: Mapping[str, str] = field(default_factory=dict)
    render: Mapping[str, Any] = field(default_factory=dict)
    missing_textures: tuple[str, ...] = ()
    frame: int | None = None

    def members(self) -> dict[str, bytes]:
        """Return the files that store the object, contents by suffix, the JSON last.

        Raises:
            ValueError: a depth is above 4 and cannot be stored.
        """
        steps = np.rint(self.depth / DEPTH_UNIT)
        if not (0 <= steps.min() and steps.max() <= 65535):
            raise ValueError(f"its depth reaches {self.depth.max():.3g}, but 4 is the most")
        files = {RGBA: _encode_png(self.rgba), DEPTH: _encode_png(steps.astype(np.uint16))}
        if self.normals is not None:
            files[NORMAL] = _encode_png(encode_normals(self.normals))
        views, height, width = self.depth.shape
        facts: dict[str, Any] = {"format": FORMAT, "depth_unit": DEPTH_UNIT, "views": views}
        facts |= {"height": height, "width": width}
        pictures = ("rgba", "depth", "normals")
        facts |= {f.name: getattr(self, f.name) for f in fields(self) if f.name not in pictures}
        files[FACTS] = json.dumps(facts, ensure_ascii=False, default=np.ndarray.tolist).encode()
        return files

    @classmethod
    def from_members(cls, files: Mapping[str, bytes], normals: bool = True) -> OrbitRecord:
        """Read an object from the files of ``members``.

        Args:
            files: contents by suffix.
            normals: decode the normals, if there are any.

        Raises:
            ValueError: the files are damaged or have another form; the text follows "cannot be
                read: ".
        """
        try:
            facts = json.loads(files[FACTS])
            if facts["format"] != FORMAT:
                raise ValueError(f"its format is {facts['format']!r}, not {FORMAT!r}")
            views, height, width = (int(facts[name]) for name in ("views", "height", "width"))
            shape = (views, height, width)
            axes = facts["normal_axes"]
            record = cls(
                name=str(facts["name"]),
                rgba=_decode_png(files[RGBA], (*shape, 4), np.uint8),
                depth=_decode_png(files[DEPTH], shape, np.uint16) * np.float32(facts["depth_unit"]),
                azimuths_deg=np.array(facts["azimuths_deg"], dtype=np.float32),
                elevations_deg=np.array(facts["elevations_deg"], dtype=np.float32),
                viewmats=np.array(facts["viewmats"], dtype=np.float64),
                intrinsics=np.array(facts["intrinsics"], dtype=np.float64),
                num_orbit=int(facts["num_orbit"]),
                orbit=str(facts["orbit"]),
                distance=float(facts["distance"]),
                fov_deg=float(facts["fov_deg"]),
                transform=np.array(facts["transform"], dtype=np.float64),
                normals=decode_normals(_decode_png(files[NORMAL], (*shape, 3), np.uint8))
                if axes and normals
                else None,
                normal_axes=axes,
                background=tuple(facts["background"]),
                source=facts["source"],
                render=facts["render"],
                missing_textures=tuple(facts["missing_textures"]),
                frame=facts["frame"],
            )
        except KeyError as error:
            raise ValueError(f"it lacks {error.args[0]}") from error
        except (TypeError, AttributeError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error
        if record.azimuths_deg.shape != (views,) or record.elevations_deg.shape != (views,):
            raise ValueError(f"it has {views} views but other numbers of angles")
        if record.viewmats.shape != (views, 4, 4) or record.intrinsics.shape != (3, 3):
            raise ValueError(f"it has {views} views but other numbers of cameras")
        if not 0 < record.num_orbit <= views:
            raise ValueError(f"{record.num_orbit} of its {views} views are said to be the orbit")
        return record


def encode_normals(normals: np.ndarray) -> np.ndarray:
    """Encode (..., 3) unit normals as uint8: -1..1 on 1..255, no normal as (0, 0, 0)."""
    steps = np.rint(normals * 127 + 128)
    return np.where((normals != 0).any(axis=-1, keepdims=True), steps, 0).astype(np.uint8)


def decode_normals(steps: np.ndarray) -> np.ndarray:
    """Decode (..., 3) uint8 of ``encode_normals`` to float32 normals, 0 for no normal."""
    normals = (steps.astype(np.float32) - 128) / 127
    length = np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-6)
    return np.where(steps.any(axis=-1, keepdims=True), normals / length, np.float32(0))


def _encode_png(views: np.ndarray) -> bytes:
    """Encode views one below the other as a PNG."""
    stream = io.BytesIO()
    sheet = views.reshape(-1, *views.shape[2:])
    Image.fromarray(sheet).save(stream, "PNG", compress_level=6)
    return stream.getvalue()


def _decode_png(data: bytes, shape: tuple[int, ...], kind: type) -> np.ndarray:
    sheet = (shape[0] * shape[1], *shape[2:])
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.size != (sheet[1], sheet[0]):
                raise ValueError(f"a picture of it has {image.size} pixels, not {sheet[1::-1]}")
            pixels = np.array(image)
    except (OSError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        raise ValueError(f"a picture of it is damaged ({error})") from error
    if kind == np.uint16 and pixels.dtype.kind in "iu" and pixels.ndim == 2:
        pixels = pixels.astype(np.uint16)
    if pixels.shape != sheet or pixels.dtype != kind:
        raise ValueError(f"a picture of it is {pixels.dtype} {pixels.shape}, not {sheet}")
    return pixels.reshape(shape)

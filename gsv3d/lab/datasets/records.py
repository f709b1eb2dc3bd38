# SPDX-License-Identifier: Apache-2.0
"""Store the rendered views of one object as pictures and a JSON, and read them back.

The views of an object stand one below the other in one PNG: RGBA of 8 bits, depth in 16-bit steps,
normals as 8-bit RGB. A JSON has all other facts; docs/data.md describes its fields.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

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
        facts = {
            "format": FORMAT,
            "name": self.name,
            "views": views,
            "height": height,
            "width": width,
            "num_orbit": self.num_orbit,
            "orbit": self.orbit,
            "azimuths_deg": np.asarray(self.azimuths_deg).tolist(),
            "elevations_deg": np.asarray(self.elevations_deg).tolist(),
            "distance": self.distance,
            "fov_deg": self.fov_deg,
            "viewmats": np.asarray(self.viewmats).tolist(),
            "intrinsics": np.asarray(self.intrinsics).tolist(),
            "depth_unit": DEPTH_UNIT,
            "normal_axes": self.normal_axes,
            "background": list(self.background),
            "transform": np.asarray(self.transform).tolist(),
            "source": dict(self.source),
            "render": dict(self.render),
            "missing_textures": list(self.missing_textures),
            "frame": self.frame,
        }
        files[FACTS] = json.dumps(facts, ensure_ascii=False).encode()
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

# SPDX-License-Identifier: Apache-2.0
"""Convert light to sRGB colors (IEC 61966-2-1), and load Blender's own HDRIs at a good exposure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Colors = TypeVar("Colors", np.ndarray, "Tensor")

MEAN_RADIANCE = 0.8
"""Mean radiance that a white matt surface reflects, over all directions it may face."""

MAX_RADIANCE = 1.1
"""Largest radiance that a white matt surface reflects, whichever way it faces."""

BLUR_DEG = 30.0
"""Blur of the maps in degrees: it softens shadows, so that few samples of a pixel suffice."""

ROWS, COLUMNS = 32, 64


def encode_srgb(linear: Colors) -> Colors:
    """Convert linear light to sRGB, both in 0..1; other values are clipped."""
    linear = linear.clip(0.0, 1.0)
    dark = linear <= 0.0031308
    # A sum of both branches works for arrays and tensors alike; ``where`` does not.
    return dark * (linear * 12.92) + ~dark * (1.055 * linear ** (1 / 2.4) - 0.055)


def decode_srgb(srgb: np.ndarray) -> np.ndarray:
    """Convert sRGB to linear light, both in 0..1."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def encode_straight_srgb(premultiplied: np.ndarray) -> np.ndarray:
    """Convert (..., 4) linear premultiplied RGBA to (..., 4) uint8 sRGB with straight alpha."""
    alpha = np.clip(premultiplied[..., 3:], 0.0, 1.0)
    color = premultiplied[..., :3] / np.maximum(alpha, 1e-6)
    rgba = np.concatenate([encode_srgb(np.where(alpha > 0, color, 0.0)), alpha], axis=-1)
    return np.rint(rgba * 255).astype(np.uint8)


@dataclass(frozen=True)
class Environment:
    """One equirectangular HDRI, blurred and brought to a good exposure.

    Attributes:
        name: name of the file that it comes from.
        pixels: (32, 64, 3) float32 linear RGB, row 0 up.
    """

    name: str
    pixels: np.ndarray


def _make_grid(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (N, 3) directions and (N,) solid angles of an equirectangular map's pixels."""
    polar = ((np.arange(rows) + 0.5) * np.pi / rows)[:, None]
    around = (np.arange(columns) + 0.5) * 2 * np.pi / columns
    directions = np.stack(
        [
            np.sin(polar) * np.cos(around),
            np.sin(polar) * np.sin(around),
            np.broadcast_to(np.cos(polar), (rows, columns)),
        ],
        axis=-1,
    )
    solid_angles = np.broadcast_to(
        np.sin(polar) * (np.pi / rows) * (2 * np.pi / columns), (rows, columns)
    )
    return directions.reshape(-1, 3), solid_angles.ravel()


def compute_matt_radiance(pixels: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Compute the light that a white Lambertian surface reflects under an equirectangular map.

    Args:
        pixels: (H, W) luminance; row 0 is up, a row spans 360 degrees.
        normals: (N, 3) unit normals.

    Returns:
        (N,) irradiance divided by pi: 1 everywhere under a map that is 1 everywhere.
    """
    directions, solid_angles = _make_grid(*pixels.shape)
    cosines = np.maximum(normals @ directions.T, 0.0)
    return cosines @ (pixels.ravel() * solid_angles) / np.pi


def shrink(pixels: np.ndarray) -> np.ndarray:
    """Average (H, W, 3) to (ROWS, COLUMNS, 3), cropping H and W to multiples of these first."""
    height, width = len(pixels) // ROWS * ROWS, pixels.shape[1] // COLUMNS * COLUMNS
    if not height or not width:
        raise ValueError(f"the environment map is smaller than {COLUMNS} x {ROWS}")
    blocks = pixels[:height, :width].reshape(ROWS, height // ROWS, COLUMNS, width // COLUMNS, 3)
    return blocks.astype(np.float64).mean(axis=(1, 3))


def blur(pixels: np.ndarray) -> np.ndarray:
    """Convolve an equirectangular (H, W, 3) map with a von Mises-Fisher lobe on the sphere."""
    directions, solid_angles = _make_grid(*pixels.shape[:2])
    kernel = np.exp((directions @ directions.T - 1) / np.deg2rad(BLUR_DEG) ** 2) * solid_angles
    kernel /= kernel.sum(axis=1, keepdims=True)
    return (kernel @ pixels.reshape(-1, 3)).reshape(pixels.shape)


def find_exposure(pixels: np.ndarray) -> float:
    """Return the factor for a map under which matt white keeps to ``MEAN_`` and ``MAX_RADIANCE``.

    Args:
        pixels: (H, W, 3) linear RGB of an equirectangular map.
    """
    luminance = pixels @ np.array([0.2126, 0.7152, 0.0722])
    radiance = compute_matt_radiance(luminance, fibonacci_sphere(200))
    brightest = float(radiance.max())
    if not np.isfinite(brightest) or brightest <= 0:
        raise ValueError("the environment map is black or not finite")
    return min(MEAN_RADIANCE / float(radiance.mean()), MAX_RADIANCE / brightest)


def fibonacci_sphere(count: int) -> np.ndarray:
    """Return (count, 3) nearly even unit vectors."""
    z = 1 - (2 * np.arange(count) + 1) / count
    angle = np.arange(count) * np.pi * (3 - np.sqrt(5))
    radius = np.sqrt(1 - z * z)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=1)


def read_exr(path: Path) -> dict[str, np.ndarray]:
    """Read the channels of all parts of an EXR file by name, (H, W) each."""
    import OpenEXR

    with OpenEXR.File(str(path), separate_channels=True) as file:
        return {
            name: channel.pixels
            for part in range(len(file.parts))
            for name, channel in file.channels(part).items()
        }


def choose_environment(environments: Sequence[Environment], choice: float) -> Environment:
    """Return the environment for a ``choice`` in 0..1."""
    return environments[min(int(choice * len(environments)), len(environments) - 1)]


def load_environments(directory: Path) -> list[Environment]:
    """Load the HDRIs of a folder, sorted by name.

    Raises:
        FileNotFoundError: the folder has none.
    """
    paths = sorted(directory.glob("*.exr"))
    if not paths:
        raise FileNotFoundError(f"no .exr environment map in {directory}")
    environments = []
    for path in paths:
        channels = read_exr(path)
        pixels = blur(shrink(np.stack([channels[c] for c in "RGB"], axis=-1)))
        environments.append(
            Environment(path.stem, (pixels * find_exposure(pixels)).astype(np.float32))
        )
    return environments

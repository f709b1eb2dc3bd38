# SPDX-License-Identifier: Apache-2.0
"""Small pictures of a prop from all around, each cut to the prop's box: what is retrieved by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gsv3d.lab.evaluation.baselines.cropping import crop_to_mask

YAWS = 24
ELEVATIONS = (1.0, 12.5, 24.0)
"""Middles of three equal parts of the references' [-5, 30] degrees, the outer ones rounded."""

MASK_SIDE = 32
COLOUR_SIDE = 8
_SUPERSAMPLING = 2
_AMBIENT = 0.6


def view_angles() -> tuple[np.ndarray, np.ndarray]:
    """(72,) azimuths and (72,) elevations of the views, elevation by elevation."""
    azimuths = np.tile(np.arange(YAWS) * 360.0 / YAWS, len(ELEVATIONS))
    return azimuths, np.repeat(ELEVATIONS, YAWS)


@dataclass(frozen=True)
class Looks:
    """How V pictures look, cut to the object's box, its longer side filling the square.

    Attributes:
        masks: (V, 32, 32) uint8, a cell's covered share of 255.
        colours: (V, 8, 8, 3) uint8 sRGB, mean over a cell's covered part; 0 where there is none.
        means: (V, 3) float32 mean sRGB colour in 0..1 over the object.
    """

    masks: np.ndarray
    colours: np.ndarray
    means: np.ndarray


def looks_of_picture(rgba: np.ndarray, cut: bool = True) -> Looks:
    """Of one (H, W, 4) uint8 picture with straight alpha, V = 1; ValueError where it is empty.

    Args:
        rgba: the picture.
        cut: to the object's box; else the picture is taken as a whole, see ``looks_of_prop``.
    """
    from PIL import Image

    cropped = crop_to_mask(rgba) if cut else rgba
    height, width = cropped.shape[:2]
    side = max(height, width)
    square = np.zeros((side, side, 4), np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = cropped
    fine = MASK_SIDE * _SUPERSAMPLING
    small = Image.fromarray(square).resize((fine, fine), Image.Resampling.BOX)
    values = np.asarray(small, dtype=np.float32) / 255
    return _pool(values[None, ..., :3], values[None, ..., 3])


def looks_of_prop(path: Path, cut: bool = True) -> Looks:
    """Of a prop's 72 views, rasterised with its base colours under soft light from above.

    Args:
        path: of the prop.
        cut: each to the prop's box; else as the canonical camera sees the prop of extent 1, which
            tells how deep it is: of two that are as wide, the deeper one is seen smaller.

    Raises:
        DataError: it cannot be read.
        ValueError: it has no extent.
    """
    import torch

    from gsv3d.cameras import DISTANCE, FOV_DEG, orbit
    from gsv3d.lab.rasterizing.orbits import Surface
    from gsv3d.lab.rasterizing.props import load_prop
    from gsv3d.lab.rasterizing.triangles import rasterize_projected

    prop = load_prop(path)
    low, high = prop.vertices.min(axis=0), prop.vertices.max(axis=0)
    extent = float((high - low).max())
    if not extent > 0:
        raise ValueError(f"{path} has no extent")
    transform = np.eye(4)
    transform[:3, :3] /= extent
    transform[:3, 3] = -(low + high) / 2 / extent
    surface = Surface(prop, transform, torch.device("cpu"))
    azimuths, elevations = view_angles()
    viewmats = orbit(azimuths, elevations, size=1, distance=DISTANCE).viewmats
    local = surface.vertices @ viewmats[:, :3, :3].transpose(1, 2) + viewmats[:, None, :3, 3]
    across = local[..., :2] / local[..., 2:]
    if cut:
        first, last = across.amin(dim=1), across.amax(dim=1)
        side = (last - first).amax(dim=-1).clamp_min(1e-9)[:, None, None]
        middle = ((first + last) / 2)[:, None]
    else:
        side = torch.full((1, 1, 1), 2 * float(np.tan(np.deg2rad(FOV_DEG) / 2)))
        middle = torch.zeros(1, 1, 2)
    fine = MASK_SIDE * _SUPERSAMPLING
    screen = (across - middle) / side * fine + fine / 2
    fragments = rasterize_projected(screen, 1 / local[..., 2], surface.faces, fine, fine)
    view = fragments.covered.nonzero()[:, 0]
    normals = surface.face_normals[fragments.face]
    facing = (normals * viewmats[view, 2, :3]).sum(dim=1) < 0
    up = torch.where(facing, normals[:, 2], -normals[:, 2])
    lit = surface.base_colour(fragments) * (_AMBIENT + (1 - _AMBIENT) * up)[:, None]
    colour = fragments.dense(lit.clamp(0, 1)).numpy()
    return _pool(_srgb(colour), fragments.covered.float().numpy())


def _srgb(linear: np.ndarray) -> np.ndarray:
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def _pool(colour: np.ndarray, alpha: np.ndarray) -> Looks:
    """From (V, S, S, 3) and (V, S, S) in 0..1, S a multiple of both sides."""

    def mean(values: np.ndarray, side: int) -> np.ndarray:
        step = values.shape[1] // side
        shape = (len(values), side, step, side, step, *values.shape[3:])
        return values.reshape(shape).mean(axis=(2, 4))

    share = mean(alpha, COLOUR_SIDE)[..., None]
    weighted = mean(colour * alpha[..., None], COLOUR_SIDE)
    colours = np.where(share > 0, weighted / np.maximum(share, 1e-6), 0)
    total = np.maximum(alpha.sum(axis=(1, 2)), 1e-6)[:, None]
    return Looks(
        np.rint(mean(alpha, MASK_SIDE) * 255).astype(np.uint8),
        np.rint(np.clip(colours, 0, 1) * 255).astype(np.uint8),
        ((colour * alpha[..., None]).sum(axis=(1, 2)) / total).astype(np.float32),
    )

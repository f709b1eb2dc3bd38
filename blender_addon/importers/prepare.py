# SPDX-License-Identifier: GPL-3.0-or-later
"""Check received arrays, and convert them to those that Blender takes. No bpy, any thread.

Blender trusts ``foreach_set``: an index out of range crashes it, and a NaN spoils the view. So
every array is checked here, before the main thread gets it. Raises `Problem`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from uuid import uuid4

import numpy as np

from ..color import sh_to_srgb, srgb_to_linear
from ..png import encode_png
from ..problems import Problem
from .placement import Bounds, bounds_of, bounds_of_gaussians

MAX_GAUSSIANS = 200_000
"""More ellipsoids than this make the view crawl; the most visible ones are kept."""
MIN_OPACITY = 0.005
_SHEET = 256
"""Pixels of a side of a `Sheet`."""
_UPDATE = "The add-on and the backend may be of different versions: update both."


@dataclass(frozen=True)
class GaussianArrays:
    """Gaussians in canonical coordinates, most visible first, all finite.

    means (N, 3); quats (N, 4) wxyz, unit; scales (N, 3) linear; opacities (N,) 0..1;
    colors (N, 4) linear RGB and opacity; sh (N, K, 3) coefficients; all float32, N >= 1.
    mean_color is their linear RGB, weighed by how much of them is seen; key is theirs alone.
    """

    means: np.ndarray
    quats: np.ndarray
    scales: np.ndarray
    opacities: np.ndarray
    colors: np.ndarray
    sh: np.ndarray
    mean_color: tuple[float, float, float]
    bounds: Bounds
    key: str = field(default_factory=lambda: uuid4().hex)

    def __len__(self) -> int:
        return len(self.means)


@dataclass(frozen=True)
class MeshArrays:
    """A triangle mesh in canonical coordinates.

    vertices (V, 3) float32; faces (F, 3) int32, all within 0..V-1; corner_uvs (F, 3, 2) float32,
    origin bottom left; corner_colors (F, 3, 4) float32, the texture's sRGB there, opaque;
    texture_png the bytes of a PNG, sRGB; clipped whether it has an alpha channel, below one half of
    which nothing of the mesh shows; mean_color linear RGB.
    """

    vertices: np.ndarray
    faces: np.ndarray
    corner_uvs: np.ndarray
    corner_colors: np.ndarray
    texture_png: bytes
    clipped: bool
    mean_color: tuple[float, float, float]
    bounds: Bounds


@dataclass(frozen=True)
class Sheet:
    """Views side by side as one picture for an icon.

    pixels (S*S,) int32, each the four bytes of an RGBA pixel in sRGB, row 0 at the bottom.
    """

    size: int
    pixels: np.ndarray


def prepare_gaussians(
    means: np.ndarray,
    quats: np.ndarray,
    scales: np.ndarray,
    opacities: np.ndarray,
    sh: np.ndarray,
) -> GaussianArrays:
    """Drop what cannot be seen or is broken, sort by visibility, keep `MAX_GAUSSIANS` at most.

    means (N, 3), quats (N, 4) wxyz, scales (N, 3) linear, opacities (N,), sh (N, K, 3) with
    K = (degree + 1)^2. Raises `Problem` when the shapes disagree or nothing visible is left.
    """
    n = len(means) if means.ndim else -1
    shapes_agree = (
        means.shape == (n, 3)
        and quats.shape == (n, 4)
        and scales.shape == (n, 3)
        and opacities.shape == (n,)
        and sh.ndim == 3
        and sh.shape[0] == n
        and sh.shape[2] == 3
        and math.isqrt(sh.shape[1]) ** 2 == sh.shape[1]
        and sh.shape[1] >= 1
    )
    if not shapes_agree:
        raise Problem("The splats from the backend do not fit together.", _UPDATE)
    means, quats, scales, opacities, sh = (
        np.asarray(a, np.float32) for a in (means, quats, scales, opacities, sh)
    )
    norms = np.linalg.norm(quats, axis=1)
    with np.errstate(invalid="ignore", over="ignore"):
        good = (
            np.isfinite(means).all(axis=1)
            & np.isfinite(scales).all(axis=1)
            & (scales > 0).all(axis=1)
            & np.isfinite(norms)
            & (norms > 1e-12)
            & np.isfinite(sh).all(axis=(1, 2))
            & (opacities >= MIN_OPACITY)  # false for NaN too
        )
    kept = np.flatnonzero(good)
    if not len(kept):
        raise Problem(
            f"None of the {n} splats from the backend can be shown.",
            "Try another picture or seed; if it stays so, the model is damaged.",
        )
    opacities = np.minimum(opacities, 1.0)
    visibility = np.log(opacities[kept]) + np.log(scales[kept]).sum(axis=1) * (2 / 3)
    order = np.argsort(-visibility, kind="stable")[:MAX_GAUSSIANS]
    kept, weights = kept[order], np.exp(visibility[order] - visibility.max())
    colors = np.empty((len(kept), 4), np.float32)
    colors[:, :3] = srgb_to_linear(sh_to_srgb(sh[kept, 0]))
    colors[:, 3] = opacities[kept]
    red, green, blue = (float(v) for v in np.average(colors[:, :3], axis=0, weights=weights))
    return GaussianArrays(
        means=np.ascontiguousarray(means[kept]),
        quats=np.ascontiguousarray(quats[kept] / norms[kept, None]),
        scales=np.ascontiguousarray(scales[kept]),
        opacities=np.ascontiguousarray(opacities[kept]),
        colors=colors,
        sh=np.ascontiguousarray(sh[kept]),
        mean_color=(red, green, blue),
        bounds=bounds_of_gaussians(means[kept], opacities[kept]),
    )


def prepare_mesh(
    vertices: np.ndarray,
    faces: np.ndarray,
    corner_uvs: np.ndarray,
    texture: np.ndarray,
    alpha: np.ndarray | None = None,
) -> MeshArrays:
    """Check a textured mesh and encode its texture.

    vertices (V, 3), faces (F, 3) integers, corner_uvs (F, 3, 2), texture (T, U, 3) uint8 sRGB
    with row 0 on top, alpha (T, U) uint8 where the texture has holes. Faces that use a vertex twice
    or are there twice are left out.
    """
    f = len(faces) if faces.ndim else -1
    if (
        vertices.ndim != 2
        or vertices.shape[1:] != (3,)
        or faces.shape != (f, 3)
        or corner_uvs.shape != (f, 3, 2)
        or texture.ndim != 3
        or texture.shape[2] != 3
        or (alpha is not None and alpha.shape != texture.shape[:2])
    ):
        raise Problem("The mesh from the backend does not fit together.", _UPDATE)
    if not len(vertices) or not f:
        raise Problem(
            "The mesh from the backend is empty.", "Try another picture, seed or face budget."
        )
    broken = int((~np.isfinite(vertices).all(axis=1)).sum())
    if broken or not np.isfinite(corner_uvs).all():
        raise Problem(
            f"The mesh from the backend is damaged: {broken} of its {len(vertices)} vertices "
            "are not numbers."
            if broken
            else "The mesh from the backend is damaged: its UVs are not numbers.",
            "Generate again, with another seed if it happens twice.",
        )
    if int(faces.min()) < 0 or int(faces.max()) >= len(vertices):
        raise Problem("The mesh from the backend names vertices that it does not have.", _UPDATE)
    a, b, c = faces.T
    proper = (a != b) & (b != c) & (c != a) & ~_repeated(faces)
    if not proper.any():
        raise Problem(
            "The mesh from the backend has no face with an area.", "Try another picture or seed."
        )
    vertices = np.ascontiguousarray(vertices, np.float32)
    used = vertices[np.unique(faces[proper])]
    painted = srgb_to_linear(texture.reshape(-1, 3)[:: max(1, texture.size // 30_000)] / 255.0)
    red, green, blue = (float(v) for v in painted.mean(axis=0))
    corner_uvs = np.ascontiguousarray(corner_uvs[proper], np.float32)
    pixels = texture if alpha is None else np.dstack([texture, alpha])
    return MeshArrays(
        vertices=vertices,
        faces=np.ascontiguousarray(faces[proper], np.int32),
        corner_uvs=corner_uvs,
        corner_colors=_colors_at(corner_uvs, texture),
        texture_png=encode_png(np.ascontiguousarray(pixels, np.uint8)),
        clipped=alpha is not None,
        mean_color=(red, green, blue),
        bounds=bounds_of(used),
    )


def _repeated(faces: np.ndarray) -> np.ndarray:
    """Return (F,) True for faces (F, 3) that have the vertices of an earlier face."""
    corners = np.sort(faces, axis=1)
    order = np.lexsort(corners.T)  # stable: of equal ones the first comes first
    repeated = np.zeros(len(faces), bool)
    repeated[order[1:]] = (corners[order[1:]] == corners[order[:-1]]).all(axis=1)
    return repeated


def _colors_at(uvs: np.ndarray, texture: np.ndarray) -> np.ndarray:
    """Return (..., 4) float32 of texels, (T, U, 3) uint8, row 0 on top, that UVs (..., 2) hit."""
    height, width = texture.shape[:2]
    columns = np.clip(uvs[..., 0] * width, 0, width - 1).astype(np.intp)
    rows = np.clip((1 - uvs[..., 1]) * height, 0, height - 1).astype(np.intp)
    colors = np.ones((*uvs.shape[:-1], 4), np.float32)
    colors[..., :3] = texture[rows, columns] / np.float32(255)
    return colors


def prepare_sheet(images: np.ndarray) -> Sheet:
    """Arrange four of ``images`` (V, H, W, 3) uint8, evenly chosen, as one icon.

    The last view is the reference by SV3D's order, so the choice starts there and goes round.
    """
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or not images.size:
        raise Problem("The views from the backend do not fit together.", _UPDATE)
    views, height, width, _ = images.shape
    side = _SHEET // 2
    rows = np.arange(side) * height // side
    columns = np.arange(side) * width // side
    canvas = np.full((_SHEET, _SHEET, 4), 255, np.uint8)
    for index in range(4):
        view = images[(views - 1 + round(index * views / 4)) % views]
        y, x = index // 2 * side, index % 2 * side
        canvas[y : y + side, x : x + side, :3] = view[rows][:, columns]
    return Sheet(size=_SHEET, pixels=np.ascontiguousarray(canvas[::-1]).view(np.int32).reshape(-1))

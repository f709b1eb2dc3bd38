# SPDX-License-Identifier: Apache-2.0
"""The prop that looks most like the picture, from where it does, in the picture's colors."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gsv3d.errors import DataError
from gsv3d.lab.datasets.color import decode_srgb, encode_srgb
from gsv3d.lab.evaluation.baselines.library import (
    COLOR_SIDE,
    ELEVATIONS,
    Library,
    Looks,
    look_at_picture,
    view_angles,
)
from gsv3d.lab.evaluation.protocol import Case
from gsv3d.lab.rasterizing.props import Prop, load_prop
from gsv3d.lab.rasterizing.variation import turn
from gsv3d.meshing.mesh import TexturedMesh

COLOR_WEIGHT = 0.25
"""Of the colors' distance beside that of the masks; chosen by ``benchmarks/retrieval.py``."""

COARSE_SIDE = 16
SHORTLIST = 4000
"""Views whose masks of 16 x 16 cells are nearest; only these are compared in full."""

MAX_TEXTURE = 2048
"""Texels along a side of a prop's texture, where that is enough for all its faces."""

MIDDLE_ELEVATION = ELEVATIONS[1]
"""From which a prop's mean color is taken."""


@dataclass(frozen=True)
class Match:
    """What was retrieved.

    Attributes:
        prop: index into the library's props.
        azimuth_deg: from which the prop looks like the picture.
        distance: see ``distances``.
    """

    prop: int
    azimuth_deg: float
    distance: float


def distances(
    query: Looks, looks: Looks, views: np.ndarray, color_weight: float = COLOR_WEIGHT
) -> np.ndarray:
    """Measure how unlike a picture (n,) views are: masks first, colors within them second.

    One minus the soft intersection over union of the masks, and ``color_weight`` times the mean
    absolute difference of colors, each less its own picture's mean, over the cells both cover.

    Args:
        query: of the picture.
        looks: of the props.
        views: (n,) indices into ``looks``.
        color_weight: see above.
    """
    mask = query.masks.reshape(1, -1).astype(np.float32) / 255
    masks = looks.masks[views].reshape(len(views), -1).astype(np.float32) / 255
    common, either = (f(masks, mask).sum(axis=1) for f in (np.minimum, np.maximum))
    own = query.colors.astype(np.float32) / 255 - query.means[:, None, None]
    colors = looks.colors[views].astype(np.float32) / 255 - looks.means[views, None, None]
    weight = np.minimum(cells(looks.masks[views]), cells(query.masks))
    difference = (np.abs(colors - own).mean(axis=-1) * weight).sum(axis=(1, 2))
    color = difference / np.maximum(weight.sum(axis=(1, 2)), 1e-6)
    return 1 - common / np.maximum(either, 1e-6) + color_weight * color


def cells(masks: np.ndarray, side: int = COLOR_SIDE) -> np.ndarray:
    """Reduce (V, S, S) uint8 masks to (V, side, side) float32 shares of larger cells."""
    step = masks.shape[1] // side
    shape = (len(masks), side, step, side, step)
    return masks.reshape(shape).mean(axis=(2, 4), dtype=np.float32) / 255


class Retriever:
    """Answers references with props of a library, never with the case's own object.

    Args:
        library: to retrieve from.
    """

    def __init__(self, library: Library) -> None:
        self._library = library
        self._azimuths, _ = view_angles()
        self._paths = [prop.path.resolve() for prop in library.props]
        coarse = [
            cells(library.looks.masks[start : start + 8192], COARSE_SIDE)
            for start in range(0, len(library.looks.masks), 8192)
        ]
        self._coarse = np.concatenate(coarse).reshape(len(library.looks.masks), -1)
        self._lengths = np.einsum("vi,vi->v", self._coarse, self._coarse)

    def __call__(self, reference: np.ndarray, case: Case) -> TexturedMesh:
        """Return the nearest prop's mesh, turned as it looks like the reference, in its colors.

        Args:
            reference: (H, W, 4) uint8 with straight alpha.
            case: whose object is left out of the library, by its file.
        """
        match = self.find(look_at_picture(reference), {case.source.path.resolve()})
        prop = load_prop(self._library.props[match.prop].path)
        mesh = bake_texture(turn(prop, -match.azimuth_deg))
        return match_color(mesh, reference)

    def find(
        self, query: Looks, exclude: Collection[Path] = (), color_weight: float = COLOR_WEIGHT
    ) -> Match:
        """Find the view nearest to a picture.

        Args:
            query: how the picture looks.
            exclude: resolved paths of props that are left out.
            color_weight: see ``distances``.

        Raises:
            DataError: all props are left out.
        """
        mask = cells(query.masks, COARSE_SIDE).ravel()
        # Squared distances of coarse masks, less the query's own square.
        coarse = self._lengths - 2 * self._coarse @ mask
        views = len(self._azimuths)
        for index in range(len(self._paths)):
            if self._paths[index] in exclude:
                coarse[index * views : (index + 1) * views] = np.inf
        count = min(SHORTLIST, int(np.isfinite(coarse).sum()))
        if not count:
            raise DataError("The library holds no prop but those that are left out.")
        nearest = np.argpartition(coarse, count - 1)[:count]
        found = distances(query, self._library.looks, nearest, color_weight)
        place = int(found.argmin())
        best = int(nearest[place])
        return Match(best // views, float(self._azimuths[best % views]), float(found[place]))


def bake_texture(prop: Prop) -> TexturedMesh:
    """Bake a prop's base colors into one texture with a block of texels for every face.

    Blocks of 8 x 8 texels, or fewer where there would be more than ``MAX_TEXTURE`` a side. A face
    fills the half of its block below the diagonal; the other half repeats the diagonal, so that
    no filter brings a foreign color in.
    """
    faces = len(prop.faces)
    across = int(np.ceil(np.sqrt(faces)))
    block = next((b for b in (8, 4) if across * b <= MAX_TEXTURE), 2)
    ramp = np.linspace(0, 1, block)
    v, u = np.meshgrid(ramp, ramp, indexing="ij")
    beyond = np.maximum(u + v - 1, 0) / 2
    u, v = u - beyond, v - beyond
    weights = np.stack([1 - u - v, u, v], axis=-1)  # (block, block, 3)
    side = across * block
    texture = np.zeros((across, block, across, block, 3), np.uint8)
    for start in range(0, faces, 20_000):
        part = np.arange(start, min(faces, start + 20_000))
        colors = encode_srgb(_base_colors(prop, part, weights))
        texture[part // across, :, part % across] = np.rint(colors * 255)
    picture = texture.reshape(side, side, 3)[::-1]  # row 0 is the top, v = 0 the bottom
    corners = np.array([[0.5, 0.5], [block - 0.5, 0.5], [0.5, block - 0.5]])
    origin = np.stack([np.arange(faces) % across, np.arange(faces) // across], axis=-1) * block
    uvs = (origin[:, None] + corners) / side
    return TexturedMesh(prop.vertices, prop.faces, uvs, picture)


def _base_colors(prop: Prop, faces: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return (n, b, b, 3) linear base colors of faces at barycentric (b, b, 3) weights."""
    color = np.einsum("uvk,fkc->fuvc", weights, prop.corner_colors[faces])
    at = np.einsum("uvk,fkc->fuvc", weights, prop.corner_uvs[faces])
    for index, texture in enumerate(prop.textures):
        painted = prop.texture_index[faces] == index
        height, width = texture.shape[:2]
        column = np.minimum(((at[painted, ..., 0] % 1) * width).astype(int), width - 1)
        row = np.minimum((((1 - at[painted, ..., 1]) % 1) * height).astype(int), height - 1)
        color[painted] *= decode_srgb(texture[row, column] / 255)
    return color


def match_color(mesh: TexturedMesh, reference: np.ndarray) -> TexturedMesh:
    """Shift a mesh's texture until its mean color, seen as the reference is, is the reference's.

    One shift moves all sRGB values, which are then limited to 0..255.

    Args:
        mesh: turned as the reference's object.
        reference: (H, W, 4) uint8 with straight alpha.
    """
    low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    vertices = (mesh.vertices - (low + high) / 2) / float((high - low).max())
    unit = TexturedMesh(vertices, mesh.faces, mesh.corner_uvs, mesh.texture)
    seen = _visible_mean(unit)
    wanted = reference[reference[..., 3] > 127][:, :3].mean(axis=0)
    texture = np.clip(mesh.texture.astype(np.float64) + (wanted - seen), 0, 255)
    return replace(mesh, texture=np.rint(texture).astype(np.uint8))


def _visible_mean(mesh: TexturedMesh) -> np.ndarray:
    """Return the (3,) mean sRGB, 0..255, that the canonical camera sees of a unit mesh."""
    import torch

    from gsv3d.cameras import orbit
    from gsv3d.lab.rasterizing.triangles import rasterize

    cameras = orbit([0.0], MIDDLE_ELEVATION, size=128)
    vertices = torch.from_numpy(mesh.vertices)
    fragments = rasterize(vertices, torch.from_numpy(mesh.faces).long(), cameras)
    uvs = fragments.interpolate(torch.from_numpy(mesh.corner_uvs)).numpy()
    side = len(mesh.texture)
    column = np.clip((uvs[:, 0] * side).astype(int), 0, side - 1)
    row = np.clip(((1 - uvs[:, 1]) * side).astype(int), 0, side - 1)
    if not len(row):
        return mesh.texture.reshape(-1, 3).mean(axis=0)
    return mesh.texture[row, column].mean(axis=0)

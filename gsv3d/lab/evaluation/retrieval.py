# SPDX-License-Identifier: Apache-2.0
"""Retrieval: the prop that looks most like the picture, from where it does, in its colors.

Small pictures of every prop from all around tell how it looks; they are rasterized once and kept in
a file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from gsv3d.cameras import DISTANCE, orbit
from gsv3d.errors import DataError
from gsv3d.lab.datasets.light import encode_srgb
from gsv3d.lab.datasets.objects import ObjectFile
from gsv3d.lab.evaluation.baselines import crop_to_mask
from gsv3d.lab.evaluation.protocol import Case
from gsv3d.lab.evaluation.store import digest_file, load_arrays, save_arrays
from gsv3d.lab.processes import run_in_processes
from gsv3d.lab.rasterizing.orbits import Surface
from gsv3d.lab.rasterizing.props import bake_texture, load_prop
from gsv3d.lab.rasterizing.triangles import rasterize, rasterize_projected
from gsv3d.lab.rasterizing.variation import turn
from gsv3d.meshing.mesh import TexturedMesh

FORMAT = "gsv3d-looks/1"
SPLIT = "train"

YAWS = 24
ELEVATIONS = (1.0, 12.5, 24.0)
"""Degrees: the middles of thirds of the references' [-5, 30], the outer ones rounded."""

MASK_SIDE = 32
COLOR_SIDE = 8
_SUPERSAMPLING = 2
_AMBIENT = 0.6

COLOR_WEIGHT = 0.25
"""Weight of the colors' distance beside the masks'; chosen by ``benchmarks/retrieval.py``."""

COARSE_SIDE = 16
SHORTLIST = 4000
"""Views whose masks of 16 x 16 cells are nearest; only these are compared in full."""

MIDDLE_ELEVATION = ELEVATIONS[1]
"""Elevation that a prop's mean color is seen from."""


def list_view_angles() -> tuple[np.ndarray, np.ndarray]:
    """Return (72,) azimuths and (72,) elevations of the views, elevation by elevation."""
    azimuths = np.tile(np.arange(YAWS) * 360.0 / YAWS, len(ELEVATIONS))
    return azimuths, np.repeat(ELEVATIONS, YAWS)


@dataclass(frozen=True)
class Looks:
    """Looks of V pictures, cut to the object's box, its longer side filling the square.

    Attributes:
        masks: (V, 32, 32) uint8, a cell's covered share of 255.
        colors: (V, 8, 8, 3) uint8 sRGB, mean over a cell's covered part; 0 where there is none.
        means: (V, 3) float32 mean sRGB color in 0..1 over the object.
    """

    masks: np.ndarray
    colors: np.ndarray
    means: np.ndarray


def look_at_picture(rgba: np.ndarray, cut: bool = True) -> Looks:
    """Return the looks of one (H, W, 4) uint8 picture, V = 1; ValueError where it is empty.

    Args:
        rgba: the picture.
        cut: cut the picture to the object's box; else it is taken as a whole, see
            ``look_at_prop``.
    """
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


def look_at_prop(path: Path, cut: bool = True) -> Looks:
    """Rasterize a prop's 72 views with its base colors under soft light from above.

    Args:
        path: path of the prop.
        cut: cut each view to the prop's box; else it is as the canonical camera sees the prop of
            extent 1, which tells how deep it is: of two that are as wide, the deeper one is seen
            smaller.

    Raises:
        DataError: it cannot be read.
        ValueError: it has no extent.
    """
    prop = load_prop(path)
    low, high = prop.vertices.min(axis=0), prop.vertices.max(axis=0)
    extent = float((high - low).max())
    if not extent > 0:
        raise ValueError(f"{path} has no extent")
    transform = np.eye(4)
    transform[:3, :3] /= extent
    transform[:3, 3] = -(low + high) / 2 / extent
    surface = Surface(prop, transform, torch.device("cpu"))
    azimuths, elevations = list_view_angles()
    cameras = orbit(azimuths, elevations, size=1, distance=DISTANCE)
    across, depth = cameras.project(surface.vertices)
    if cut:
        first, last = across.amin(dim=1), across.amax(dim=1)
        side = (last - first).amax(dim=-1).clamp_min(1e-9)[:, None, None]
        middle = ((first + last) / 2)[:, None]
    else:
        side, middle = torch.ones(1, 1, 1), torch.full((1, 1, 2), 0.5)
    fine = MASK_SIDE * _SUPERSAMPLING
    screen = (across - middle) / side * fine + fine / 2
    fragments = rasterize_projected(screen, 1 / depth, surface.faces, fine, fine)
    view = fragments.covered.nonzero()[:, 0]
    normals = surface.face_normals[fragments.face]
    facing = (normals * cameras.viewmats[view, 2, :3]).sum(dim=1) < 0
    up = torch.where(facing, normals[:, 2], -normals[:, 2])
    lit = surface.base_color(fragments) * (_AMBIENT + (1 - _AMBIENT) * up)[:, None]
    color = fragments.dense(lit).numpy()
    return _pool(encode_srgb(color), fragments.covered.float().numpy())


def _pool(color: np.ndarray, alpha: np.ndarray) -> Looks:
    """Pool (V, S, S, 3) and (V, S, S) in 0..1, S a multiple of both sides."""

    def mean(values: np.ndarray, side: int) -> np.ndarray:
        step = values.shape[1] // side
        shape = (len(values), side, step, side, step, *values.shape[3:])
        return values.reshape(shape).mean(axis=(2, 4))

    share = mean(alpha, COLOR_SIDE)[..., None]
    weighted = mean(color * alpha[..., None], COLOR_SIDE)
    colors = np.where(share > 0, weighted / np.maximum(share, 1e-6), 0)
    total = np.maximum(alpha.sum(axis=(1, 2)), 1e-6)[:, None]
    return Looks(
        np.rint(mean(alpha, MASK_SIDE) * 255).astype(np.uint8),
        np.rint(np.clip(colors, 0, 1) * 255).astype(np.uint8),
        ((color * alpha[..., None]).sum(axis=(1, 2)) / total).astype(np.float32),
    )


@dataclass(frozen=True)
class Library:
    """N props, and how each looks from its 72 views.

    Attributes:
        props: props in the order of the arrays' first axis.
        looks: looks of N * 72 views, prop by prop.
        digest: digest of the props' names and contents and of the looks' format.
    """

    props: tuple[ObjectFile, ...]
    looks: Looks
    digest: str


def digest_library(props: Sequence[ObjectFile]) -> str:
    """Return the SHA-256 over names and contents of the props, and the format of their looks."""
    total = hashlib.sha256(FORMAT.encode())
    for prop in props:
        total.update(prop.name.encode() + b"\0" + digest_file(prop.path).encode())
    return total.hexdigest()


def load_library(
    props: Sequence[ObjectFile],
    cache: Path,
    report: Callable[[str, int, int], None],
    workers: int = 1,
) -> Library:
    """Read the looks of props from the cache, or render them into it.

    Props that cannot be read are left out.

    Args:
        props: the props.
        cache: folder; the file in it is named by the library's digest.
        report: called with the progress.
        workers: processes.

    Raises:
        DataError: no prop can be read, or the file in the cache is damaged.
    """
    there = [prop for prop in props if prop.path.is_file()]
    digest = digest_library(there)
    path = cache / f"looks-{digest[:16]}.npz"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        _render_looks(there, path, report, workers)
    arrays = load_arrays(path)
    by_name = {prop.name: prop for prop in there}
    kept = tuple(by_name[str(name)] for name in arrays["names"])
    return Library(kept, Looks(arrays["masks"], arrays["colors"], arrays["means"]), digest)


def _make_looker() -> Callable[[Path], Looks]:
    torch.set_num_threads(1)  # a process among others
    return look_at_prop


def _render_looks(
    props: Sequence[ObjectFile],
    path: Path,
    report: Callable[[str, int, int], None],
    workers: int,
) -> None:
    found: dict[int, Looks] = {}
    outcomes = run_in_processes(_make_looker, [prop.path for prop in props], workers)
    for done, outcome in enumerate(outcomes, 1):
        if outcome.error is None:
            found[outcome.index] = outcome.value
        report("rendering the retrieval's props", done, len(props))
    if not found:
        raise DataError("None of the props to retrieve from can be read.")
    order = sorted(found)
    save_arrays(
        path,
        names=np.array([props[index].name for index in order]),
        masks=np.concatenate([found[index].masks for index in order]),
        colors=np.concatenate([found[index].colors for index in order]),
        means=np.concatenate([found[index].means for index in order]),
    )


@dataclass(frozen=True)
class Match:
    """A prop that was retrieved.

    Attributes:
        prop: index into the library's props.
        azimuth_deg: from which the prop looks like the picture.
        distance: see ``measure_distances``.
    """

    prop: int
    azimuth_deg: float
    distance: float


def measure_distances(
    query: Looks, looks: Looks, views: np.ndarray, color_weight: float = COLOR_WEIGHT
) -> np.ndarray:
    """Measure how unlike a picture (n,) views are: masks first, colors within them second.

    One minus the soft intersection over union of the masks, and ``color_weight`` times the mean
    absolute difference of colors, each less its own picture's mean, over the cells both cover.

    Args:
        query: the picture's look.
        looks: looks of the props.
        views: (n,) indices into ``looks``.
        color_weight: see above.
    """
    mask = query.masks.reshape(1, -1).astype(np.float32) / 255
    masks = looks.masks[views].reshape(len(views), -1).astype(np.float32) / 255
    common, either = (f(masks, mask).sum(axis=1) for f in (np.minimum, np.maximum))
    own = query.colors.astype(np.float32) / 255 - query.means[:, None, None]
    colors = looks.colors[views].astype(np.float32) / 255 - looks.means[views, None, None]
    weight = np.minimum(pool_masks(looks.masks[views]), pool_masks(query.masks))
    difference = (np.abs(colors - own).mean(axis=-1) * weight).sum(axis=(1, 2))
    color = difference / np.maximum(weight.sum(axis=(1, 2)), 1e-6)
    return 1 - common / np.maximum(either, 1e-6) + color_weight * color


def pool_masks(masks: np.ndarray, side: int = COLOR_SIDE) -> np.ndarray:
    """Reduce (V, S, S) uint8 masks to (V, side, side) float32 shares of larger cells."""
    step = masks.shape[1] // side
    shape = (len(masks), side, step, side, step)
    return masks.reshape(shape).mean(axis=(2, 4), dtype=np.float32) / 255


class Retriever:
    """Answers references with props of a library, never with the case's own object.

    Args:
        library: library of props.
    """

    def __init__(self, library: Library) -> None:
        self._library = library
        self._azimuths, _ = list_view_angles()
        self._paths = [prop.path.resolve() for prop in library.props]
        coarse = [
            pool_masks(library.looks.masks[start : start + 8192], COARSE_SIDE)
            for start in range(0, len(library.looks.masks), 8192)
        ]
        self._coarse = np.concatenate(coarse).reshape(len(library.looks.masks), -1)
        self._lengths = np.einsum("vi,vi->v", self._coarse, self._coarse)

    def __call__(self, reference: np.ndarray, case: Case) -> TexturedMesh:
        """Return the nearest prop's mesh, turned as it looks like the reference, in its colors.

        Args:
            reference: (H, W, 4) uint8 with straight alpha.
            case: the case; its object's file is left out of the library.
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
            query: looks of the picture.
            exclude: resolved paths of props that are left out.
            color_weight: see ``measure_distances``.

        Raises:
            DataError: all props are left out.
        """
        mask = pool_masks(query.masks, COARSE_SIDE).ravel()
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
        found = measure_distances(query, self._library.looks, nearest, color_weight)
        place = int(found.argmin())
        best = int(nearest[place])
        return Match(best // views, float(self._azimuths[best % views]), float(found[place]))


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
    seen = _average_visible_color(unit)
    wanted = reference[reference[..., 3] > 127][:, :3].mean(axis=0)
    texture = np.clip(mesh.texture.astype(np.float64) + (wanted - seen), 0, 255)
    return replace(mesh, texture=np.rint(texture).astype(np.uint8))


def _average_visible_color(mesh: TexturedMesh) -> np.ndarray:
    """Return the (3,) mean sRGB, 0..255, that the canonical camera sees of a unit mesh."""
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

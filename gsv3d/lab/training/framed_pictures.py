# SPDX-License-Identifier: Apache-2.0
"""Draw the framed pictures that the networks of pose and of shape learn from.

Elevation, mirror planes, depth and shape of what they show are known. Each prop is drawn as it is
and varied (``gsv3d.lab.rasterizing.variation``), from all around, and the pictures are framed as a
user's are. The pictures of a prop or variation are one file; a file that exists is not drawn again.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from gsv3d.cameras import DISTANCE, FOV_DEG, Cameras
from gsv3d.errors import DataError, ImageError
from gsv3d.lab.datasets.objects import ObjectFile
from gsv3d.lab.datasets.orbits import normalizing_transform, object_rng
from gsv3d.lab.processes import run_in_processes
from gsv3d.outputs import make_folder, write_atomic
from gsv3d.pose.network import PICTURE_SIZE
from gsv3d.preprocessing import FILL
from gsv3d.shape.frustum import cell_centers

VIEWS = 12
"""Pictures of each prop, or of each variation of it."""

DRAWN_SIZE = 112
"""Side of the pictures in pixels before they are framed."""

LIGHTS = 12
"""Distant lights of the environment: fewer than for pictures that people see."""

JOINED = 0.2
"""Share of the varied props that are joined with another prop: most lose their mirror planes."""

LEAST_RATIO = 0.02
"""Smallest ratio of depth to width, and of width to depth: a sheet of paper has no thickness."""

PLANES_DEG = np.arange(0.0, 180.0, 2.0)
"""Azimuths of the planes that are tried."""


@dataclass(frozen=True)
class FramedPictures:
    """N pictures with their true elevations and mirror planes.

    Attributes:
        rgba: (N, S, S, 4) uint8, framed as ``prepare`` frames them.
        elevations_deg: (N,) float32 elevations of the cameras.
        scores: (N, P) float32 mirror scores of the planes at ``PLANES_DEG`` from the camera.
        log_depths: (N,) float32 logarithms of depth over width, see ``measure_log_depth``.
        solid: (N, K, K, K) uint8, what the prop fills of each cell of ``gsv3d.shape.frustum``,
            0..255; axes are depth, row, column.
        packs: (N,) the pack that each picture's prop belongs to.
    """

    rgba: np.ndarray
    elevations_deg: np.ndarray
    scores: np.ndarray
    log_depths: np.ndarray
    solid: np.ndarray
    packs: np.ndarray


@dataclass(frozen=True)
class PictureFactory:
    """Makes the function that draws one (object, variant), inside a worker process."""

    folder: Path
    objects: tuple[ObjectFile, ...]
    seed: int

    def __call__(self) -> Callable[[tuple[int, int]], None]:
        import torch

        from gsv3d.lab.rasterizing.lighting import load_baked_environments

        torch.set_num_threads(1)
        environments = load_baked_environments()

        def draw(task: tuple[int, int]) -> None:
            index, variant = task
            item = self.objects[index]
            rng = object_rng(self.seed, f"pose/{item.name}/{variant}")
            arrays = _draw_object(item, variant, self.objects, environments, rng)
            file = io.BytesIO()
            np.savez(file, **arrays)
            write_atomic(_path(self.folder, item, variant), file.getvalue())

        return draw


def draw_pictures(
    folder: Path,
    objects: Sequence[ObjectFile],
    variants: int,
    seed: int,
    workers: int,
    say: Callable[[str], None],
) -> None:
    """Draw the pictures that are not there yet; props as they are come first.

    Args:
        folder: folder of the files.
        objects: GLB or glTF files.
        variants: number of files of each object; the first shows it as it is.
        seed: seed of all random choices.
        workers: number of processes that draw.
        say: called with each line on progress or on an object that is skipped.
    """
    make_folder(folder)
    # In random order, so that an interrupted run has objects of all packs.
    order = np.random.default_rng(seed).permutation(len(objects)).tolist()
    tasks = [
        (index, variant)
        for variant in range(variants)
        for index in order
        if not _path(folder, objects[index], variant).exists()
    ]
    factory = PictureFactory(folder, tuple(objects), seed)
    for done, outcome in enumerate(run_in_processes(factory, tasks, workers), 1):
        if outcome.error is not None:
            say(f"passed over: {outcome.error}")
        if done % 100 == 0 or done == len(tasks):
            say(f"drawing: {done}/{len(tasks)} objects")


def read_pictures(folder: Path, objects: Sequence[ObjectFile], variants: int) -> FramedPictures:
    """Read all pictures that were drawn.

    Raises:
        DataError: no pictures were drawn.
    """
    parts: list[tuple[np.ndarray, ...]] = []
    for item in objects:
        for variant in range(variants):
            path = _path(folder, item, variant)
            if path.exists():
                with np.load(path, allow_pickle=False) as file:
                    count = len(file["rgba"])
                    parts.append((file["rgba"], file["elevations_deg"], file["scores"],
                                  file["log_depths"], file["solid"],
                                  np.full(count, item.pack)))  # fmt: skip
    if not parts:
        raise DataError(f"There are no pictures in {folder}: none of the objects could be drawn.")
    return FramedPictures(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _path(folder: Path, item: ObjectFile, variant: int) -> Path:
    return folder / f"{item.name}--{variant}.npz"


def _draw_object(
    item: ObjectFile,
    variant: int,
    objects: Sequence[ObjectFile],
    environments: Sequence,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Draw one prop from all around.

    Raises:
        DataError: the prop cannot be drawn.
    """
    import torch
    from PIL import Image

    from gsv3d.cameras import orbit
    from gsv3d.lab.rasterizing.lighting import make_lights, make_random_environment
    from gsv3d.lab.rasterizing.orbits import Surface, draw
    from gsv3d.lab.rasterizing.props import load_prop
    from gsv3d.lab.rasterizing.surfaces import normalized, occupancy
    from gsv3d.lab.rasterizing.variation import vary
    from gsv3d.pose.symmetry import mirror_scores, turn_scores
    from gsv3d.preprocessing import prepare

    prop = load_prop(item.path)
    environment = environments[rng.integers(len(environments))]
    if variant:
        joined = rng.random() < JOINED
        other = load_prop(objects[rng.integers(len(objects))].path) if joined else None
        prop = vary(prop, other, rng)
        if rng.random() < 0.5:
            environment = make_random_environment(rng)
    azimuths = rng.uniform(0, 360, VIEWS)
    # Half of the views have elevations of the training orbits, half of a wider range.
    elevations = rng.uniform(-5, np.where(np.arange(VIEWS) % 2, 60, 30))
    # For half of the objects distance and field of view change together: another perspective, the
    # same size in the picture.
    distance = DISTANCE if rng.random() < 0.5 else float(rng.uniform(1.8, 6.0))
    half = np.tan(np.deg2rad(FOV_DEG / 2)) * DISTANCE / distance
    fov_deg = float(np.rad2deg(2 * np.arctan(half)))
    cameras = orbit(azimuths.tolist(), elevations.tolist(), size=DRAWN_SIZE, distance=distance,
                    fov_deg=fov_deg)  # fmt: skip
    try:
        transform, extent = normalizing_transform(
            prop.vertices, 0.0, cameras.viewmats.numpy(), fov_deg
        )
    except ValueError as error:
        raise DataError(f"{item.path}: {error}.") from error
    with torch.inference_mode():
        lights = make_lights(environment, float(rng.uniform(0, 360)), LIGHTS)
        views = draw(Surface(prop, transform, torch.device("cpu")), cameras, lights)
    own = mirror_scores(prop.vertices[prop.faces].astype(np.float64), PLANES_DEG, rng)
    filled = soften(occupancy(normalized(prop.vertices), prop.faces, rng))
    pictures, solid, kept = [], [], []
    for view, rgba in enumerate(views.rgba.numpy()):
        try:
            framed = prepare(Image.fromarray(rgba), PICTURE_SIZE)
            pictures.append(framed.rgba)
            solid.append(fill_cells(filled, extent, cameras[view], framed.box, distance))
            kept.append(view)
        except ImageError:
            continue  # too thin to be seen from this side
    if not kept:
        raise DataError(f"{item.path}: it is too thin to be seen.")
    scores = [turn_scores(own, float(azimuths[view])) for view in kept]
    return {
        "rgba": np.stack(pictures),
        "elevations_deg": elevations[kept].astype(np.float32),
        "scores": np.stack(scores).astype(np.float32),
        "log_depths": np.array(
            [measure_log_depth(prop.vertices, azimuths[view]) for view in kept], np.float32
        ),
        "solid": np.stack(solid),
    }


def fill_cells(
    solid: np.ndarray,
    extent: float,
    camera: Cameras,
    box: tuple[float, float, float, float],
    distance: float,
) -> np.ndarray:
    """Return what an object fills of each cell of a framed picture's grid.

    The grid stands along the rays of the picture, whatever its lens was; its middle is as far away
    as the object's.

    Args:
        solid: (G, G, G) uint8, what the object fills around each voxel of the cube [-0.5, 0.5]^3,
            as ``soften`` gives it.
        extent: largest extent of the object in the world that the camera stands in.
        camera: one view.
        box: box that was framed, as ``PreparedImage`` has it.
        distance: distance of the camera from the object's middle.

    Returns:
        (K, K, K) uint8 in 0..255; axes are depth, row, column.
    """
    left, top, right, bottom = box
    enlarged = FILL / max(right - left, bottom - top)
    steps, depths = cell_centers()
    z = distance + (depths - DISTANCE)[:, None, None] / enlarged
    width = 2 * np.tan(np.deg2rad(FOV_DEG / 2)) * DISTANCE / distance * z
    x = ((left + right - 1) / 2 + (steps - 0.5)[None, None, :] / enlarged) * width
    y = ((top + bottom - 1) / 2 + (steps - 0.5)[None, :, None] / enlarged) * width
    points = np.stack(np.broadcast_arrays(x, y, z), axis=-1)
    to_world = np.linalg.inv(camera.viewmats[0].numpy().astype(np.float64))
    world = (points @ to_world[:3, :3].T + to_world[:3, 3]) / extent
    voxels = np.floor((world + 0.5) * len(solid)).astype(np.int32)
    inside = ((voxels >= 0) & (voxels < len(solid))).all(axis=-1)
    return np.where(inside, solid[tuple(np.moveaxis(voxels * inside[..., None], -1, 0))], 0)


def soften(occupied: np.ndarray) -> np.ndarray:
    """Return the part of a cell's volume around each voxel that is occupied, 0..255 as uint8."""
    # A cell is 1 / 22 of the world's unit, three voxels.
    return (
        ndimage.uniform_filter(255 * occupied.astype(np.float32), 3, mode="constant")
        .round()
        .astype(np.uint8)
    )


def measure_log_depth(vertices: np.ndarray, azimuth_deg: float) -> float:
    """Return the logarithm of an object's depth over its width, as a camera sees them.

    Args:
        vertices: (N, 3) in the world.
        azimuth_deg: azimuth of the camera. Width is measured along its pictures' rows, depth
            horizontally away from it.
    """
    angle = np.deg2rad(azimuth_deg)
    right, away = (np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))
    width, depth = (np.ptp(vertices[:, :2] @ np.array(axis)) for axis in (right, away))
    return float(np.log(max(depth, LEAST_RATIO * width) / max(width, LEAST_RATIO * depth)))

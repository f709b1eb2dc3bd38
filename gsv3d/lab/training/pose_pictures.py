# SPDX-License-Identifier: Apache-2.0
"""Draw the pictures that the pose network learns from: elevation, mirror planes, depth are known.

Each prop is drawn as it is and varied (``gsv3d.lab.rasterizing.variation``), from all around, and
the pictures are framed as a user's are. The pictures of a prop or variation are one file; a file
that exists is not drawn again.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gsv3d.cameras import DISTANCE, FOV_DEG
from gsv3d.errors import DataError, ImageError
from gsv3d.lab.datasets.objects import ObjectFile
from gsv3d.lab.datasets.orbits import normalizing_transform, object_rng
from gsv3d.lab.processes import run_in_processes
from gsv3d.outputs import make_folder, write_atomic
from gsv3d.pose.network import PICTURE_SIZE

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
class PosePictures:
    """N pictures with their true elevations and mirror planes.

    Attributes:
        rgba: (N, S, S, 4) uint8, framed as ``prepare`` frames them.
        elevations_deg: (N,) float32 elevations of the cameras.
        scores: (N, P) float32 mirror scores of the planes at ``PLANES_DEG`` from the camera.
        log_depths: (N,) float32 logarithms of depth over width, see ``measure_log_depth``.
        packs: (N,) the pack that each picture's prop belongs to.
    """

    rgba: np.ndarray
    elevations_deg: np.ndarray
    scores: np.ndarray
    log_depths: np.ndarray
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


def read_pictures(folder: Path, objects: Sequence[ObjectFile], variants: int) -> PosePictures:
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
                                  file["log_depths"], np.full(count, item.pack)))  # fmt: skip
    if not parts:
        raise DataError(f"There are no pictures in {folder}: none of the objects could be drawn.")
    return PosePictures(*(np.concatenate(part) for part in zip(*parts, strict=True)))


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
        transform, _ = normalizing_transform(prop.vertices, 0.0, cameras.viewmats.numpy(), fov_deg)
    except ValueError as error:
        raise DataError(f"{item.path}: {error}.") from error
    with torch.inference_mode():
        lights = make_lights(environment, float(rng.uniform(0, 360)), LIGHTS)
        views = draw(Surface(prop, transform, torch.device("cpu")), cameras, lights)
    own = mirror_scores(prop.vertices[prop.faces].astype(np.float64), PLANES_DEG, rng)
    pictures, kept = [], []
    for view, rgba in enumerate(views.rgba.numpy()):
        try:
            pictures.append(prepare(Image.fromarray(rgba), PICTURE_SIZE).rgba)
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
    }


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

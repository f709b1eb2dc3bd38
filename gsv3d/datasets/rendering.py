# SPDX-License-Identifier: Apache-2.0
"""Rendering one object's orbit, and many objects' with several Blender processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gsv3d.cameras import orbit, to_blender
from gsv3d.datasets.objects import ObjectFile
from gsv3d.datasets.orbits import (
    Orbit,
    OrbitSettings,
    normalising_transform,
    plan_orbit,
    straight_srgb,
)
from gsv3d.datasets.processes import Outcome, run_in_processes
from gsv3d.errors import DataError


def silence_standard_output() -> None:
    """Send file descriptor 1 nowhere: Blender prints a line a picture, past ``sys.stdout``."""
    sys.stdout.flush()
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)


class ObjectRenderer:
    """Renders orbits in this process; a callable, one object after the other."""

    def __init__(self, settings: OrbitSettings) -> None:
        silence_standard_output()
        from gsv3d.datasets.blender_scene import BlenderScene

        self._settings = settings
        self._scene = BlenderScene(settings.size, settings.samples, settings.fov_deg)

    def __call__(self, task: tuple[ObjectFile, Path | None]) -> Orbit | None:
        """Render one object; save it if there is a path, else return it.

        Raises:
            DataError: the object cannot be rendered, and why.
        """
        source, output = task
        try:
            result = self._render(source)
        except ValueError as error:
            raise DataError(f"{source.path}: {error}.") from error
        finally:
            self._scene.clear()
        if output is None:
            return result
        result.save(output)
        return None

    def _render(self, source: ObjectFile) -> Orbit:
        settings, scene = self._settings, self._scene
        if not source.path.is_file():
            raise ValueError("there is no such file")
        plan = plan_orbit(settings, source.name)
        cameras = orbit(
            plan.azimuths_deg.tolist(),
            plan.elevations_deg.tolist(),
            size=settings.size,
            distance=settings.distance,
            fov_deg=settings.fov_deg,
        )
        viewmats = cameras.viewmats.numpy()
        points = scene.load(source.path)
        transform, scale = normalising_transform(points, plan.yaw_deg, viewmats, settings.fov_deg)
        scene.place(transform)
        if settings.light == "flat":
            light = scene.light_flat()
        else:
            light = scene.light_hdri(plan.light_choice, plan.light_yaw_deg)
        if settings.random_colours:
            scene.colour_if_plain(plan.hsv)
        if settings.materials == "matt":
            scene.make_matt()
        views = [scene.render(to_blender(viewmat)) for viewmat in viewmats]
        rgba = np.stack([straight_srgb(view[0]) for view in views])
        if not rgba[..., 3].any():
            raise ValueError("nothing of it is visible in any view")
        return Orbit(
            rgba=rgba,
            depth=np.stack([view[1] for view in views]).astype(np.float16),
            azimuths_deg=plan.azimuths_deg,
            elevations_deg=plan.elevations_deg,
            distance=settings.distance,
            fov_deg=settings.fov_deg,
            scale=scale,
            yaw_deg=plan.yaw_deg,
            seed=settings.seed,
            num_orbit=settings.orbit_views,
            light=light,
            transform=transform,
        )


@dataclass(frozen=True)
class RendererFactory:
    """Makes the renderer inside a worker process (and is what is sent there)."""

    settings: OrbitSettings

    def __call__(self) -> Callable[[tuple[ObjectFile, Path | None]], Orbit | None]:
        return ObjectRenderer(self.settings)


def render_orbits(
    objects: Sequence[ObjectFile], settings: OrbitSettings, output: Path, workers: int
) -> Iterator[Outcome]:
    """Render objects to ``output/<name>.npz`` with several processes, in the order given.

    Yields:
        One outcome an object as it ends; a failed one carries the reason and stops nothing.
    """
    tasks = [(item, output / f"{item.name}.npz") for item in objects]
    return run_in_processes(RendererFactory(settings), tasks, workers)


def shuffled(objects: Sequence[ObjectFile], seed: int) -> list[ObjectFile]:
    """A fixed random order, so that any beginning of it is a fair sample."""
    order = np.random.default_rng([seed, 7]).permutation(len(objects))
    return [objects[i] for i in order]

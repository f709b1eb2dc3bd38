# SPDX-License-Identifier: Apache-2.0
"""The pictures of an evaluation, all from one renderer: Blender's Cycles in a worker process.

The true object is lit as in the reference picture; results are shown unlit, with their texture's
colours as they are, since these have the light of the reference in them.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gsv3d.cameras import DISTANCE as REFERENCE_DISTANCE
from gsv3d.cameras import FOV_DEG, orbit, to_blender
from gsv3d.datasets.objects import ObjectFile
from gsv3d.datasets.orbits import normalising_transform, straight_srgb
from gsv3d.datasets.rendering import silence_standard_output
from gsv3d.errors import DataError
from gsv3d.evaluation.protocol import DISTANCE, EvaluationSettings, plan_object, unseen_views
from gsv3d.meshing.mesh import TexturedMesh

UNLIT_SAMPLES = 8


@dataclass(frozen=True)
class TruthTask:
    """Render an object's reference picture and unseen views, and read its triangles."""

    source: ObjectFile
    output: Path


@dataclass(frozen=True)
class MeshTask:
    """Render a mesh's views for an object's evaluation."""

    name: str
    mesh: Path
    output: Path


@dataclass(frozen=True)
class PicturesFactory:
    """Makes the renderer inside a worker process."""

    settings: EvaluationSettings

    def __call__(self) -> Callable[[TruthTask | MeshTask], None]:
        return _Pictures(self.settings)


class _Pictures:
    def __init__(self, settings: EvaluationSettings) -> None:
        silence_standard_output()
        from gsv3d.datasets.blender_scene import BlenderScene

        self._settings = settings
        self._scene = BlenderScene(settings.size, settings.samples, FOV_DEG)

    def __call__(self, task: TruthTask | MeshTask) -> None:
        path = task.source.path if isinstance(task, TruthTask) else task.mesh
        try:
            arrays = self._truth(task) if isinstance(task, TruthTask) else self._mesh(task)
        except ValueError as error:
            raise DataError(f"{path}: {error}.") from error
        finally:
            self._scene.clear()
        save_arrays(task.output, **arrays)

    def _views(self, elevation: float) -> np.ndarray:
        azimuths, elevations = unseen_views(elevation)
        cameras = orbit(azimuths, elevations, size=self._settings.size, distance=DISTANCE)
        self._scene.set_size(self._settings.size)
        return np.stack(
            [straight_srgb(self._scene.render(to_blender(m))[0]) for m in cameras.viewmats.numpy()]
        )

    def _truth(self, task: TruthTask) -> dict[str, Any]:
        settings, scene = self._settings, self._scene
        plan = plan_object(settings.seed, task.source.name)
        if not task.source.path.is_file():
            raise ValueError("there is no such file")
        points = scene.load(task.source.path)
        scene.set_samples(settings.samples)
        scene.make_matt()
        light = scene.light_hdri(plan.light_choice, plan.light_yaw_deg)
        reference = orbit(
            [0.0], [plan.elevation_deg], size=settings.input_size, distance=REFERENCE_DISTANCE
        ).viewmats.numpy()
        transform, scale = normalising_transform(points, plan.yaw_deg, reference, FOV_DEG)
        scene.place(transform)
        scene.set_size(settings.input_size)
        picture = straight_srgb(scene.render(to_blender(reference[0]))[0])
        transform[:3] /= scale
        scene.place(transform)
        vertices, faces = scene.triangles()
        views = self._views(plan.elevation_deg)
        if not (picture[..., 3] > 127).any() or not (views[..., 3] > 127).any():
            raise ValueError("it is too thin to be seen")
        return {
            "reference": picture,
            "views": views,
            "vertices": vertices.astype(np.float32),
            "faces": faces.astype(np.int32),
            "elevation_deg": np.float64(plan.elevation_deg),
            "yaw_deg": np.float64(plan.yaw_deg),
            "light": np.array(light),
        }

    def _mesh(self, task: MeshTask) -> dict[str, Any]:
        mesh = load_mesh(task.mesh)
        self._scene.set_samples(UNLIT_SAMPLES)
        self._scene.add_textured(mesh.vertices, mesh.faces, mesh.corner_uvs, mesh.texture)
        return {"views": self._views(plan_object(self._settings.seed, task.name).elevation_deg)}


def save_arrays(path: Path, **arrays: Any) -> None:
    """Write an .npz, whole or not at all."""
    temporary = path.with_name(path.name + ".part")
    with open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)
    os.replace(temporary, path)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """What ``save_arrays`` wrote.

    Raises:
        DataError: it is damaged.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as data:
            return dict(data)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is damaged ({error}).", "Delete it; it is made again.") from error


def save_mesh(path: Path, mesh: TexturedMesh) -> None:
    save_arrays(path, **{name: getattr(mesh, name) for name in mesh.__dataclass_fields__})


def load_mesh(path: Path) -> TexturedMesh:
    return TexturedMesh(**load_arrays(path))

# SPDX-License-Identifier: Apache-2.0
"""The pictures of an evaluation, all from one renderer, drawn in worker processes.

The true object is lit as in the reference picture; results are shown unlit, with their texture's
colours as they are, since these have the light of the reference in them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gsv3d.cameras import DISTANCE as REFERENCE_DISTANCE
from gsv3d.cameras import FOV_DEG, orbit, static_azimuths_deg
from gsv3d.errors import DataError
from gsv3d.lab.datasets.orbits import normalising_transform
from gsv3d.lab.evaluation.files import load_mesh, save_arrays
from gsv3d.lab.evaluation.framing import frame
from gsv3d.lab.evaluation.protocol import DISTANCE, Case, EvaluationSettings, unseen_views
from gsv3d.lab.evaluation.scenes import make_scene


@dataclass(frozen=True)
class TruthTask:
    """Render a case's reference picture and unseen views, and read its object's triangles.

    Attributes:
        case: to be rendered.
        output: the reference, the unseen views and the triangles.
        orbits: number of frames, and where the object's own orbit of that many goes: what a
            model's views are compared with.
    """

    case: Case
    output: Path
    orbits: tuple[tuple[int, Path], ...] = ()

    def __str__(self) -> str:
        return str(self.case.source)

    def missing(self) -> bool:
        return not all(path.exists() for path in (self.output, *(p for _, p in self.orbits)))


@dataclass(frozen=True)
class MeshTask:
    """Render the unseen views of a candidate's mesh for a case."""

    case: Case
    mesh: Path
    output: Path

    def __str__(self) -> str:
        return str(self.mesh)

    def missing(self) -> bool:
        return not self.output.exists()


@dataclass(frozen=True)
class PicturesFactory:
    """Makes what draws inside a worker process."""

    settings: EvaluationSettings

    def __call__(self) -> Callable[[TruthTask | MeshTask], None]:
        return _Pictures(self.settings)


class _Pictures:
    def __init__(self, settings: EvaluationSettings) -> None:
        self._settings, self._scene = settings, make_scene(settings)

    def __call__(self, task: TruthTask | MeshTask) -> None:
        path = task.case.source.path if isinstance(task, TruthTask) else task.mesh
        try:
            if isinstance(task, TruthTask):
                self._truth(task)
            else:
                azimuths, elevations = unseen_views(task.case.plan.elevation_deg)
                cameras = orbit(azimuths, elevations, size=self._settings.size, distance=DISTANCE)
                views = self._scene.draw_unlit(load_mesh(task.mesh), cameras)
                save_arrays(task.output, views=views)
        except ValueError as error:
            raise DataError(f"{path}: {error}.") from error
        finally:
            self._scene.clear()

    def _truth(self, task: TruthTask) -> None:
        settings, scene, plan = self._settings, self._scene, task.case.plan
        path = task.case.source.path
        if not path.is_file():
            raise ValueError("there is no such file")
        points = scene.load(path, plan)
        reference = orbit(
            [0.0], [plan.elevation_deg], size=settings.input_size, distance=REFERENCE_DISTANCE
        )
        matrices = reference.viewmats.numpy()
        transform, scale = normalising_transform(points, plan.yaw_deg, matrices, FOV_DEG)
        unit = np.diag([1 / scale] * 3 + [1.0]) @ transform
        placed = points @ unit[:3, :3].T + unit[:3, 3]
        framing = frame(placed, matrices[0].astype(np.float64))
        if not task.output.exists():
            picture = scene.draw(transform, reference)[0]
            vertices, faces = scene.triangles(unit)
            azimuths, elevations = unseen_views(plan.elevation_deg)
            cameras = orbit(azimuths, elevations, size=settings.size, distance=DISTANCE)
            views = scene.draw(unit, cameras)
            if not (picture[..., 3] > 127).any() or not (views[..., 3] > 127).any():
                raise ValueError("it is too thin to be seen")
            save_arrays(
                task.output,
                reference=picture,
                views=views,
                vertices=vertices.astype(np.float32),
                faces=faces.astype(np.int32),
                elevation_deg=np.float64(plan.elevation_deg),
                yaw_deg=np.float64(plan.yaw_deg),
                light=np.array(scene.light),
                framing_scale=np.float64(framing.scale),
                framing_shift=framing.shift,
            )
        for frames, output in task.orbits:
            if not output.exists():
                azimuths = static_azimuths_deg(frames)
                cameras = orbit(
                    azimuths, plan.elevation_deg, size=settings.size, distance=REFERENCE_DISTANCE
                )
                views = scene.draw(framing.matrix() @ unit, cameras)
                save_arrays(output, views=views, azimuths_deg=np.array(azimuths))

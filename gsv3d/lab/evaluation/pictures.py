# SPDX-License-Identifier: Apache-2.0
"""Draw the pictures of an evaluation in worker processes: by Blender's Cycles, or the rasterizer.

The true object is lit as in the reference picture; results are shown unlit, with their texture's
colors as they are, since these have the light of the reference in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from gsv3d.cameras import DISTANCE as REFERENCE_DISTANCE
from gsv3d.cameras import FOV_DEG, Cameras, orbit, static_azimuths_deg, to_blender
from gsv3d.errors import DataError
from gsv3d.lab.datasets.light import choose_environment, encode_straight_srgb
from gsv3d.lab.datasets.orbits import normalizing_transform
from gsv3d.lab.evaluation.protocol import (
    Case,
    EvaluationSettings,
    ObjectPlan,
    find_framing,
    place_unseen_cameras,
)
from gsv3d.lab.evaluation.store import load_mesh, save_arrays
from gsv3d.lab.processes import silence_standard_output
from gsv3d.lab.rasterizing.lighting import load_baked_environments, make_lights
from gsv3d.lab.rasterizing.orbits import Surface, draw
from gsv3d.lab.rasterizing.props import Prop, load_prop
from gsv3d.meshing.mesh import TexturedMesh
from gsv3d.meshing.preview import rasterize_mesh

UNLIT_SAMPLES = 8
"""Samples a pixel of unlit pictures, whose only noise is at the outline."""

RASTERIZED = (".glb", ".gltf")
"""Suffixes of the files that the rasterizer reads."""


class CyclesScene:
    """Blender's Cycles: one object at a time, lit by an HDRI, or one result, unlit.

    There is one in a process, since Blender has one scene.

    Attributes:
        light: name of the HDRI.
    """

    def __init__(self, settings: EvaluationSettings) -> None:
        silence_standard_output()
        from gsv3d.lab.datasets.blender_scene import BlenderScene

        self._settings, self.light = settings, ""
        self._scene = BlenderScene(settings.size, settings.samples, FOV_DEG)

    def load(self, path: Path, plan: ObjectPlan) -> np.ndarray:
        """Read an object and light it; return the (N, 3) positions of its vertices.

        Raises:
            ValueError: the object cannot be used; the text follows "FILE: ". Or DataError.
        """
        points = self._scene.load(path)
        self._scene.set_samples(self._settings.samples)
        self._scene.make_matt()
        self.light = self._scene.world.light_hdri(plan.light_choice, plan.light_yaw_deg)
        return points

    def triangles(self, transform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (V, 3) vertices and (F, 3) faces of the object under a (4, 4) similarity."""
        self._scene.place(transform)
        return self._scene.triangles()

    def draw(self, transform: np.ndarray, cameras: Cameras) -> np.ndarray:
        """Draw the object under a (4, 4) similarity: (V, S, S, 4) uint8, straight alpha."""
        self._scene.place(transform)
        return self._draw(cameras)

    def draw_unlit(self, mesh: TexturedMesh, cameras: Cameras) -> np.ndarray:
        """Draw a mesh in its texture's own colors: (V, S, S, 4) uint8."""
        self._scene.set_samples(UNLIT_SAMPLES)
        self._scene.add_textured(mesh.vertices, mesh.faces, mesh.corner_uvs, mesh.texture)
        return self._draw(cameras)

    def _draw(self, cameras: Cameras) -> np.ndarray:
        self._scene.set_size(cameras.width)
        matrices = [to_blender(m) for m in cameras.viewmats.numpy()]
        return np.stack([encode_straight_srgb(self._scene.render_view(m).rgba) for m in matrices])

    def clear(self) -> None:
        """Forget the object or the mesh."""
        self._scene.clear()


class RasterizedScene:
    """The same of GLB and glTF files without Blender, by ``gsv3d.lab.rasterizing``."""

    def __init__(self) -> None:
        torch.set_num_threads(1)  # a process among others
        self._environments = load_baked_environments()
        self.light = ""
        self.clear()

    def load(self, path: Path, plan: ObjectPlan) -> np.ndarray:
        if path.suffix.lower() not in RASTERIZED:
            raise ValueError("the rasterizer reads GLB and glTF files alone")
        self._prop = load_prop(path)
        environment = choose_environment(self._environments, plan.light_choice)
        self.light = environment.name
        self._lights = make_lights(environment, plan.light_yaw_deg)
        return self._prop.vertices.astype(np.float64)

    def triangles(self, transform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        moved = self._prop.vertices.astype(np.float64) @ transform[:3, :3].T + transform[:3, 3]
        return moved, self._prop.faces

    def draw(self, transform: np.ndarray, cameras: Cameras) -> np.ndarray:
        surface = Surface(self._prop, transform, torch.device("cpu"))
        with torch.inference_mode():
            return draw(surface, cameras, self._lights).rgba.numpy()

    def draw_unlit(self, mesh: TexturedMesh, cameras: Cameras) -> np.ndarray:
        if mesh.clipped:  # what lies behind a hole shows through it, which this z-buffer lacks
            return rasterize_mesh(mesh, cameras)
        prop = Prop(
            vertices=mesh.vertices,
            faces=mesh.faces,
            corner_normals=np.repeat(mesh.face_normals()[:, None], 3, axis=1),
            corner_uvs=mesh.corner_uvs,
            corner_colors=np.ones((len(mesh.faces), 3, 3), np.float32),
            texture_index=np.zeros(len(mesh.faces), np.int32),
            textures=(mesh.texture,),
            plain=False,
        )
        with torch.inference_mode():
            surface = Surface(prop, np.eye(4), torch.device("cpu"))
            return draw(surface, cameras, None).rgba.numpy()

    def clear(self) -> None:
        self._prop = self._lights = None


Scene = CyclesScene | RasterizedScene


def make_scene(settings: EvaluationSettings) -> Scene:
    """Make the scene that the settings name."""
    return RasterizedScene() if settings.renderer == "rasterizer" else CyclesScene(settings)


@dataclass(frozen=True)
class TruthTask:
    """Render a case's reference picture and unseen views, and read its object's triangles.

    Attributes:
        case: the case.
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


class Drawer:
    """A callable that draws the pictures of tasks, in a worker process."""

    def __init__(self, settings: EvaluationSettings) -> None:
        self._settings, self._scene = settings, make_scene(settings)

    def __call__(self, task: TruthTask | MeshTask) -> None:
        path = task.case.source.path if isinstance(task, TruthTask) else task.mesh
        try:
            if isinstance(task, TruthTask):
                self._draw_truth(task)
            else:
                elevation = task.case.plan.elevation_deg
                cameras = place_unseen_cameras(elevation, self._settings.size)
                views = self._scene.draw_unlit(load_mesh(task.mesh), cameras)
                save_arrays(task.output, views=views)
        except ValueError as error:
            raise DataError(f"{path}: {error}.") from error
        finally:
            self._scene.clear()

    def _draw_truth(self, task: TruthTask) -> None:
        settings, scene, plan = self._settings, self._scene, task.case.plan
        path = task.case.source.path
        if not path.is_file():
            raise ValueError("there is no such file")
        points = scene.load(path, plan)
        reference = orbit(
            [0.0], [plan.elevation_deg], size=settings.input_size, distance=REFERENCE_DISTANCE
        )
        matrices = reference.viewmats.numpy()
        transform, scale = normalizing_transform(points, plan.yaw_deg, matrices, FOV_DEG)
        unit = np.diag([1 / scale] * 3 + [1.0]) @ transform
        placed = points @ unit[:3, :3].T + unit[:3, 3]
        framing = find_framing(placed, matrices[0].astype(np.float64))
        if not task.output.exists():
            picture = scene.draw(transform, reference)[0]
            vertices, faces = scene.triangles(unit)
            views = scene.draw(unit, place_unseen_cameras(plan.elevation_deg, settings.size))
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

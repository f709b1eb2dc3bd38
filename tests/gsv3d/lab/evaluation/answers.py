# SPDX-License-Identifier: Apache-2.0
"""Evaluations of rasterized boxes, to test what comes after Blender without Blender."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import trimesh

from gsv3d.cameras import DISTANCE as REFERENCE_DISTANCE
from gsv3d.cameras import look_at_origin, orbit, static_azimuths_deg
from gsv3d.lab.datasets.objects import ObjectFile
from gsv3d.lab.evaluation.protocol import (
    DISTANCE,
    Case,
    EvaluationSettings,
    find_framing,
    list_unseen_views,
    make_cases,
)
from gsv3d.lab.evaluation.runner import normalize_mesh
from gsv3d.lab.evaluation.store import (
    Evaluation,
    ModelIdentity,
    Run,
    load_arrays,
    prepare_folder,
    save_arrays,
    save_mesh,
    write_json,
)
from gsv3d.meshing.mesh import TexturedMesh
from gsv3d.meshing.preview import rasterize_mesh

SIZE = 48
FRAMES = 4
SETTINGS = EvaluationSettings(size=SIZE, input_size=64, samples=2)


def box(extents: tuple[float, float, float], color: tuple[int, int, int]) -> TexturedMesh:
    """Return a box around the origin in one color."""
    body = trimesh.creation.box(extents)
    uvs = np.full((len(body.faces), 3, 2), 0.5)
    return TexturedMesh(body.vertices, body.faces, uvs, np.full((2, 2, 3), color, np.uint8))


def unseen(mesh: TexturedMesh, elevation: float) -> np.ndarray:
    cameras = orbit(*list_unseen_views(elevation), size=SIZE, distance=DISTANCE)
    return rasterize_mesh(mesh, cameras)


def make_evaluation(
    folder: Path,
    names: tuple[str, ...] = ("cube", "tower"),
    seeds: tuple[int, ...] = (0,),
    elevations: tuple[float, ...] = (),
    draw: bool = True,
) -> Evaluation:
    """Return a folder with the truth of boxes, all of them red; a model "m" is announced.

    Without ``draw``, and at other elevations, the truths are empty files: enough to report on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    objects = []
    for name in names:
        path = folder / f"{name}.glb"
        path.write_bytes(name.encode())
        objects.append(ObjectFile(name, path))
    cases = make_cases(objects, 0, elevations)
    identity = ModelIdentity("abc", frames=FRAMES)
    evaluation = prepare_folder(folder / "r", SETTINGS, cases, "m", identity, seeds)
    for index, case in enumerate(cases):
        if not draw or case.elevation_of is not None:
            evaluation.path("truth", case).touch()
            continue
        height = 1.0 if case.source.name == "cube" else 0.3 + 0.1 * (index % 5)
        truth = box((1.0, 0.6, height), (200, 30, 30))
        add_truth(evaluation, case, truth)
    return evaluation


def add_truth(evaluation: Evaluation, case: Case, mesh: TexturedMesh) -> None:
    """Write the true object of a case, and its orbit."""
    elevation = case.plan.elevation_deg
    viewmat = look_at_origin(0, elevation, REFERENCE_DISTANCE)
    framing = find_framing(mesh.vertices, viewmat)
    reference = orbit([0.0], elevation, size=64)
    save_arrays(
        evaluation.path("truth", case),
        reference=rasterize_mesh(mesh, reference)[0],
        views=unseen(mesh, elevation),
        vertices=mesh.vertices,
        faces=mesh.faces,
        elevation_deg=np.float64(elevation),
        yaw_deg=np.float64(0),
        light=np.array("none"),
        framing_scale=np.float64(framing.scale),
        framing_shift=framing.shift,
    )
    placed = TexturedMesh(
        mesh.vertices * framing.scale + framing.shift, mesh.faces, mesh.corner_uvs, mesh.texture
    )
    azimuths = static_azimuths_deg(FRAMES)
    cameras = orbit(azimuths, elevation, size=SIZE, distance=REFERENCE_DISTANCE)
    save_arrays(
        evaluation.orbit_path(case, FRAMES),
        views=rasterize_mesh(placed, cameras),
        azimuths_deg=np.array(azimuths),
    )


def answer(
    evaluation: Evaluation, case: Case, run: Run, mesh: TexturedMesh, generated: bool = False
) -> None:
    """Write a run's mesh and pictures; for a model its views too, which are the true ones."""
    unit = normalize_mesh(mesh)
    save_mesh(evaluation.path("meshes", case, run), unit)
    save_arrays(evaluation.path("views", case, run), views=unseen(unit, case.plan.elevation_deg))
    if generated:
        views = load_arrays(evaluation.orbit_path(case, FRAMES))["views"]
        color = np.where(views[..., 3:] > 127, views[..., :3], 255).astype(np.uint8)
        arrays = {"frames": color, "frames_mask": views[..., 3] > 127}
        save_arrays(evaluation.path("generated", case, run), **arrays)
    if run.seed is not None:
        cost = {"seconds": {"total": 2.5}, "process_mib": 700.0, "card_mib": None}
        write_json(evaluation.record_path(case, run), cost)

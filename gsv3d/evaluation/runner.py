# SPDX-License-Identifier: Apache-2.0
"""An evaluation from the list of objects to the numbers of each, resumable at every file.

Everything is kept in the report's folder: ``truth/``, ``meshes/``, ``views/`` and one JSON an
object in ``objects/``. What is there is not made again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gsv3d.datasets.objects import ObjectFile
from gsv3d.datasets.orbits import object_rng
from gsv3d.datasets.processes import run_in_processes
from gsv3d.errors import Cancelled, GSV3DError, OutputError
from gsv3d.evaluation import baselines, metrics
from gsv3d.evaluation.pictures import (
    MeshTask,
    PicturesFactory,
    TruthTask,
    load_arrays,
    load_mesh,
    save_mesh,
)
from gsv3d.evaluation.protocol import EvaluationSettings
from gsv3d.meshing.mesh import TexturedMesh

BASELINES: dict[str, Callable[[np.ndarray], TexturedMesh]] = {
    "slab": baselines.slab,
    "ellipsoid": baselines.ellipsoid,
}
METRICS = ("mask_iou", "psnr", "f_score_02", "f_score_05", "chamfer", "volume_iou")

Generator = Callable[[np.ndarray, float], tuple[TexturedMesh, dict[str, float]]]
"""(H, W, 4) uint8 reference and its elevation in degrees to a mesh and seconds by phase."""

Report = Callable[[str, int, int], None]
"""Told of a phase's name, and how many of how many are done."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation in one folder.

    Attributes:
        folder: of the report.
        settings: of the evaluation.
        objects: drawn, sorted by name.
        model: name of the generated meshes in the tables; None for the baselines alone.
    """

    folder: Path
    settings: EvaluationSettings
    objects: Sequence[ObjectFile]
    model: str | None

    @property
    def candidates(self) -> list[str]:
        return ([self.model] if self.model else []) + [*BASELINES, "empty"]

    def path(self, kind: str, name: str, candidate: str = "") -> Path:
        stem = f"{name}--{_slug(candidate)}" if candidate else name
        return self.folder / kind / f"{stem}.{'json' if kind == 'objects' else 'npz'}"


def prepare_folder(evaluation: Evaluation, identity: dict[str, Any]) -> None:
    """Make the report's folders; refuse to mix two evaluations in one.

    Args:
        evaluation: to be run there.
        identity: what else makes results comparable, such as the model's digest.

    Raises:
        OutputError: not writable, or another evaluation is there.
    """
    record = evaluation.folder / "evaluation.json"
    wanted = json.loads(
        json.dumps(
            {
                "settings": evaluation.settings.to_dict(),
                **identity,
                "objects": [item.name for item in evaluation.objects],
            }
        )
    )
    try:
        for kind in ("truth", "meshes", "views", "objects"):
            (evaluation.folder / kind).mkdir(parents=True, exist_ok=True)
        if record.exists():
            if json.loads(record.read_text(encoding="utf-8")) != wanted:
                raise OutputError(
                    f"{evaluation.folder} holds another evaluation (model, settings or objects).",
                    "Give another --report folder, or delete this one.",
                )
            return
        _write_json(record, wanted)
    except (OSError, ValueError) as error:
        raise OutputError(f"{evaluation.folder} cannot be used ({error}).") from error


def run_evaluation(
    evaluation: Evaluation, generator: Generator | None, report: Report, workers: int = 1
) -> dict[str, str]:
    """Make all that is missing.

    Args:
        evaluation: what and where.
        generator: needed when the evaluation has a model.
        report: told of progress.
        workers: Blender processes.

    Returns:
        Why objects failed, by name. An object whose true mesh cannot be rendered is left out of all
        averages; one the model fails on counts as an empty result of the model.
    """
    failures: dict[str, str] = {}
    tasks: list[TruthTask | MeshTask] = [
        TruthTask(item, evaluation.path("truth", item.name)) for item in evaluation.objects
    ]
    failures.update(_pictures(evaluation, tasks, "rendering objects", report, workers))
    usable = [item.name for item in evaluation.objects if item.name not in failures]
    for done, name in enumerate(usable, 1):
        failure = _make_meshes(evaluation, name, generator)
        if failure:
            failures[name] = failure
        report("generating meshes", done, len(usable))
    tasks = [
        MeshTask(name, mesh, evaluation.path("views", name, candidate))
        for name in usable
        for candidate in evaluation.candidates
        if (mesh := evaluation.path("meshes", name, candidate)).exists()
    ]
    failures.update(_pictures(evaluation, tasks, "rendering meshes", report, workers))
    for done, name in enumerate(usable, 1):
        output = evaluation.path("objects", name)
        if _is_unfinished(output):
            _write_json(output, measure_object(evaluation, name, failures.get(name)))
        report("measuring", done, len(usable))
    return failures


def _pictures(
    evaluation: Evaluation,
    tasks: Sequence[TruthTask | MeshTask],
    phase: str,
    report: Report,
    workers: int,
) -> dict[str, str]:
    missing = [task for task in tasks if not task.output.exists()]
    failures = {}
    outcomes = run_in_processes(PicturesFactory(evaluation.settings), missing, workers)
    for done, outcome in enumerate(outcomes, 1):
        if outcome.error is not None:
            task = missing[outcome.index]
            name = task.source.name if isinstance(task, TruthTask) else task.name
            failures[name] = outcome.error
        report(phase, done, len(missing))
    return failures


def _make_meshes(evaluation: Evaluation, name: str, generator: Generator | None) -> str | None:
    """Write the candidates' meshes of one object; returns why the model failed, if it did."""
    truth = load_arrays(evaluation.path("truth", name))
    for candidate, make in BASELINES.items():
        path = evaluation.path("meshes", name, candidate)
        if not path.exists():
            save_mesh(path, _unit(make(truth["reference"])))
    if evaluation.model is None:
        return None
    if generator is None:
        raise ValueError("an evaluation of a model needs a generator")
    path = evaluation.path("meshes", name, evaluation.model)
    timings = path.with_suffix(".timings.json")
    if path.exists():
        return None
    try:
        mesh, seconds = generator(truth["reference"], float(truth["elevation_deg"]))
        unit = _unit(mesh)
    except Cancelled:
        raise
    except (GSV3DError, ValueError) as error:
        return f"{name}: {error}"
    _write_json(timings, seconds)
    save_mesh(path, unit)
    return None


def measure_object(evaluation: Evaluation, name: str, failure: str | None) -> dict[str, Any]:
    """All metrics of all candidates for one object."""
    truth = load_arrays(evaluation.path("truth", name))
    rng = object_rng(evaluation.settings.seed, f"measure/{name}")
    points = metrics.sample_surface(truth["vertices"], truth["faces"], metrics.SURFACE_SAMPLES, rng)
    volume = metrics.occupancy(truth["vertices"], truth["faces"], rng)
    white = np.zeros_like(truth["views"])
    results: dict[str, Any] = {}
    for candidate in evaluation.candidates:
        views_path = evaluation.path("views", name, candidate)
        found = views_path.exists()
        views = load_arrays(views_path)["views"] if found else white
        pairs = list(zip(views, truth["views"], strict=True))
        values: dict[str, Any] = {
            "mask_iou": np.mean([metrics.mask_iou(_mask(a), _mask(b)) for a, b in pairs]),
            "psnr": np.mean([metrics.psnr(metrics.on_white(a), metrics.on_white(b))
                             for a, b in pairs]),
            "f_score_02": 0.0, "f_score_05": 0.0, "chamfer": None, "volume_iou": 0.0,
        }  # fmt: skip
        if found:
            mesh = load_mesh(evaluation.path("meshes", name, candidate))
            samples = metrics.sample_surface(
                mesh.vertices, mesh.faces, metrics.SURFACE_SAMPLES, rng
            )
            distance = metrics.surface_distance(samples, points)
            values |= {
                "f_score_02": distance.f_score(0.02),
                "f_score_05": distance.f_score(0.05),
                "chamfer": distance.chamfer,
                "volume_iou": metrics.volume_iou(
                    metrics.occupancy(mesh.vertices, mesh.faces, rng), volume
                ),
                "faces": len(mesh.faces),
            }
        results[candidate] = {
            key: value if value is None else round(float(value), 5) for key, value in values.items()
        }
    record: dict[str, Any] = {
        "name": name,
        "elevation_deg": round(float(truth["elevation_deg"]), 3),
        "yaw_deg": round(float(truth["yaw_deg"]), 3),
        "light": str(truth["light"]),
        "failure": failure,
        "results": results,
    }
    if evaluation.model is not None:
        timings = evaluation.path("meshes", name, evaluation.model).with_suffix(".timings.json")
        if timings.exists():
            record["seconds"] = json.loads(timings.read_text(encoding="utf-8"))
    return record


def _is_unfinished(record: Path) -> bool:
    """Whether an object has no numbers yet, or those of a failure, which is tried again."""
    if not record.exists():
        return True
    return json.loads(record.read_text(encoding="utf-8"))["failure"] is not None


def folder_digest(folder: Path) -> str:
    """SHA-256 over the names and contents of a folder's files: which model this was."""
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        total.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with open(path, "rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def _unit(mesh: TexturedMesh) -> TexturedMesh:
    return TexturedMesh(
        metrics.normalised(mesh.vertices), mesh.faces, mesh.corner_uvs, mesh.texture
    )


def _mask(rgba: np.ndarray) -> np.ndarray:
    return rgba[..., 3] > 127


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name)


def _write_json(path: Path, value: Any) -> None:
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)

# SPDX-License-Identifier: Apache-2.0
"""An evaluation from the list of objects to the numbers of each, resumable at every file.

Everything is kept in the report's folder: ``truth/``, ``meshes/``, ``views/`` and one JSON an
object in ``objects/``. What is there is not made again, and several models can be evaluated into
one folder, one after the other: they share the objects and the baselines.
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
        model: name of the model to be evaluated now; None for none.
        models: names of all models in this folder, this one included.
    """

    folder: Path
    settings: EvaluationSettings
    objects: Sequence[ObjectFile]
    model: str | None = None
    models: tuple[str, ...] = ()

    @property
    def candidates(self) -> list[str]:
        return [*self.models, *BASELINES, "empty"]

    def path(self, kind: str, name: str, candidate: str = "") -> Path:
        stem = f"{name}--{_slug(candidate)}" if candidate else name
        return self.folder / kind / f"{stem}.{'json' if kind == 'objects' else 'npz'}"


def prepare_folder(
    folder: Path,
    settings: EvaluationSettings,
    objects: Sequence[ObjectFile],
    model: str | None = None,
    digest: str = "",
) -> Evaluation:
    """Make the report's folders and their record, ``evaluation.json``.

    Args:
        folder: of the report.
        settings: of the evaluation.
        objects: drawn for it.
        model: name to be evaluated, if any.
        digest: what tells this model from others of its name.

    Raises:
        OutputError: not writable, or an evaluation is there that this one cannot be compared with.
    """
    record = folder / "evaluation.json"
    everything = settings.to_dict()
    of_model = {key: everything.pop(key) for key in ("steps", "faces", "texture_size")}
    wanted = {"settings": everything, "objects": [item.name for item in objects]}
    models: dict[str, Any] = {}
    try:
        for kind in ("truth", "meshes", "views", "objects"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        if record.exists():
            there = json.loads(record.read_text(encoding="utf-8"))
            models = dict(there["models"])
            if {key: there[key] for key in wanted} != wanted:
                raise OutputError(
                    f"{folder} holds an evaluation of other objects or settings.",
                    "Give another --report folder.",
                )
        if model is not None:
            identity = {"sha256": digest, **of_model}
            if models.setdefault(model, identity) != identity:
                raise OutputError(
                    f"{folder} holds another model, or other settings of it, under the name"
                    f" '{model}'.",
                    "Give this one another --name.",
                )
        _write_json(record, {**wanted, "models": models})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{folder} cannot be used ({error}).") from error
    return Evaluation(folder, settings, objects, model, tuple(sorted(models)))


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
    tasks: list[TruthTask | MeshTask] = [
        TruthTask(item, evaluation.path("truth", item.name)) for item in evaluation.objects
    ]
    failures = _pictures(evaluation, tasks, "rendering objects", report, workers)
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
        path = evaluation.path("objects", name)
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        record = measure_object(evaluation, name, before)
        if name in failures and evaluation.model is not None:
            record["failures"][evaluation.model] = failures[name]
        if record != before:
            _write_json(path, record)
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
    if path.exists():
        return None
    try:
        mesh, seconds = generator(truth["reference"], float(truth["elevation_deg"]))
        unit = _unit(mesh)
    except Cancelled:
        raise
    except (GSV3DError, ValueError) as error:
        return f"{name}: {error}"
    _write_json(_timings_path(evaluation, name, evaluation.model), seconds)
    save_mesh(path, unit)
    return None


def measure_object(
    evaluation: Evaluation, name: str, before: dict[str, Any] | None = None
) -> dict[str, Any]:
    """All metrics of all candidates for one object.

    Args:
        evaluation: where the files are.
        name: of the object.
        before: an earlier record; candidates that had a mesh then are not measured again.
    """
    results: dict[str, Any] = dict(before["results"]) if before else {}
    failures: dict[str, str] = dict(before["failures"]) if before else {}
    missing = [
        candidate
        for candidate in evaluation.candidates
        if candidate not in results
        or (
            "faces" not in results[candidate] and evaluation.path("views", name, candidate).exists()
        )
    ]
    truth = load_arrays(evaluation.path("truth", name))
    if missing:
        rng = object_rng(evaluation.settings.seed, f"measure/{name}")
        points = metrics.sample_surface(
            truth["vertices"], truth["faces"], metrics.SURFACE_SAMPLES, rng
        )
        volume = metrics.occupancy(truth["vertices"], truth["faces"], rng)
        for candidate in missing:
            rng = object_rng(evaluation.settings.seed, f"measure/{name}/{candidate}")
            results[candidate] = _measure(evaluation, name, candidate, truth, points, volume, rng)
            if "faces" in results[candidate]:
                failures.pop(candidate, None)
    record: dict[str, Any] = {
        "name": name,
        "elevation_deg": round(float(truth["elevation_deg"]), 3),
        "yaw_deg": round(float(truth["yaw_deg"]), 3),
        "light": str(truth["light"]),
        "failures": failures,
        "seconds": {},
        "results": results,
    }
    for model in evaluation.models:
        timings = _timings_path(evaluation, name, model)
        if timings.exists():
            record["seconds"][model] = json.loads(timings.read_text(encoding="utf-8"))["total"]
    return record


def _measure(
    evaluation: Evaluation,
    name: str,
    candidate: str,
    truth: dict[str, np.ndarray],
    points: np.ndarray,
    volume: np.ndarray,
    rng: np.random.Generator,
) -> dict[str, Any]:
    path = evaluation.path("views", name, candidate)
    found = path.exists()
    views = load_arrays(path)["views"] if found else np.zeros_like(truth["views"])
    pairs = list(zip(views, truth["views"], strict=True))
    white = metrics.on_white
    values: dict[str, Any] = {
        "mask_iou": np.mean([metrics.mask_iou(_mask(a), _mask(b)) for a, b in pairs]),
        "psnr": np.mean([metrics.psnr(white(a), white(b)) for a, b in pairs]),
        "f_score_02": 0.0,
        "f_score_05": 0.0,
        "chamfer": None,
        "volume_iou": 0.0,
    }
    if found:
        mesh = load_mesh(evaluation.path("meshes", name, candidate))
        samples = metrics.sample_surface(mesh.vertices, mesh.faces, metrics.SURFACE_SAMPLES, rng)
        distance = metrics.surface_distance(samples, points)
        inside = metrics.occupancy(mesh.vertices, mesh.faces, rng)
        values |= {
            "f_score_02": distance.f_score(0.02),
            "f_score_05": distance.f_score(0.05),
            "chamfer": distance.chamfer,
            "volume_iou": metrics.volume_iou(inside, volume),
            "faces": len(mesh.faces),
        }
    return {k: v if v is None else round(float(v), 5) for k, v in values.items()}


def _timings_path(evaluation: Evaluation, name: str, model: str) -> Path:
    return evaluation.path("meshes", name, model).with_suffix(".timings.json")


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

# SPDX-License-Identifier: Apache-2.0
"""Measure a candidate's answer to a case, from the files of an evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from gsv3d.lab.datasets.orbits import object_rng
from gsv3d.lab.evaluation import image_metrics, shape_metrics
from gsv3d.lab.evaluation.image_metrics import Views
from gsv3d.lab.evaluation.protocol import list_unseen_views
from gsv3d.lab.evaluation.shape_metrics import Surface, SurfaceSamples
from gsv3d.lab.evaluation.store import load_arrays, load_mesh, read_json, write_json
from gsv3d.lab.rasterizing import surfaces

POINT_COUNTS = {"": shape_metrics.SURFACE_SAMPLES, "_4096": shape_metrics.FEW_SAMPLES}
"""Suffix of a surface metric's name, and the points it is measured by."""

PICTURE_METRICS = ("psnr", "ssim", "mse", "mask_iou")
"""Metrics of every compared view."""

FORMAT = 2
"""Version of a record's columns; a record of another is measured again. In the first, P2S without a
suffix was of 4,096 points."""

ICP_MARGIN = 8
"""Voxels around the cube, which a mesh that was moved may stand out of."""


@dataclass(frozen=True)
class MeasureTask:
    """Measure one candidate for one case.

    Attributes:
        name: name of the case.
        elevation_deg: elevation of its reference view.
        seed: seed of the evaluation.
        size: size of the unseen views in pixels.
        key: key of the run.
        truth: the true object's arrays.
        mesh, views: mesh and views of the candidate; None counts as an empty result.
        generated: the other arrays of a model's answer; None if there are none.
        orbit: the true object's orbit that generated views are compared with; None for none.
        output: file of the numbers.
    """

    name: str
    elevation_deg: float
    seed: int
    size: int
    key: str
    truth: Path
    mesh: Path | None
    views: Path | None
    generated: Path | None
    orbit: Path | None
    output: Path


def make_measurer() -> Callable[[MeasureTask], None]:
    """Return what a worker process does with its tasks."""
    return lambda task: write_json(task.output, measure(task))


def measure(task: MeasureTask) -> dict[str, Any]:
    """Measure all numbers: means over views, and every view's own under ``per_view``.

    See ``docs/evaluation.md`` for what each is. Without a mesh the result counts as an empty
    picture, and for distances between surfaces as one point at the object's center.
    """
    truth = load_arrays(task.truth)
    true_views = Views.of_rgba(truth["views"])
    views = (
        Views(np.ones_like(true_views.color), np.zeros_like(true_views.mask))
        if task.views is None
        else Views.of_rgba(load_arrays(task.views)["views"])
    )
    azimuths, elevations = list_unseen_views(task.elevation_deg)
    per_view = {"mesh": _score_views(views, true_views, azimuths, elevations)}
    values = _average_scores("", per_view["mesh"])
    values |= _measure_mesh(task)
    if task.generated is not None:
        generated = load_arrays(task.generated)
        if "gaussian_views" in generated:
            own = read_views(generated, "gaussian_views", task.size)
            per_view["gaussians"] = _score_views(own, true_views, azimuths, elevations)
            values |= _average_scores("gaussian_", per_view["gaussians"])
        if task.orbit is not None and "frames" in generated:
            around = _compare_frames(task, generated, load_arrays(task.orbit))
            values |= around.pop("values")
            per_view |= around
        values |= _compare_halves(task, generated)
    rounded = {k: None if v is None else round(float(v), 6) for k, v in values.items()}
    return {
        "format": FORMAT,
        "case": task.name,
        "run": task.key,
        "values": rounded,
        "per_view": per_view,
    }


def read_measures(path: Path) -> dict[str, Any] | None:
    """Read what ``measure`` gave; None for what is not there or is of another format.

    Raises:
        DataError: it is damaged.
    """
    record = read_json(path) if path.exists() else None
    return record if isinstance(record, dict) and record.get("format") == FORMAT else None


def read_views(arrays: dict[str, np.ndarray], name: str, size: int) -> Views:
    """Return pictures of an answer's arrays, such as "frames", brought to a size in pixels."""
    return Views.resized(arrays[name], arrays[f"{name}_mask"], size)


def _score_views(
    views: Views, true: Views, azimuths: list[float], elevations: list[float]
) -> dict[str, list[float]]:
    scores = image_metrics.compare_views(views, true)
    rows = {"azimuth_deg": azimuths, "elevation_deg": elevations}
    for name in PICTURE_METRICS:
        rows[name] = [round(float(v), 5) for v in getattr(scores, name)]
    return rows


def _average_scores(prefix: str, rows: dict[str, list[float]]) -> dict[str, float]:
    return {f"{prefix}{name}": float(np.mean(rows[name])) for name in PICTURE_METRICS}


def _compare_frames(
    task: MeasureTask, generated: dict[str, np.ndarray], orbit: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Compare generated views, and Gaussians at their cameras, with the true orbit.

    The last frame is the reference, which the model was given: it is left out.
    """
    true = Views.of_rgba(orbit["views"])[:-1]
    azimuths = [float(a) for a in orbit["azimuths_deg"]][:-1]
    elevations = [task.elevation_deg] * len(azimuths)
    frames = read_views(generated, "frames", task.size)[:-1]
    found = {"frames": _score_views(frames, true, azimuths, elevations)}
    values = _average_scores("frame_", found["frames"])
    if "gaussian_frames" in generated:
        drawn = read_views(generated, "gaussian_frames", task.size)[:-1]
        found["gaussian_frames"] = _score_views(drawn, true, azimuths, elevations)
        # Against the model's own views: how far these agree on one object.
        values |= _score_agreement("render", drawn, frames)
    return {"values": values, **found}


def _score_agreement(prefix: str, views: Views, others: Views) -> dict[str, float]:
    scores = image_metrics.compare_views(views, others)
    return {f"{prefix}_{n}": getattr(scores, n).mean() for n in ("psnr", "ssim", "mask_iou")}


def _compare_halves(task: MeasureTask, generated: dict[str, np.ndarray]) -> dict[str, float]:
    """Compare what the even and the odd generated views make with each other."""
    values: dict[str, float] = {}
    for prefix, first, second in (("half", "half0", "half1"), ("fit", "fit0", "fit1")):
        if f"{first}_views" not in generated:
            continue
        pair = [read_views(generated, f"{name}_views", task.size) for name in (first, second)]
        values |= _score_agreement(prefix, *pair)
        centers = [generated[f"{name}_centers"] for name in (first, second)]
        values[f"{prefix}_chamfer"] = shape_metrics.surface_distance(*centers).chamfer
        if f"{first}_frames" in generated:
            frames = read_views(generated, "frames", task.size)
            count = len(frames) - 1
            cross = []
            for name, others in ((first, slice(1, count, 2)), (second, slice(0, count, 2))):
                drawn = read_views(generated, f"{name}_frames", task.size)
                cross.append(image_metrics.compare_views(drawn[others], frames[others]).psnr)
            values[f"{prefix}_cross_psnr"] = np.concatenate(cross).mean()
    return values


@lru_cache(maxsize=1)
def _read_true_shape(
    truth: Path, seed: int, name: str
) -> tuple[SurfaceSamples, np.ndarray, Surface]:
    """Return points, voxels and surface of a case's object: the same for every candidate."""
    arrays = load_arrays(truth)
    rng = object_rng(seed, f"measure/{name}")
    samples = surfaces.sample_surface_with_normals(
        arrays["vertices"], arrays["faces"], shape_metrics.SURFACE_SAMPLES, rng
    )
    volume = surfaces.occupancy(arrays["vertices"], arrays["faces"], rng)
    return samples, volume, Surface(arrays["vertices"], arrays["faces"])


def _measure_mesh(task: MeasureTask) -> dict[str, float | None]:
    samples, volume, surface = _read_true_shape(task.truth, task.seed, task.name)
    if task.mesh is None:
        return _measure_nothing(samples)
    mesh = load_mesh(task.mesh)
    rng = object_rng(task.seed, f"measure/{task.name}/{task.key}")
    own = surfaces.sample_surface_with_normals(
        mesh.vertices, mesh.faces, shape_metrics.SURFACE_SAMPLES, rng
    )
    few = shape_metrics.FEW_SAMPLES
    rotation, translation = shape_metrics.icp(own.points[:few], samples.points[:few])
    moved_own = own.moved(rotation, translation)
    values: dict[str, float | None] = {}
    for result, alignment in ((own, ""), (moved_own, "_icp")):
        to_surface = surface.distances(result.points)
        for suffix, count in POINT_COUNTS.items():
            true = _take_first(samples, count)
            values |= _compare_surfaces(_take_first(result, count), true, f"{suffix}{alignment}")
            values[f"p2s{suffix}{alignment}"] = float(to_surface[:count].mean())
    inside = surfaces.occupancy(mesh.vertices, mesh.faces, rng)
    moved = mesh.vertices @ rotation.T + translation
    inside_moved = surfaces.occupancy(moved, mesh.faces, rng, margin=ICP_MARGIN)
    values["volume_iou"] = shape_metrics.volume_iou(inside, volume)
    values["volume_iou_icp"] = shape_metrics.volume_iou(inside_moved, np.pad(volume, ICP_MARGIN))
    values["faces"] = len(mesh.faces)
    return values


def _take_first(samples: SurfaceSamples, count: int) -> SurfaceSamples:
    return SurfaceSamples(samples.points[:count], samples.normals[:count])


def _compare_surfaces(
    result: SurfaceSamples, true: SurfaceSamples, suffix: str
) -> dict[str, float | None]:
    distance = shape_metrics.surface_distance(result, true)
    return {
        f"chamfer{suffix}": distance.chamfer,
        f"f_score_02{suffix}": distance.f_score(0.02),
        f"f_score_05{suffix}": distance.f_score(0.05),
        f"normal_consistency{suffix}": distance.normal_consistency,
    }


def _measure_nothing(samples: SurfaceSamples) -> dict[str, float | None]:
    """Return the values of a result that is not there: it hits nothing, and lies at the center."""
    point = np.zeros((1, 3))
    chamfer = shape_metrics.surface_distance(point, samples.points).chamfer
    # The center may happen to lie on the surface; P2S, which overlooks what is missing, takes the
    # way there from the surface instead.
    p2s = float(np.linalg.norm(samples.points, axis=1).mean())
    values: dict[str, float | None] = {"volume_iou": 0.0, "volume_iou_icp": 0.0, "faces": 0}
    for suffix in POINT_COUNTS:
        for alignment in ("", "_icp"):
            values |= {
                f"chamfer{suffix}{alignment}": chamfer,
                f"f_score_02{suffix}{alignment}": 0.0,
                f"f_score_05{suffix}{alignment}": 0.0,
                f"normal_consistency{suffix}{alignment}": 0.0,
                f"p2s{suffix}{alignment}": p2s,
            }
    return values

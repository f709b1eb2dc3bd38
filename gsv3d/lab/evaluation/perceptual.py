# SPDX-License-Identifier: Apache-2.0
"""Perceptual metrics of an evaluation's pictures: measured where installed, kept in files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gsv3d.lab.evaluation.image_metrics import Views
from gsv3d.lab.evaluation.measuring import read_measures
from gsv3d.lab.evaluation.network_metrics import Perceptual, frechet_distance, kernel_distance
from gsv3d.lab.evaluation.protocol import Case
from gsv3d.lab.evaluation.store import Evaluation, Run, load_arrays, save_arrays


def measure_perceptual(
    evaluation: Evaluation, installed: Perceptual, report: Callable[[str, int, int], None]
) -> None:
    """Measure what is installed for every answer, into ``perceptual/``, where it is missing."""
    if not installed.any:
        return
    (evaluation.folder / "perceptual").mkdir(exist_ok=True)
    wanted = _name_metrics(installed)
    jobs: list[tuple[Case, Run | None]] = []
    for case in evaluation.cases:
        if evaluation.path("truth", case).exists():
            measured = [
                run
                for run in evaluation.runs
                if read_measures(evaluation.path("measures", case, run)) is not None
            ]
            jobs += [(case, run) for run in (None, *measured)]
    jobs = [job for job in jobs if _is_stale(evaluation, *job, wanted)]
    for done, (case, run) in enumerate(jobs, 1):
        arrays = _measure_case(evaluation, installed, case, run)
        output = perceptual_path(evaluation, case, run)
        save_arrays(output, signature=np.array(wanted), **arrays)
        report("perceptual metrics", done, len(jobs))


def _is_stale(evaluation: Evaluation, case: Case, run: Run | None, wanted: str) -> bool:
    """Tell whether numbers are missing, older than their pictures, or of other metrics."""
    output = perceptual_path(evaluation, case, run)
    if not output.exists() or str(load_arrays(output)["signature"]) != wanted:
        return True
    if run is None:
        return False
    sources = [evaluation.path(kind, case, run) for kind in ("views", "generated")]
    made = output.stat().st_mtime_ns
    return any(path.exists() and path.stat().st_mtime_ns > made for path in sources)


def perceptual_path(evaluation: Evaluation, case: Case, run: Run | None) -> Path:
    """Return where the numbers of an answer, or of the true object (None), lie."""
    key = "truth" if run is None else run.key
    return evaluation.folder / "perceptual" / f"{case.name}--{key}.npz"


def _name_metrics(installed: Perceptual) -> str:
    """Name the metrics, and the CLIP model."""
    names = {"lpips": "lpips", "clip": f"clip {installed.clip_name}", "inception": "inception"}
    return ",".join(own for name, own in names.items() if getattr(installed, name))


def _measure_case(
    evaluation: Evaluation, installed: Perceptual, case: Case, run: Run | None
) -> dict[str, np.ndarray]:
    true = Views.of_rgba(load_arrays(evaluation.path("truth", case))["views"]).color
    if run is None:
        return {} if installed.inception is None else {"mesh_features": installed.inception(true)}
    size = evaluation.settings.size
    compared: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    views = evaluation.path("views", case, run)
    if views.exists():
        own = Views.of_rgba(load_arrays(views)["views"]).color
    else:
        own = np.ones_like(true)  # an empty picture
    compared["mesh"] = (own, true)
    generated_path = evaluation.path("generated", case, run)
    if views.exists() and generated_path.exists():
        generated = load_arrays(generated_path)
        if "gaussian_views" in generated:
            drawn = Views.resized(
                generated["gaussian_views"], generated["gaussian_views_mask"], size
            )
            compared["gaussians"] = (drawn.color, true)
        if "frames" in generated:
            orbit = evaluation.orbit_path(case, len(generated["frames"]))
            if orbit.exists():
                around = Views.of_rgba(load_arrays(orbit)["views"])[:-1]
                frames = Views.resized(generated["frames"], generated["frames_mask"], size)[:-1]
                compared["frames"] = (frames.color, around.color)
    arrays: dict[str, np.ndarray] = {}
    for what, (first, second) in compared.items():
        arrays |= {f"{what}_{k}": v for k, v in _measure_pair(installed, first, second).items()}
    return arrays


def _measure_pair(
    installed: Perceptual, first: np.ndarray, second: np.ndarray
) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    if installed.lpips is not None:
        arrays["lpips"] = installed.lpips(first, second)
    if installed.clip is not None:
        ours, true = installed.clip.embed(first), installed.clip.embed(second)
        arrays["clip_s"] = (ours * true).sum(axis=1)
        arrays["clip_iqa"] = installed.clip.quality(ours)
    if installed.inception is not None:
        arrays["features"] = installed.inception(first)
    return arrays


PREFIXES = {"mesh": "", "gaussians": "gaussian_", "frames": "frame_"}
"""Prefixes of the columns' names, by what was compared."""


def add_perceptual(evaluation: Evaluation, case: Case, run: Run, record: dict[str, Any]) -> None:
    """Enter an answer's perceptual numbers into its record, where they were measured."""
    path = perceptual_path(evaluation, case, run)
    if not path.exists():
        return
    arrays = load_arrays(path)
    for what, prefix in PREFIXES.items():
        for metric in ("lpips", "clip_s", "clip_iqa"):
            values = arrays.get(f"{what}_{metric}")
            if values is not None:
                record["values"][f"{prefix}{metric}"] = float(values.mean())
                record["per_view"][what][metric] = [round(float(v), 5) for v in values]


def measure_sets(
    evaluation: Evaluation, cases: list[Case], runs: list[Run]
) -> dict[str, dict[str, float]]:
    """Return FID and 1000 x KID of each candidate's views of its mesh against the true ones.

    Over all cases and seeds of a candidate; empty where the features were not measured.
    """

    def features(run: Run | None) -> np.ndarray | None:
        found = []
        for case in cases:
            path = perceptual_path(evaluation, case, run)
            arrays = load_arrays(path) if path.exists() else {}
            if "mesh_features" not in arrays:
                return None
            found.append(arrays["mesh_features"])
        return np.concatenate(found) if found else None

    true = features(None)
    if true is None:
        return {}
    values: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(run.candidate for run in runs):
        per_seed = []
        for run in runs:
            own = features(run) if run.candidate == name else None
            if own is not None:
                per_seed.append((frechet_distance(own, true), 1000 * kernel_distance(own, true)))
        if per_seed:
            fid, kid = np.mean(per_seed, axis=0)
            values[name] = {"fid": float(fid), "kid": float(kid)}
    return values

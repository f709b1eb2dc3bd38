# SPDX-License-Identifier: Apache-2.0
"""An evaluation from the list of cases to the numbers of each, resumable at every file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np

from gsv3d.devices import choose_device
from gsv3d.errors import Cancelled, GSV3DError
from gsv3d.lab.evaluation.baselines import EMPTY, FROM_THE_PICTURE, RETRIEVAL
from gsv3d.lab.evaluation.gaussians import fit_halves, render_generated
from gsv3d.lab.evaluation.generating import ModelGenerator
from gsv3d.lab.evaluation.measuring import MeasureTask, make_measurer, read_measures
from gsv3d.lab.evaluation.pictures import Drawer, MeshTask, TruthTask
from gsv3d.lab.evaluation.protocol import Case, Framing
from gsv3d.lab.evaluation.retrieval import Retriever
from gsv3d.lab.evaluation.store import (
    Evaluation,
    Run,
    load_arrays,
    read_json,
    save_arrays,
    save_mesh,
    write_json,
)
from gsv3d.lab.processes import run_in_processes
from gsv3d.lab.rasterizing import surfaces
from gsv3d.meshing.mesh import TexturedMesh
from gsv3d.pose.symmetry import find_best_plane

Report = Callable[[str, int, int], None]
"""Called with a phase's name, the number of those done, and the number of all."""


def run_evaluation(
    evaluation: Evaluation,
    generator: ModelGenerator | None,
    report: Report,
    workers: int = 1,
    retriever: Retriever | None = None,
    fits: int = 0,
) -> dict[str, str]:
    """Make all that is missing.

    Args:
        evaluation: cases, runs and folder.
        generator: needed when the evaluation has a model.
        report: called with the progress.
        workers: processes that render and measure.
        retriever: needed when the evaluation has a library.
        fits: objects, drawn by the seed, to whose halves of views Gaussians are fitted.

    Returns:
        Why cases failed, by name. A case whose true object cannot be rendered is left out of all
        averages; one the model fails on counts as an empty result of the model.
    """
    failures = _render_truth(evaluation, generator, report, workers)
    usable = [case for case in evaluation.cases if case.name not in failures]
    for done, case in enumerate(usable, 1):
        truth = load_arrays(evaluation.path("truth", case))
        _make_baselines(evaluation, case, truth, retriever)
        for run in evaluation.model_runs:
            failure = _generate(evaluation, case, run, truth, generator)
            if failure:
                failures[case.name] = failure
        report("generating meshes", done, len(usable))
    _fit_halves(evaluation, usable, fits, report)
    failures |= _render_meshes(evaluation, usable, report, workers)
    _measure(evaluation, usable, report, workers)
    return failures


def _render_truth(
    evaluation: Evaluation, generator: ModelGenerator | None, report: Report, workers: int
) -> dict[str, str]:
    frames = None
    if generator is not None and evaluation.model is not None:
        frames = generator.frames
    tasks = [
        TruthTask(
            case,
            evaluation.path("truth", case),
            () if frames is None else ((frames, evaluation.orbit_path(case, frames)),),
        )
        for case in evaluation.cases
    ]
    failed = _draw_pictures(evaluation, tasks, "rendering objects", report, workers)
    return {tasks[index].case.name: reason for index, reason in failed.items()}


def _render_meshes(
    evaluation: Evaluation, cases: Sequence[Case], report: Report, workers: int
) -> dict[str, str]:
    answers = [
        (case, run)
        for case in cases
        for run in evaluation.runs
        if evaluation.path("meshes", case, run).exists()
    ]
    tasks = [
        MeshTask(case, evaluation.path("meshes", case, run), evaluation.path("views", case, run))
        for case, run in answers
    ]
    failures = {}
    for index, reason in _draw_pictures(
        evaluation, tasks, "rendering meshes", report, workers
    ).items():
        case, run = answers[index]
        failures[case.name] = reason
        write_json(evaluation.record_path(case, run), {"failure": reason})
    return failures


def _draw_pictures(
    evaluation: Evaluation,
    tasks: Sequence[TruthTask] | Sequence[MeshTask],
    phase: str,
    report: Report,
    workers: int,
) -> dict[int, str]:
    """Render what is missing; return why tasks failed, by their index."""
    missing = [index for index, task in enumerate(tasks) if task.missing()]
    failures = {}
    factory = partial(Drawer, evaluation.settings)
    outcomes = run_in_processes(factory, [tasks[index] for index in missing], workers)
    for done, outcome in enumerate(outcomes, 1):
        if outcome.error is not None:
            failures[missing[outcome.index]] = outcome.error
        report(phase, done, len(missing))
    return failures


def _make_baselines(
    evaluation: Evaluation,
    case: Case,
    truth: dict[str, np.ndarray],
    retriever: Retriever | None,
) -> None:
    for name in evaluation.baselines:
        path = evaluation.path("meshes", case, Run(name))
        if name == EMPTY or path.exists():
            continue
        if name == RETRIEVAL:
            if retriever is None:
                raise ValueError("an evaluation with a library needs a retriever")
            mesh = retriever(truth["reference"], case)
        else:
            mesh = FROM_THE_PICTURE[name](truth["reference"])
        save_mesh(path, normalize_mesh(mesh))


def _generate(
    evaluation: Evaluation,
    case: Case,
    run: Run,
    truth: dict[str, np.ndarray],
    generator: ModelGenerator | None,
) -> str | None:
    """Write a model's answer; return why it failed, if it did."""
    if generator is None or run.seed is None:
        raise ValueError("an evaluation of a model needs a generator")
    path, record = evaluation.path("meshes", case, run), evaluation.record_path(case, run)
    if path.exists():
        return None
    elevation = float(truth["elevation_deg"])
    try:
        plane = find_best_plane(truth["vertices"][truth["faces"]])
        generated = generator(truth["reference"], elevation, plane, run.seed)
        mesh = normalize_mesh(generated.mesh)
    except Cancelled:
        raise
    except (GSV3DError, ValueError) as error:
        write_json(record, {"failure": str(error)})
        return f"{case.name}: {error}"
    # Not in the processes that draw the rest: the model's card is here.
    rendered = render_generated(generated, Framing.of(truth), elevation, evaluation.settings.size)
    save_arrays(evaluation.path("generated", case, run), **rendered)
    pose = None if generated.pose is None else asdict(generated.pose)
    cost = {name: getattr(generated, name) for name in ("seconds", "process_mib", "card_mib")}
    write_json(record, {"pose": pose, **cost})
    # The mesh is written last: it tells that all of the answer is there.
    save_mesh(path, mesh)
    return None


def _fit_halves(evaluation: Evaluation, cases: Sequence[Case], fits: int, report: Report) -> None:
    """Add Gaussians fitted to halves of the views to answers of some objects."""
    main = [case for case in cases if case.elevation_of is None]
    rng = np.random.default_rng([evaluation.settings.seed, 82])
    chosen = [main[i] for i in rng.permutation(len(main))[:fits]]
    jobs = []
    for case in chosen:
        for run in evaluation.model_runs:
            path = evaluation.path("generated", case, run)
            if path.exists():
                with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
                    if "frames" in arrays and "fit0_views" not in arrays:
                        pose = read_json(evaluation.record_path(case, run)).get("pose")
                        jobs.append((case, path, pose))
    for done, (case, path, pose) in enumerate(jobs, 1):
        arrays, truth = load_arrays(path), load_arrays(evaluation.path("truth", case))
        elevation = float(truth["elevation_deg"])
        fitted = fit_halves(
            arrays["frames"],
            arrays["frames_mask"],
            Framing.of(truth),
            elevation,
            elevation if pose is None else pose["elevation_deg"],
            evaluation.settings.size,
            choose_device(),
        )
        save_arrays(path, **arrays, **fitted)
        report("fitting halves of the views", done, len(jobs))


def _measure(evaluation: Evaluation, cases: Sequence[Case], report: Report, workers: int) -> None:
    made = [make_measure_task(evaluation, case, run) for case in cases for run in evaluation.runs]
    tasks = [task for task in made if task is not None and is_stale(task)]
    for done, outcome in enumerate(run_in_processes(make_measurer, tasks, workers), 1):
        if outcome.error is not None:
            task = tasks[outcome.index]
            raise GSV3DError(f"{task.key} of {task.name} cannot be measured: {outcome.error}")
        report("measuring", done, len(tasks))


def make_measure_task(evaluation: Evaluation, case: Case, run: Run) -> MeasureTask | None:
    """Return what is to be measured; None where the run has not answered the case yet."""
    views, generated = evaluation.path("views", case, run), evaluation.path("generated", case, run)
    answered = views.exists()
    failed = run.candidate == EMPTY or evaluation.record_path(case, run).exists()
    if not answered and not failed:
        return None
    orbit = None
    if answered and generated.exists():
        frames = _count_frames(generated)
        orbit = None if frames is None else evaluation.orbit_path(case, frames)
    return MeasureTask(
        name=case.name,
        elevation_deg=case.plan.elevation_deg,
        seed=evaluation.settings.seed,
        size=evaluation.settings.size,
        key=run.key,
        truth=evaluation.path("truth", case),
        mesh=evaluation.path("meshes", case, run) if answered else None,
        views=views if answered else None,
        generated=generated if answered and generated.exists() else None,
        orbit=orbit if orbit is not None and orbit.exists() else None,
        output=evaluation.path("measures", case, run),
    )


def _count_frames(generated: Any) -> int | None:
    with open(generated, "rb") as file, np.load(file, allow_pickle=False) as arrays:
        return len(arrays["frames_mask"]) if "frames_mask" in arrays else None


def is_stale(task: MeasureTask) -> bool:
    """Tell whether numbers are missing, of another format, or older than what they are of."""
    if read_measures(task.output) is None:
        return True
    made = task.output.stat().st_mtime_ns
    sources = (task.views, task.generated, task.orbit)
    return any(path is not None and path.stat().st_mtime_ns > made for path in sources)


def normalize_mesh(mesh: TexturedMesh) -> TexturedMesh:
    """Center a mesh and scale it to extent 1 by its box; ValueError where it has none."""
    return replace(mesh, vertices=surfaces.normalized(mesh.vertices))

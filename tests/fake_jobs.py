# SPDX-License-Identifier: Apache-2.0
"""Define the jobs of the fake backend, step by step.

A script yields numbers, which are pauses in seconds, lists of results, which are sent whole before
it goes on, and messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backend.protocol import messages as m
from tests.canned_results import (
    draw_words,
    encode_glb,
    encode_ply,
    make_box,
    make_sphere,
    make_views,
)

Script = Iterator[Any]
STEPS = 6
BOX = {"left": 0.2, "top": 0.1, "right": 0.6, "bottom": 0.9}
"""Box of the object in every picture."""


class DiedError(Exception):
    """The fake backend ends as if its process had been killed."""


@dataclass
class Result:
    """An artifact of a job; a later `fetch` gets it if it is kept."""

    kind: type[m.Artifact]
    values: dict[str, np.ndarray]
    fields: dict[str, Any] = field(default_factory=dict)
    kept: bool = True


def write_script(submit: m.JobMessage, behavior: str, step_s: float, gaussians: int) -> Script:
    """Return the script of a job.

    Args:
        submit: the message that began it.
        behavior: one of `fake_backend.BEHAVIORS`.
        step_s: seconds of a denoising step.
        gaussians: how many Gaussians the final cloud has.
    """
    if isinstance(submit, m.Imagine):
        return _imagine(submit, behavior, step_s)
    if isinstance(submit, m.Cutout):
        return _cut_out(submit, step_s)
    return _generate(submit, behavior, step_s, gaussians)


def resend(job: str, results: Iterable[Result]) -> Script:
    """Return the script that sends a job's results once more."""
    for result in results:
        yield [result]
    yield m.Done(job, {})


def _make_file(name: str, data: bytes, **fields: Any) -> list[Result]:
    return [Result(m.File, {"data": np.frombuffer(data, "u1")}, {"name": name, **fields})]


def _generate(submit: m.Submit, behavior: str, step_s: float, gaussians: int) -> Script:
    job = submit.job
    yield m.Progress(job, "preparing", 0, 1, None, 0.0)
    for step in range(1, STEPS + 1):
        yield step_s
        eta = (STEPS - step) * step_s
        yield m.Progress(job, "denoising", step, STEPS, eta, 0.8 * step / STEPS)
        if step == 2 and behavior == "backend_dies":
            raise DiedError
        if step == 2 and behavior == "worker_dies":
            yield m.Failed(
                job, "The generation ended unexpectedly.", "The worker process ended.",
                "Try again with a smaller face budget; the log file says more.",
            )  # fmt: skip
            return
        if step == 2 and behavior == "fails" and "bad" in submit.filename.lower():
            yield m.Failed(
                job, f"{submit.filename} shows no object.", "The picture is empty.",
                "Use a picture of one object.",
            )  # fmt: skip
            return
        if step in (2, 4) and submit.previews:
            told = {"step": step, "of": STEPS, "box": BOX}
            yield [
                Result(m.Gaussians, make_sphere(100 * step, step), told, kept=False),
                Result(m.Views, make_views(), kept=False),
            ]
    final = make_sphere(gaussians, submit.seed)
    mesh = make_box()
    if behavior == "nan":
        final["means"][3, 1] = np.nan
        mesh["vertices"][0, 0] = np.inf
    told = {"step": STEPS, "of": STEPS, "final": True, "box": BOX}
    yield [Result(m.Views, make_views(), {"final": True}), Result(m.Gaussians, final, told)]
    for phase in ("decoding", "fusing", "simplifying", "unwrapping", "texturing"):
        yield step_s / 4
        yield m.Progress(job, phase, 1, 1, step_s, 0.9)
    results = [Result(m.Mesh, mesh, {"box": BOX})]
    for name in submit.files:
        results += _make_file(name, encode_glb() if name == "glb" else encode_ply(final))
    yield results
    yield m.Done(job, {"denoising": STEPS * step_s})


def _imagine(imagine: m.Imagine, behavior: str, step_s: float) -> Script:
    job = imagine.job
    if not imagine.text_model and behavior == "no_text_model":
        yield m.Failed(job, "There is no text-to-image model.", "", "Add one.")
        return
    for step in range(STEPS + 1):
        yield m.Progress(job, "imagining", step, STEPS, None, 0.9 * step / STEPS)
        yield step_s
    yield m.Progress(job, "cutting", 1, 1, 0.0, 1.0)
    yield _make_file("png", draw_words(imagine.prompt, imagine.seed))
    yield m.Done(job, {"imagining": STEPS * step_s})


def _cut_out(cutout: m.Cutout, step_s: float) -> Script:
    yield m.Progress(cutout.job, "cutting", 0, 1, None, 0.0)
    yield step_s
    yield _make_file("png", draw_words("cutout", 0), certainty=0.5)
    yield m.Done(cutout.job, {"cutting": step_s})

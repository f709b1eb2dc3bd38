# SPDX-License-Identifier: GPL-3.0-or-later
"""States, words and the book of jobs."""

from __future__ import annotations

import math

import pytest

from blender_addon.jobs import PHASES, Job, JobBook, JobState, eta_text, phase_words, pose_words
from blender_addon.requests import Request, Target


@pytest.mark.parametrize(
    ("pose", "words"),
    [
        ({}, ""),  # of an older backend
        ({"elevation": 23.4, "plane_score": 0.2}, "Seen from 23°, not mirrored"),
        ({"elevation": -3.0, "plane": 44.6}, "Seen from -3°, mirrored at 45°"),
    ],
)
def test_what_the_backend_took_the_camera_for(pose: dict[str, float], words: str) -> None:
    assert pose_words(pose) == words


def make_job(name: str = "barrel", batch: str = "", slot: int = 0) -> Job:
    return Job(Request(b"x", f"{name}.png"), Target(name, batch=batch, slot=slot))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "about 1 s left"),
        (12.4, "about 12 s left"),
        (47.0, "about 45 s left"),
        (180.0, "about 3 min left"),
        (2 * 3600.0, "about 2.0 h left"),
        (math.nan, "no estimate yet"),
    ],
)
def test_eta_in_words(seconds: float, words: str) -> None:
    assert eta_text(seconds) == words


def test_the_bar_never_goes_back_and_covers_all_phases() -> None:
    assert sum(share for _, _, share in PHASES) == pytest.approx(1.0)
    job, seen = make_job(), []
    for phase, _, _ in PHASES:
        for step in range(4):
            job.progress(phase, step, 3, None)
            seen.append(job.fraction)
    job.progress("denoising", 0, 3, None)
    seen.append(job.fraction)
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1.0)


def test_progress_in_words() -> None:
    job = make_job()
    assert job.describe() == "waiting for the backend"
    job.progress("denoising", 7, 20, 12.0)
    assert job.state is JobState.RUNNING
    assert job.describe() == "Making views 7/20, about 12 s left"
    assert phase_words("polishing") == "Polishing"  # of a newer backend


def test_a_late_progress_does_not_undo_a_cancel() -> None:
    job = make_job()
    job.state = JobState.CANCELLING
    job.progress("denoising", 7, 20, 12.0)
    assert job.state is JobState.CANCELLING


def test_the_book_knows_what_runs_and_sums_up_a_batch() -> None:
    book = JobBook()
    jobs = [book.add(make_job(str(i), "b", 3 - i)) for i in range(4)]
    assert [j.target.slot for j in book.of_batch("b")] == [0, 1, 2, 3]
    jobs[0].state, jobs[1].state = JobState.DONE, JobState.FAILED
    jobs[3].progress("denoising", 1, 2, None)
    assert book.current() is jobs[3]
    assert book.batch_summary("b") == "1 of 4 done, 1 failed"
    assert book.finished() == [jobs[0], jobs[1]]
    assert book.active() == [jobs[2], jobs[3]]
    assert book.in_order() == [jobs[3], jobs[2], jobs[1], jobs[0]]
    assert book.of_batch("") == []


def test_results_that_wait_for_their_artist_are_not_forgotten() -> None:
    book = JobBook()
    job = book.add(make_job())
    job.state, job.detached = JobState.ARRIVED, True
    assert book.finished() == []
    assert "Import" in job.describe()

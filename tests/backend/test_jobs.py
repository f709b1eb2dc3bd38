# SPDX-License-Identifier: Apache-2.0
"""The queue without a server: its order, its bounds, and what a restart finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backend.jobs import MAX_WAITING, Jobs, QueueFullError
from backend.journal import Journal
from backend.protocol import encode
from backend.protocol import messages as m
from backend.protocol.limits import LABEL_CHARS, QUEUE_ENTRIES
from backend.store import Store

Open = Callable[[], Jobs]
JOB = "{:032x}".format
A, B, C = "a" * 32, "b" * 32, "c" * 32
"""Clients."""


def submit_single(number: int) -> m.Submit:
    return m.Submit(JOB(number), b"x")


def submit_batch(number: int) -> m.Submit:
    return m.Submit(JOB(number), b"x", priority="batch")


@pytest.fixture
def open_jobs(tmp_path: Path) -> Iterator[Open]:
    """Open the jobs of a folder; opening them again is a restart."""
    journals: list[Journal] = []

    def open_again() -> Jobs:
        for journal in journals:
            journal.close()
        journals.append(Journal(tmp_path / "journal.sqlite"))
        return Jobs(Store(tmp_path), journals[-1])

    yield open_again
    journals[-1].close()


def test_times_of_refined_jobs_are_kept_apart(open_jobs: Open) -> None:
    """A job without a fit is not expected to take as long as one with it, nor the reverse."""
    jobs = open_jobs()

    def run(number: int, **settings: bool) -> float | None:
        """Denoise for 10 s, fit for 100 s where asked, fuse for 10 s; return the first ETA."""
        job = jobs.submit(m.Submit(JOB(number), b"x", steps=1, **settings))
        jobs.start(job, 0.0)
        first = jobs.report(job, "denoising", 0, 1, 0.0).eta_s
        now = 10.0
        for phase, seconds in (("fitting", 100.0), ("fusing", 10.0)):
            if phase == "fusing" or settings:
                jobs.report(job, phase, 0, 1, now)
                now += seconds
        for phase in ("preparing", "loading", "decoding", "simplifying", "unwrapping", "texturing"):
            jobs.report(job, phase, 0, 1, now)
        jobs.done(job, {}, now)
        return first

    assert run(0) is None and run(1, refine=True) is None  # nothing was measured yet
    assert run(2) == pytest.approx(20.0)
    assert run(3, refine=True) == pytest.approx(120.0)
    assert run(4) == pytest.approx(20.0)


def test_times_are_written_to_the_disk_together(open_jobs: Open) -> None:
    """The loop waits for the disk once and not for each phase."""
    jobs, statements = open_jobs(), []
    jobs.journal._database.set_trace_callback(statements.append)
    jobs.journal.save_speeds("a", {"loading": 1.0, "denoising": 2.0})
    assert statements[0] == "BEGIN" and statements[-1] == "COMMIT" and len(statements) == 4
    assert jobs.journal.speeds("a") == {"loading": 1.0, "denoising": 2.0}


def test_a_waiting_job_changes_its_place(open_jobs: Open) -> None:
    jobs = open_jobs()
    for number in range(5):
        jobs.submit(submit_single(number))
    jobs.start(jobs.waiting()[0], 0.0)
    jobs.move(jobs.get(JOB(4)), 0)
    jobs.move(jobs.get(JOB(1)), 2)
    jobs.move(jobs.get(JOB(2)), 99)
    order = [JOB(n) for n in (4, 1, 3, 2)]
    assert [job.id for job in jobs.waiting()] == order
    assert [e.job for e in jobs.entries()] == [JOB(0), *order]
    assert [e.position for e in jobs.entries()] == [0, 1, 2, 3, 4]
    jobs.cancel(jobs.running[0])
    jobs = open_jobs()
    assert [job.id for job in jobs.waiting()] == order, "the journal has it too"
    jobs.submit(submit_single(9))
    assert [job.id for job in jobs.waiting()] == [*order, JOB(9)]
    jobs.retry(jobs.get(JOB(0)))
    assert [job.id for job in jobs.waiting()] == [*order, JOB(9), JOB(0)]


def test_clients_take_turns(open_jobs: Open) -> None:
    jobs = open_jobs()
    for number in range(5):
        jobs.submit(submit_single(number), A)
    for number in (5, 6):
        jobs.submit(submit_single(number), B)
    jobs.submit(submit_single(7))
    done = []
    while jobs.waiting():
        job = jobs.waiting()[0]
        done.append(int(job.id, 16))
        jobs.start(job, 0.0)
        first = next(iter(jobs.waiting()), None)
        assert first is None or jobs.position(first) == 1
        jobs.done(job, {}, 1.0)
    assert done == [0, 5, 7, 1, 6, 2, 3, 4]


def test_single_jobs_come_before_batches(open_jobs: Open) -> None:
    def order() -> list[int]:
        return [int(job.id, 16) for job in jobs.waiting()]

    jobs = open_jobs()
    for number in range(4):
        jobs.submit(submit_batch(number), A)
    jobs.start(jobs.waiting()[0], 0.0)
    for number in (4, 5):
        jobs.submit(submit_single(number), A)
    assert order() == [4, 5, 1, 2, 3]
    jobs.submit(submit_batch(6), B)
    jobs.submit(m.Cutout(JOB(7), b"x"), C)
    assert order() == [7, 4, 5, 6, 1, 2, 3], "of all clients"
    jobs.cancel(jobs.get(JOB(7)))
    jobs.move(jobs.get(JOB(3)), 0)
    assert order() == [6, 3, 4, 5, 1, 2], "no job overtakes one of its own client"
    jobs.move(jobs.get(JOB(3)), 99)
    jobs.cancel(jobs.get(JOB(4)))
    jobs.retry(jobs.get(JOB(4)))
    jobs.cancel(jobs.running[0])
    jobs = open_jobs()
    assert order() == [5, 4, 6, 1, 2, 3], "the journal has it too"


def test_a_batch_leaves_places_to_single_jobs(
    open_jobs: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.jobs.MAX_WAITING_EACH", 3)
    monkeypatch.setattr("backend.jobs.FOR_SINGLE_JOBS", 1)
    jobs = open_jobs()
    for number in range(2):
        jobs.submit(submit_batch(number), A)
    with pytest.raises(QueueFullError, match="2 jobs wait"):
        jobs.submit(submit_batch(2), A)
    jobs.submit(submit_single(3), A)
    with pytest.raises(QueueFullError, match="3 jobs wait"):
        jobs.submit(submit_single(4), A)


def test_the_queue_is_bounded_and_one_client_cannot_fill_it(
    open_jobs: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.jobs.MAX_WAITING", 5)
    monkeypatch.setattr("backend.jobs.MAX_WAITING_EACH", 3)
    jobs = open_jobs()
    for number in range(3):
        jobs.submit(submit_single(number), A)
    with pytest.raises(QueueFullError, match="3 jobs wait"):
        jobs.submit(submit_single(3), A)
    for number in (4, 5):
        jobs.submit(submit_single(number), B)
    with pytest.raises(QueueFullError, match="5 jobs wait.*cancel some"):
        jobs.submit(submit_single(6), B)
    assert not jobs.store.folder(JOB(6)).exists()


@pytest.mark.parametrize("letter", ["x", "椅", "🪑"])
def test_the_longest_list_fits_into_a_message(open_jobs: Open, letter: str) -> None:
    jobs = open_jobs()
    for number in range(QUEUE_ENTRIES + 10):
        name = letter * LABEL_CHARS
        job = jobs.submit(m.Submit(JOB(number), b"x", name, steps=200, plane=-359.99))
        if number % 2:
            jobs.fail(job, letter * 300, "", "")
        elif number > 20:
            jobs.cancel(job)
    entries = jobs.entries()
    assert len(entries) == QUEUE_ENTRIES and entries[-1].job == JOB(QUEUE_ENTRIES + 9)
    assert entries[0].state == "accepted", "what waits is never left out"
    encode(m.Queue(entries), 1)


def test_a_list_of_more_jobs_than_fit_leaves_out_those_that_come_last(
    open_jobs: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster of many cards runs so many jobs while the queue is full."""
    monkeypatch.setattr("backend.jobs.MAX_WAITING_EACH", MAX_WAITING)
    jobs = open_jobs()
    running = QUEUE_ENTRIES - MAX_WAITING + 5
    for number in range(QUEUE_ENTRIES + 5):
        job = jobs.submit(submit_single(number))
        if number < running:
            jobs.start(job, 0.0)
    entries = m.Queue(jobs.entries()).jobs
    assert [e.job for e in entries] == [JOB(number) for number in range(QUEUE_ENTRIES)]


def test_a_job_that_waited_long_is_not_the_first_to_be_forgotten(
    open_jobs: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.jobs.KEEP_ENDED", 3)
    clock = [1_000_000.0]
    monkeypatch.setattr("backend.jobs.time.monotonic", lambda: clock[0])

    def end(number: int) -> None:
        clock[0] += 1.0
        jobs.fail(jobs.get(JOB(number)), "What.", "", "")

    jobs = open_jobs()
    for number in range(6):
        jobs.submit(submit_single(number))
    for number in (1, 2, 3, 0):
        end(number)
    assert [e.job for e in jobs.entries()] == [JOB(n) for n in (0, 2, 3, 4, 5)]
    monkeypatch.setattr("backend.jobs.QUEUE_ENTRIES", 4)
    assert [e.job for e in jobs.entries()] == [JOB(n) for n in (0, 3, 4, 5)]

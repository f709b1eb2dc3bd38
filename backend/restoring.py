# SPDX-License-Identifier: Apache-2.0
"""Restore the jobs of earlier runs from the journal and from their folders."""

from __future__ import annotations

import logging
from dataclasses import replace

from .job import Job, StoredArtifact
from .journal import JobRecord, Journal, from_bytes
from .protocol.entries import OWNERS
from .protocol.limits import LABEL_CHARS
from .store import Store

log = logging.getLogger(__name__)


def restore_jobs(store: Store, journal: Journal) -> dict[str, Job]:
    """Return the jobs of the journal, then those of folders alone, which are journaled again.

    What cannot be read is taken out of the journal, or put aside.
    """
    records, unreadable = journal.jobs()
    jobs = {}
    for record in records:
        try:
            jobs[record.job] = restored(record)
        except ValueError as error:
            log.error("the journal's row of job %s cannot be used: %s", record.job, error)
            unreadable.append(record.job)
    for name in unreadable:
        journal.remove(name)
    strays = []
    for name in store.strays(jobs):
        try:
            strays.append(restored(from_bytes(store.load_record(name))))
            if strays[-1].id != name:
                raise ValueError(f"its record is that of job {strays.pop().id}")
        except (OSError, ValueError) as error:
            log.error("job %s: %s", name, error)
            store.put_aside(store.jobs_dir / name)
    for job in sorted(strays, key=lambda job: job.record.number):
        job.record = replace(job.record, number=journal.add(job.record).number)
        journal.update(job.record)
        jobs[job.id] = job
        log.warning("job %s (%s) was not in the journal and is again", job.id, job.record.state)
    return jobs


def restored(record: JobRecord) -> Job:
    """Return a job of an earlier run of the backend, without results that are not understood.

    Raises:
        ValueError: clients cannot be told of it.
    """
    job = Job(record)
    try:
        job.entry(0, LABEL_CHARS, OWNERS[-1])
    except Exception as error:  # a value of another version may be anything
        raise ValueError(f"it cannot be listed: {error!r}") from error
    if record.state not in ("done", "fetched"):
        return job
    try:
        job.artifacts = [StoredArtifact(**values) for values in record.outcome["artifacts"]]
        for artifact in job.artifacts:
            artifact.check(job.id)
    except Exception as error:
        log.error("the results of job %s cannot be found again: %r", job.id, error)
        job.artifacts = []
    return job

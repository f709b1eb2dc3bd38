# SPDX-License-Identifier: Apache-2.0
"""Restore the jobs of earlier runs from the journal and from their folders."""

from __future__ import annotations

import logging
from dataclasses import replace

from .job import Job, StoredArtifact
from .journal import JobRecord, Journal, from_bytes
from .store import Store

log = logging.getLogger(__name__)


def restore_jobs(store: Store, journal: Journal) -> dict[str, Job]:
    """Return the jobs of the journal, then those of folders alone, which are journaled again.

    What cannot be read is taken out of the journal, or put aside.
    """
    records, unreadable = journal.jobs()
    for job in unreadable:
        journal.remove(job)
    jobs = {record.job: restored(record) for record in records}
    strays = []
    for name in store.strays(jobs):
        try:
            strays.append(from_bytes(store.load_record(name)))
            if strays[-1].job != name:
                raise ValueError("the record is another job's")
        except (OSError, ValueError) as error:
            log.error("job %s: %s", name, error)
            store.put_aside(store.folder(name))
    for record in sorted(strays, key=lambda r: r.number):
        if record.job in jobs:
            continue
        again = replace(record, number=journal.add(record).number)
        journal.update(again)
        jobs[again.job] = restored(again)
        log.warning("job %s (%s) was not in the journal and is again", again.job, again.state)
    return jobs


def restored(record: JobRecord) -> Job:
    """Return a job of an earlier run of the backend."""
    stored = record.outcome.get("artifacts", []) if record.state in ("done", "fetched") else []
    try:
        return Job(record, [StoredArtifact(**values) for values in stored])
    except TypeError as error:  # damaged
        log.error("the results of job %s cannot be found again: %s", record.job, error)
        return Job(record)

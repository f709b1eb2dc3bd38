# SPDX-License-Identifier: Apache-2.0
"""The queue and the one state machine of a job. Knows no socket and no process.

accepted → running → done → fetched, or failed, or cancelled. Every change is journalled. A job that
was running when the backend died is done once more from the beginning; if the backend dies over it
a second time, the job has failed. A job stopped by an orderly end of the backend simply waits.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from .errors import BackendError, StorageError
from .estimator import IMAGINE_PHASES, PHASES, Estimator
from .journal import JobRecord, Journal
from .protocol import messages as m
from .protocol.fields import to_map
from .protocol.limits import QUEUE_ENTRIES
from .store import Store

log = logging.getLogger(__name__)

#: Jobs that may wait; more are refused with a sentence.
MAX_WAITING = 200
#: Times a job is begun before it counts as the reason why the backend dies.
MAX_ATTEMPTS = 2
#: Ended jobs kept in the journal, and days after which results nobody fetched are deleted.
KEEP_ENDED = 200
KEEP_DAYS = 30.0


@dataclass(frozen=True)
class StoredArtefact:
    """An artefact in a file of the job's folder: its kind, its announcement's fields, its name."""

    kind: str
    fields: dict[str, Any]
    file: str

    @property
    def replaceable(self) -> bool:
        """True for coarse views and Gaussians: a newer one takes their place."""
        return self.kind in ("views", "gaussians") and not self.fields.get("final")


@dataclass(eq=False)
class Job:
    """A job in memory: its record, and what is known of the run under way."""

    record: JobRecord
    artefacts: list[StoredArtefact] = field(default_factory=list)
    progress: m.Progress | None = None
    estimator: Estimator | None = None

    @property
    def id(self) -> str:
        return self.record.job

    @property
    def name(self) -> str:
        """What to call it in a sentence."""
        return self.record.filename or f"the picture of job {self.id[:8]}"


class QueueFullError(BackendError):
    """Too many jobs wait."""


class Jobs:
    """All jobs, oldest first."""

    def __init__(self, store: Store, journal: Journal) -> None:
        self.store = store
        self.journal = journal
        self.running: Job | None = None
        self._jobs: dict[str, Job] = {}
        for record in journal.jobs():
            job = Job(record)
            if record.state == "done":
                stored = record.outcome.get("artefacts", [])
                job.artefacts = [StoredArtefact(**values) for values in stored]
            self._jobs[job.id] = job
        self._recover()

    def _recover(self) -> None:
        month_ago = time.time() - KEEP_DAYS * 86400
        for job in list(self._jobs.values()):
            if job.record.state == "running":
                self.store.delete_results(job.id)
                self._requeue_or_fail(job)
            elif self._has_lost_its_picture(job):
                self.fail(job, f"The picture of {job.name} is gone from the data folder.",
                          "", "Submit it again.")  # fmt: skip
            elif job.record.state == "done" and (job.record.ended or 0) < month_ago:
                self.fetched(job)
        self._forget_old()
        kept = [j.id for j in self._jobs.values() if not j.record.over or j.artefacts]
        self.store.delete_others(kept)

    def _has_lost_its_picture(self, job: Job) -> bool:
        waits = job.record.waiting and job.record.kind == "submit"
        return waits and not self.store.picture(job.id).is_file()

    def _requeue_or_fail(self, job: Job) -> None:
        if job.record.attempts >= MAX_ATTEMPTS:
            self.fail(
                job,
                f"The backend ended unexpectedly {job.record.attempts} times "
                f"while it worked on {job.name}.",
                "",
                "Try fewer faces or a smaller texture; the log file in the data folder says more.",
            )
        else:
            log.info("job %s was under way when the backend ended; it waits again", job.id)
            self._change(job, state="accepted")

    # --- reading ---------------------------------------------------------------------------------

    def get(self, job: str) -> Job | None:
        return self._jobs.get(job)

    def waiting(self) -> Iterator[Job]:
        """The waiting jobs in the order they will be done in."""
        return (job for job in self._jobs.values() if job.record.waiting)

    def next(self) -> Job | None:
        """The job to do next, None while one is running or none waits."""
        return next(self.waiting(), None) if self.running is None else None

    def position(self, job: Job) -> int:
        """Jobs that come before a job: 0 when it is running, next or over."""
        if not job.record.waiting:
            return 0
        before = sum(1 for other in self.waiting() if other.record.number < job.record.number)
        return before + (self.running is not None)

    def entries(self, with_words: bool = True) -> tuple[m.JobEntry, ...]:
        """All jobs for the queue message, newest last; ended ones give way when there are many.

        Without words: only those that a client of version 1 can fetch.
        """
        jobs = [j for j in self._jobs.values() if with_words or j.record.kind == "submit"]
        over = [job for job in jobs if job.record.over]
        surplus = {job.id for job in over[: max(0, len(jobs) - QUEUE_ENTRIES)]}
        return tuple(self._entry(job) for job in jobs if job.id not in surplus)

    def _entry(self, job: Job) -> m.JobEntry:
        now = job.progress if job.record.state == "running" else None
        return m.JobEntry(
            job=job.id,
            state=job.record.state,
            filename=job.record.filename,
            model=job.record.model,
            position=self.position(job),
            phase=now.phase if now else "",
            step=now.step if now else 0,
            of=now.of if now else 0,
            eta_s=now.eta_s if now else None,
            what=str(job.record.outcome.get("what", ""))[:300],
        )

    # --- changing --------------------------------------------------------------------------------

    def submit(self, submit: m.Submit | m.Imagine) -> Job:
        """Take a new job: its picture, if it has one, on disk, its record in the journal.

        Raises:
            QueueFullError: too many wait.
            StorageError: the disk is full or cannot be written; nothing is left behind.
        """
        if sum(1 for _ in self.waiting()) >= MAX_WAITING:
            raise QueueFullError(
                f"The queue is full: {MAX_WAITING} jobs wait already.",
                "Wait until some are done, or cancel some.",
            )
        if isinstance(submit, m.Submit):
            self.store.save_picture(submit.job, submit.image)
        else:
            self.store.make_folder(submit.job)
        settings = to_map(submit) | {"kind": submit.TYPE}
        del settings["job"]
        try:
            record = self.journal.add(JobRecord(submit.job, "accepted", settings))
        except StorageError:
            self.store.delete(submit.job)
            raise
        job = self._jobs[submit.job] = Job(record)
        return job

    def start(self, job: Job, now: float) -> None:
        """A worker begins a job."""
        speeds = self.journal.speeds(job.record.model)
        phases = IMAGINE_PHASES if job.record.kind == "imagine" else PHASES
        job.estimator = Estimator(speeds, job.record.settings.get("steps"), now, phases)
        job.artefacts, job.progress = [], None
        self.running = job
        self._change(job, state="running", attempts=job.record.attempts + 1)

    def report(self, job: Job, phase: str, step: int, of: int, now: float) -> m.Progress:
        """Take a progress report of the running job; return it with its estimate."""
        eta, fraction = None, None
        if job.estimator is not None:
            eta, fraction = job.estimator.progress(phase, step, of, now)
        job.progress = m.Progress(job.id, phase, step, of, eta, fraction)
        return job.progress

    def add_artefact(self, job: Job, artefact: StoredArtefact) -> list[StoredArtefact]:
        """Add an artefact; return those it replaces, whose files may now be deleted."""
        replaced = [a for a in job.artefacts if a.replaceable and a.kind == artefact.kind]
        job.artefacts = [a for a in job.artefacts if a not in replaced] + [artefact]
        return replaced

    def done(self, job: Job, timings: dict[str, float], now: float) -> None:
        """The running job is done; its results stay on disk."""
        artefacts = [{"kind": a.kind, "fields": a.fields, "file": a.file} for a in job.artefacts]
        if job.estimator is not None:
            try:
                self.journal.save_speeds(job.record.model, job.estimator.speeds(now))
            except StorageError as error:
                log.error("speeds not kept: %s", error)
        self._end(job, "done", {"artefacts": artefacts, "timings": timings})
        self.store.picture(job.id).unlink(missing_ok=True)

    def fail(self, job: Job, what: str, why: str, hint: str) -> None:
        """The job has failed; its files are deleted."""
        log.warning("job %s failed: %s %s", job.id, what, why)
        self._end(job, "failed", {"what": what, "why": why, "hint": hint})
        self._clear(job)

    def cancel(self, job: Job) -> None:
        """The job is cancelled; its files are deleted."""
        self._end(job, "cancelled", {})
        self._clear(job)

    def fetched(self, job: Job) -> None:
        """The results are safe with the client; the backend's copy is deleted."""
        self._change(job, state="fetched", outcome={})
        self._clear(job)

    def wait_again(self, job: Job) -> None:
        """The running job is stopped because the backend ends in order; it does not count."""
        if self.running is job:
            self.running = None
        self.store.delete_results(job.id)
        self._change(job, state="accepted", attempts=max(0, job.record.attempts - 1))

    def _clear(self, job: Job) -> None:
        job.artefacts = []
        self.store.delete(job.id)

    def _end(self, job: Job, state: str, outcome: dict[str, Any]) -> None:
        if self.running is job:
            self.running = None
        job.estimator = None
        self._change(job, state=state, ended=time.time(), outcome=outcome)
        self._forget_old()

    def _change(self, job: Job, **values: Any) -> None:
        job.record = replace(job.record, **values)
        try:
            self.journal.update(job.record)
        except StorageError as error:
            # In memory the job goes on; the journal follows with its next change.
            log.error("job %s is now %s, not journalled: %s", job.id, job.record.state, error)

    def _forget_old(self) -> None:
        gone = ("fetched", "failed", "cancelled")
        old = [job for job in self._jobs.values() if job.record.state in gone]
        for job in old[: max(0, len(old) - KEEP_ENDED)]:
            del self._jobs[job.id]
            try:
                self.journal.remove(job.id)
            except StorageError as error:
                log.error("job %s not removed from the journal: %s", job.id, error)

# SPDX-License-Identifier: Apache-2.0
"""The queue, and the state machine of jobs. Knows no socket and no process.

accepted → running → done → fetched, or failed, or cancelled; a failed or cancelled job can be
accepted again. Every change is journaled. A job that was running when the backend died is done
once more from the beginning; if the backend dies over it a second time, the job has failed. A job
stopped by an orderly end of the backend simply waits. Pictures and results are kept until the job
is forgotten.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Container, Iterator
from dataclasses import replace
from typing import Any

from .errors import BackendError, StorageError
from .estimator import FITTED_PHASES, PHASES_OF, Estimator
from .job import Job, StoredArtifact, whose
from .journal import JobRecord, Journal, from_bytes, to_bytes
from .protocol import JOB_VERSIONS, PROTOCOL_VERSION
from .protocol import messages as m
from .protocol.fields import to_map
from .protocol.limits import LABEL_CHARS, QUEUE_ENTRIES
from .restoring import restore_jobs, restored
from .store import Store
from .turns import sort_by_turn

log = logging.getLogger(__name__)

#: Jobs that may wait, of all clients and of one; more are refused with a sentence.
MAX_WAITING = 200
MAX_WAITING_EACH = 160
#: Places among them that batches leave to single jobs.
FOR_SINGLE_JOBS = 40
#: Times a job is begun before it counts as the reason why the backend dies.
MAX_ATTEMPTS = 2
#: Ended jobs that are kept at most.
KEEP_ENDED = QUEUE_ENTRIES
_DAY_S = 86400.0
#: Bytes of the names and sentences in a queue message, so that it fits into a header.
_QUEUE_TEXT_BYTES = 96 * 1024
_SHORT_CHARS = 60


class QueueFullError(BackendError):
    """Too many jobs wait."""


class Jobs:
    """All jobs, oldest first.

    Args:
        store, journal: where they are kept.
        keep_days: ended jobs are forgotten after so many days, as `_now` counts them.
        keep_bytes: the oldest ended jobs are forgotten when all together take more disk space.
    """

    def __init__(
        self,
        store: Store,
        journal: Journal,
        keep_days: float = 30.0,
        keep_bytes: float = float("inf"),
    ) -> None:
        self.store = store
        self.journal = journal
        self._keep_days = keep_days
        self._keep_bytes = keep_bytes
        self.running: list[Job] = []
        self.slots = 1  # jobs that can run at the same time
        self.changes = 0  # of the list, counted
        self._begun: dict[str | None, int] = {}  # for each client when its last job was, counted
        self._jobs = restore_jobs(store, journal)
        latest = max((job.record.ended or 0.0 for job in self), default=0.0) or time.time()
        away = min(max(0.0, time.time() - latest), _DAY_S)
        self._clock = latest + away - time.monotonic()
        self._recover()

    def _recover(self) -> None:
        for job in list(self._jobs.values()):
            if job.record.state == "running" and not self._was_done(job):
                self.store.delete_results(job.id)
                self._requeue_or_fail(
                    job,
                    f"The backend ended unexpectedly {job.record.attempts} times while it worked on"
                    f" {job.name}.",
                )
        self._forget_old()
        self.tidy()

    def tidy(self) -> None:
        """Forget ended jobs that are too old, and the oldest where they take too much space.

        The time between two ends counts for a day at most, since some were noted by a clock that
        can be set.
        """
        taken, age, longest, later = 0, 0.0, math.inf, self._now()
        for job in reversed(self._ended()):
            ended = job.record.ended or 0.0
            age += min(later - ended, longest)
            later, longest = ended, _DAY_S
            taken += self.store.size(job.id)
            if age > self._keep_days * _DAY_S or taken > self._keep_bytes:
                log.info("job %s is forgotten: old, or more than the space for results", job.id)
                self.forget(job)

    def has_lost_its_picture(self, job: Job) -> bool:
        """Return True when a job cannot be done for want of its picture."""
        return job.record.kind != "imagine" and not self.store.picture(job.id).is_file()

    def _was_done(self, job: Job) -> bool:
        """Take over a job's end that its folder tells and that the journal lacks."""
        try:
            done = restored(from_bytes(self.store.load_record(job.id)))
        except (OSError, ValueError):
            return False
        record = done.record
        if record.state != "done":
            return False
        job.artifacts = done.artifacts
        self._change(job, state="done", ended=record.ended, outcome=record.outcome)
        return True

    def _requeue_or_fail(self, job: Job, what: str) -> None:
        if job.record.attempts >= MAX_ATTEMPTS:
            hint = "The logs in the backend's data folder say more."
            if job.record.kind == "submit":
                hint = f"Try fewer faces or a smaller texture. {hint}"
            self.fail(job, what, "", hint)
        else:
            log.info("job %s was under way and waits again", job.id)
            self._change(job, state="accepted")

    # --- reading ---------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs.values())

    def get(self, job: str) -> Job | None:
        return self._jobs.get(job)

    def waiting(self) -> list[Job]:
        """Return the waiting jobs in the order they will be done in."""
        return sort_by_turn((job for job in self._jobs.values() if job.record.waiting), self._begun)

    def position(self, job: Job) -> int:
        """Return how many jobs are done before a job; 0 when it is running, next or over."""
        if not job.record.waiting:
            return 0
        return self.waiting().index(job) + self._before

    @property
    def _before(self) -> int:
        """Return how many jobs must end before the first waiting one; 0 with a free worker."""
        return int(len(self.running) >= self.slots)

    def entries(
        self,
        version: int = PROTOCOL_VERSION,
        owner: str | None = None,
        connected: Container[str | None] = (),
    ) -> tuple[m.JobEntry, ...]:
        """Return the jobs for the queue message, newest last.

        When there are too many, those that ended first are left out, then those that come last.
        Names are cut short when they are long.

        Args:
            version: version of the protocol, as chosen with the client; jobs it does not know are
                left out.
            owner: the client.
            connected: the owners that are connected.
        """
        jobs = [j for j in self._jobs.values() if JOB_VERSIONS.get(j.record.kind, 0) <= version]
        listed = set(jobs)
        over = [job for job in self._ended() if job in listed]
        surplus = set(over[: max(0, len(jobs) - QUEUE_ENTRIES)])
        jobs = [job for job in jobs if job not in surplus][:QUEUE_ENTRIES]
        text = sum(len((j.record.filename + j.what).encode()) for j in jobs)
        length = _SHORT_CHARS if text > _QUEUE_TEXT_BYTES else LABEL_CHARS
        places = {job.id: place for place, job in enumerate(self.waiting(), self._before)}
        return tuple(
            job.entry(places.get(job.id, 0), length, whose(job, owner, connected)) for job in jobs
        )

    def _ended(self) -> list[Job]:
        """Return the jobs that are over, in the order they ended in."""
        over = [job for job in self._jobs.values() if job.record.over]
        return sorted(over, key=lambda job: job.record.ended or 0.0)

    # --- changing --------------------------------------------------------------------------------

    def submit(self, submit: m.JobMessage, owner: str | None = None) -> Job:
        """Take a new job: save its picture, if it has one, and journal its record.

        Args:
            submit: the message that begins it.
            owner: the client that submits it.

        Raises:
            QueueFullError: too many wait.
            StorageError: the disk is full or cannot be written; nothing is left behind.
        """
        settings = to_map(submit) | {"kind": submit.TYPE, "owner": owner}
        del settings["job"]
        record = JobRecord(submit.job, "accepted", settings)
        self._refuse_when_full(record)
        if not isinstance(submit, m.Imagine):
            self.store.save_picture(submit.job, submit.image)
        else:
            self.store.make_folder(submit.job)
        try:
            record = self.journal.add(record)
            self.store.save_record(record.job, to_bytes(record))
        except StorageError:
            self.store.delete(submit.job)
            self.journal.remove(submit.job)
            raise
        job = self._jobs[submit.job] = Job(record)
        self.changes += 1
        self._put_in_front(job)
        return job

    def _put_in_front(self, job: Job) -> None:
        """Put a new single job before the waiting batch of its client."""
        own = [other for other in self.waiting() if other.record.owner == job.record.owner]
        place = next((n for n, other in enumerate(own) if other.record.batch), len(own))
        if job.record.batch or place >= own.index(job):
            return
        try:
            self.move(job, place)
        except StorageError as error:
            log.error("job %s waits behind the batch: %s", job.id, error)

    def _refuse_when_full(self, record: JobRecord) -> None:
        owners = [job.record.owner for job in self.waiting()]
        kept = FOR_SINGLE_JOBS if record.batch else 0
        if (
            len(owners) >= MAX_WAITING - kept
            or owners.count(record.owner) >= MAX_WAITING_EACH - kept
        ):
            raise QueueFullError(
                f"The queue is full: {len(owners)} jobs wait already.",
                "Wait until some are done, or cancel some.",
            )

    def retry(self, job: Job) -> None:
        """Have a failed or cancelled job wait again, after all others but batches.

        Raises:
            QueueFullError: too many wait.
            StorageError: the journal cannot be written.
        """
        self._refuse_when_full(job.record)
        self._renumber({job.id: 1 + max(other.record.number for other in self._jobs.values())})
        self._change(job, state="accepted", attempts=0, ended=None, outcome={})
        self._save_record(job)
        self._put_in_front(job)

    def move(self, job: Job, place: int) -> None:
        """Give a waiting job another place among those of its client. Raises StorageError."""
        own = [other for other in self.waiting() if other.record.owner == job.record.owner]
        order = [other for other in own if other is not job]
        numbers = sorted(other.record.number for other in own)
        order.insert(place, job)
        self._renumber({j.id: number for j, number in zip(order, numbers, strict=True)})

    def _renumber(self, numbers: dict[str, int]) -> None:
        self.journal.renumber(numbers)
        for name, number in numbers.items():
            self._jobs[name].record = replace(self._jobs[name].record, number=number)
        self._jobs = dict(sorted(self._jobs.items(), key=lambda item: item[1].record.number))
        self.changes += 1

    def start(self, job: Job, now: float, device: str = "") -> None:
        """Note that a worker begins a job on its device."""
        speeds = self.journal.speeds(job.record.speeds_of)
        fits = job.record.settings.get("refine") or "fitting" in speeds
        phases = FITTED_PHASES if fits else PHASES_OF[job.record.kind]
        job.estimator = Estimator(speeds, job.record.settings.get("steps"), now, phases)
        job.artifacts, job.progress = [], None
        job.device = device
        self.running.append(job)
        self._begun[job.record.owner] = 1 + max(self._begun.values(), default=0)
        self._change(job, state="running", attempts=job.record.attempts + 1)

    def report(self, job: Job, phase: str, step: int, of: int, now: float) -> m.Progress:
        """Take a progress report of the running job; return it with its estimate."""
        eta, fraction = None, None
        if job.estimator is not None:
            eta, fraction = job.estimator.progress(phase, step, of, now)
        job.progress = m.Progress(job.id, phase, step, of, eta, fraction)
        return job.progress

    def add_artifact(self, job: Job, artifact: StoredArtifact) -> list[StoredArtifact]:
        """Add an artifact; return those it replaces, whose files may now be deleted."""
        replaced = [a for a in job.artifacts if a.replaceable and a.kind == artifact.kind]
        job.artifacts = [a for a in job.artifacts if a not in replaced] + [artifact]
        return replaced

    def done(self, job: Job, timings: dict[str, float], now: float) -> None:
        """End the running job as done; its results stay on disk."""
        artifacts = [{"kind": a.kind, "fields": a.fields, "file": a.file} for a in job.artifacts]
        if job.estimator is not None:
            try:
                self.journal.save_speeds(job.record.speeds_of, job.estimator.speeds(now))
            except StorageError as error:
                log.error("speeds not kept: %s", error)
        self._end(job, "done", {"artifacts": artifacts, "timings": timings})

    def fail(self, job: Job, what: str, why: str, hint: str) -> None:
        """End a job as failed; its results are deleted."""
        log.warning("job %s failed: %s %s", job.id, what, why)
        self._end(job, "failed", {"what": what, "why": why, "hint": hint})
        self._delete_results(job)

    def cancel(self, job: Job) -> None:
        """End a job as cancelled; its results are deleted."""
        self._end(job, "cancelled", {})
        self._delete_results(job)

    def fetched(self, job: Job) -> None:
        """Note that a client uses the results."""
        self._change(job, state="fetched")

    def forget(self, job: Job) -> None:
        """Delete a job that is over, and its files."""
        del self._jobs[job.id]
        self.changes += 1
        try:
            self.journal.remove(job.id)
        except StorageError as error:
            log.error("job %s not removed from the journal: %s", job.id, error)
        self.store.delete(job.id)

    def wait_again(self, job: Job) -> None:
        """Have a running job wait again because the backend ends; this is no failed attempt."""
        if job in self.running:
            self.running.remove(job)
        self.store.delete_results(job.id)
        self._change(job, state="accepted", attempts=max(0, job.record.attempts - 1))

    def lose(self, job: Job) -> None:
        """Have a job whose device is gone wait again, or fail if that was so before."""
        self.running.remove(job)
        job.progress = job.estimator = None
        self._delete_results(job)
        self._requeue_or_fail(
            job,
            f"The machine was lost {job.record.attempts} times while it worked on {job.name}.",
        )

    def _delete_results(self, job: Job) -> None:
        job.artifacts = []
        self.store.delete_results(job.id)

    def _end(self, job: Job, state: str, outcome: dict[str, Any]) -> None:
        if job in self.running:
            self.running.remove(job)
        job.estimator = None
        self._change(job, state=state, ended=self._now(), outcome=outcome)
        self._save_record(job)
        self._forget_old()

    def _now(self) -> float:
        """Return the time by a clock of our own: one that is set would make all results old.

        It goes on from the latest end of a job; the time between two runs counts for a day at most.
        """
        return self._clock + time.monotonic()

    def _save_record(self, job: Job) -> None:
        try:
            self.store.save_record(job.id, to_bytes(job.record))
        except StorageError as error:
            log.error("job %s is %s, which its folder does not say: %s", job.id,
                      job.record.state, error)  # fmt: skip

    def _change(self, job: Job, **values: Any) -> None:
        job.record = replace(job.record, **values)
        self.changes += 1
        try:
            self.journal.update(job.record)
        except StorageError as error:
            # In memory the job goes on; the journal follows with its next change.
            log.error("job %s is now %s, not journaled: %s", job.id, job.record.state, error)

    def _forget_old(self) -> None:
        """Forget the jobs that ended first; results nobody has fetched stay."""
        old = [job for job in self._ended() if job.record.state != "done"]
        for job in old[: max(0, len(old) - KEEP_ENDED)]:
            self.forget(job)

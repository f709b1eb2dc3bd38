# SPDX-License-Identifier: Apache-2.0
"""Give one worker its jobs, pass on its reports and survive its death."""

from __future__ import annotations

import logging
import time
from typing import Any

from .clients import Clients
from .job import Job, StoredArtifact
from .jobs import Jobs
from .protocol import messages as m
from .protocol.fields import to_text
from .settings import Settings
from .store import Store
from .worker_process import READY_S, Worker, explain_exit

log = logging.getLogger(__name__)

_LOGS = "The logs in the backend's data folder say more."


class Work:
    """A worker and the job it does.

    Attributes:
        job: the job under way.
        model: the model of its last job, which is loaded.
        device: its device in words, as it has told.
        memory: bytes of its device's memory, as it has told; None: not yet.
        broken: what is wrong with the process and what to do, where it does not run.
    """

    def __init__(
        self, worker: Worker, jobs: Jobs, store: Store, clients: Clients, settings: Settings
    ) -> None:
        self.worker = worker
        self.job: Job | None = None
        self.model = ""
        self.device = ""
        self.memory: int | None = None
        self.broken: tuple[str, str] | None = None
        self._jobs = jobs
        self._store = store
        self._clients = clients
        self._settings = settings
        self._deadline: float | None = None
        self._idle_since = time.monotonic()

    @property
    def free(self) -> bool:
        """Return whether it can take a job now."""
        return self.worker.ready and self.job is None

    # --- every turn ------------------------------------------------------------------------------

    def start_process(self, now: float) -> None:
        """Start the process; a failure is told to those who wait if it lasts."""
        self.model = ""
        try:
            self.worker.start(now)
        except OSError as error:
            log.error("the worker cannot be started: %s", error)
            self._break(f"The worker process cannot be started: {error}.")

    def begin(self, job: Job, now: float) -> None:
        """Give a job to the free worker."""
        self.job, self.model, self._deadline = job, job.record.model, None
        self._jobs.start(job, now, self.device)
        log.info("job %s begun on %s, attempt %d", job.id, self.device, job.record.attempts)
        self.worker.last_heard = now
        folder = str(self._store.folder(job.id).resolve())
        self.worker.send("run", job=job.id, settings=job.record.settings, folder=folder)

    def rest(self, now: float, wanted: bool) -> None:
        """End the process when it had nothing to do for long, to free its memory."""
        if self.job is not None or wanted:
            self._idle_since = now
        elif now - self._idle_since > self._settings.keep_alive_s:
            self.free_memory(now)

    def free_memory(self, now: float) -> None:
        """End the process of a worker without a job; it is started again when there is one."""
        if self.free:
            log.info("worker %s has nothing to do and is ended, to free memory", self.worker.pid)
            self.worker.ask_to_end(now)

    def watch(self, now: float) -> None:
        """Notice when the process has ended, and end it where it hangs."""
        job = self.job
        code = self.worker.reap(now, at_work=job is not None)
        if code is not None:
            self._died(explain_exit(code))
        if self.worker.late(now) and self.worker.ending:
            log.error("the worker does not end when asked to; it is ended")
            self.worker.kill()
        elif self.worker.late(now):
            log.error("the worker is not ready after %.0f s; it is ended", READY_S)
            self.worker.kill()
            self.worker.note_failure(now)
            self._break(f"The worker process was not ready after {READY_S:.0f} s.")
        job = self.job
        if job is None:
            return
        if self._deadline is not None and now > self._deadline:
            log.warning("job %s did not stop in time; its worker is ended", job.id)
            self.worker.kill()
            self._cancelled(job)
        elif now - self.worker.last_heard > self._settings.stall_s:
            log.error("the worker says nothing any more; it is ended")
            self.worker.kill()
            self._died("The worker process hung and was ended.")

    def forgive(self, seconds: float) -> None:
        """Do not count a time in which nothing was heard from the worker."""
        self.worker.last_heard += seconds
        self._idle_since += seconds
        if self._deadline is not None:
            self._deadline += seconds
        if self.job is not None and self.job.estimator is not None:
            self.job.estimator.forgive(seconds)

    def fault(self, error: Exception) -> None:
        """Fail the job under way for an error that nobody foresaw. Called while it is handled."""
        log.exception("a fault at work")
        job = self.job
        if job is not None:
            self.worker.kill()
            self._failed(job, f"The generation of {job.name} ended unexpectedly.", str(error),
                         f"This is a fault of GSV3D. {_LOGS}")  # fmt: skip

    def _died(self, why: str) -> None:
        words = self.worker.last_words
        log.error("%s Its last words: %s", why, words or "none")
        job = self.job
        if job is None:
            if self.broken is None:
                self._break(why)
        elif self._deadline is not None:
            self._cancelled(job)
        else:
            self._store.save_output(job.id, self.worker.last_lines)
            hint = "Try again."
            if job.record.kind == "submit":
                hint = "Try again; should it happen again, choose fewer faces or a smaller texture."
            what = f"The generation of {job.name} ended unexpectedly."
            self._failed(job, what, why, f"{hint} {_LOGS}")

    def _break(self, what: str) -> None:
        words = self.worker.last_words
        self.broken = (to_text(f"{what} Its last words: {words}" if words else what), _LOGS)

    # --- what the worker says --------------------------------------------------------------------

    def take(self, message: dict[str, Any], now: float) -> None:
        """Act on a message of the process."""
        kind = message["type"]
        if kind == "ready":
            self.device, self.broken = to_text(message["device"], 128), None
            self.memory = message["memory"]
            self._idle_since = now
            log.info("worker ready on %s", self.device)
        elif kind == "broken":
            self.broken = (to_text(message["what"]), to_text(message["hint"]))
            log.error("the worker cannot work: %s", message["what"])
        elif kind == "lost":
            self._lost(message["why"])
        elif kind != "models":
            job = self.job
            if job is None or job.id != message["job"]:
                return  # a late word of a job that is over
            try:
                self._report(job, message, now)
            except Exception as error:  # ends one job, not the backend
                log.exception("a report of the worker cannot be used")
                self.worker.kill()
                self._failed(job, f"The results of {job.name} cannot be used.", str(error),
                             f"This is a fault of GSV3D. {_LOGS}")  # fmt: skip

    def _report(self, job: Job, message: dict[str, Any], now: float) -> None:
        kind = message["type"]
        if kind == "progress":
            report = self._jobs.report(job, message["phase"], message["step"], message["of"], now)
            if self._deadline is None:
                for peer in self._clients.watchers(job.id):
                    peer.post(report)
        elif kind == "artifact":
            self._artifact(job, message)
        elif kind == "cancelled":
            self._cancelled(job)
        elif kind == "failed":
            self.worker.note_success()
            if message["fault"]:  # of a broken device, which would fail the next job as well
                self.worker.ask_to_end(now)
            if self._deadline is not None:
                self._cancelled(job)
            else:
                self._failed(job, message["what"], message["why"], message["hint"])
        elif kind == "done":
            self._done(job, message["timings"], now)

    def _artifact(self, job: Job, message: dict[str, Any]) -> None:
        if self._deadline is not None:
            return  # it is deleted with the others; those may still be on their way to clients
        stored = StoredArtifact(
            message["kind"], {**message["fields"], "arrays": message["arrays"]}, message["file"]
        )
        stored.check(job.id)  # once, for all clients
        path = self._store.folder(job.id) / stored.file
        if path.name != stored.file or not path.is_file():
            raise ValueError(f"there is no result file {stored.file}")
        replaced = self._jobs.add_artifact(job, stored)
        for peer in self._clients.watchers(job.id):
            self._clients.offer(peer, job, stored)
        for old in replaced:
            try:
                (path.parent / old.file).unlink(missing_ok=True)
            except OSError as error:
                log.info("%s is deleted with its job: %s", old.file, error)

    def _done(self, job: Job, timings: dict[str, float], now: float) -> None:
        self.worker.note_success()
        if self._deadline is not None:
            self._cancelled(job)
            return
        self.job = None
        done = m.Done(job.id, timings)
        self._jobs.done(job, done.timings, now)
        log.info("job %s done in %.1f s", job.id, timings.get("total", 0.0))
        for peer in self._clients.watchers(job.id):
            peer.end_job(done)

    # --- ends ------------------------------------------------------------------------------------

    def cancel(self, job: Job, now: float) -> None:
        """Ask the worker to stop the running job; it has `grace_s` to do so."""
        if self._deadline is None:
            self._deadline = now + self._settings.grace_s
            if not self.worker.send("cancel", job=job.id):
                self._deadline = now

    def _cancelled(self, job: Job) -> None:
        self.job = self._deadline = None
        self._clients.tell_end(job, m.Cancelled(job.id))
        self._jobs.cancel(job)
        log.info("job %s cancelled", job.id)

    def _failed(self, job: Job, what: str, why: str, hint: str) -> None:
        self.job = self._deadline = None
        failed = m.Failed(job.id, to_text(what), to_text(why), to_text(hint))
        self._clients.tell_end(job, failed)
        self._jobs.fail(job, failed.what, failed.why, failed.hint)

    def _lost(self, why: str) -> None:
        """End the process of a lost device, and let another worker do its job."""
        job = self.job
        log.error("the device of %s is lost: %s", job.name if job else "a worker", why)
        self.worker.kill()
        if job is None:
            return
        if self._deadline is not None:
            self._cancelled(job)
            return
        self.job = None
        self._jobs.lose(job)
        if job.record.over:
            self._clients.tell_end(job, m.Failed(job.id, **job.record.outcome))
            return
        for peer in self._clients.watchers(job.id):
            peer.stop_job(job.id)
            peer.post(m.Accepted(job.id, self._jobs.position(job)))

    def interrupt(self, patience_s: float) -> None:
        """Stop the worker because the backend ends; the job under way waits for the next start."""
        job = self.job
        self.worker.stop(patience_s)
        if job is not None and self._deadline is not None:
            self._jobs.cancel(job)
        elif job is not None:
            self._jobs.wait_again(job)

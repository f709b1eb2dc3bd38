# SPDX-License-Identifier: Apache-2.0
"""What the server does with its worker: hands out jobs, passes on reports, survives deaths."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from .jobs import Job, StoredArtefact
from .protocol import PROTOCOL_VERSION
from .protocol import messages as m
from .worker_process import READY_S, Worker, explain_exit

if TYPE_CHECKING:
    from .server import Server

log = logging.getLogger(__name__)

_LOGS = "The logs in the backend's data folder say more."


class Work:
    """The worker and the job it is at."""

    def __init__(self, server: Server, worker: Worker) -> None:
        self._server = server
        self._jobs = server.jobs
        self.worker = worker
        self.device = ""
        self.models: tuple[m.ModelEntry, ...] = ()
        self._deadline: float | None = None
        self._broken: tuple[str, str] | None = None
        self._resting = False
        self._idle_since = time.monotonic()

    # --- every turn ------------------------------------------------------------------------------

    def turn(self, now: float) -> None:
        """Start the worker where there is none, give it the next job, end it where it hangs."""
        self._watch(now)
        self._rest(now)
        if not self._resting and self.worker.may_start(now):
            try:
                self.worker.start(now)
            except OSError as error:
                log.error("the worker cannot be started: %s", error)
                self._broken = (f"The worker process cannot be started: {error}.", _LOGS)
        if self.worker.given_up:
            self._give_up()
        job = self._jobs.next()
        if job is not None and self.worker.ready:
            self._jobs.start(job, now)
            log.info("job %s begun, attempt %d", job.id, job.record.attempts)
            self._deadline = None
            self.worker.last_heard = now
            folder = str(self._server.store.folder(job.id).resolve())
            self.worker.send("run", job=job.id, settings=job.record.settings, folder=folder)

    def _rest(self, now: float) -> None:
        """End the worker when it had nothing to do for long; its memory is others' then."""
        if self._jobs.running is not None or self._jobs.next() is not None:
            self._resting, self._idle_since = False, now
        elif self.worker.ready and now - self._idle_since > self._server.settings.keep_alive_s:
            self.free_memory(now)

    def free_memory(self, now: float) -> None:
        """End a worker without a job; it is started again for the next one."""
        if self._jobs.running is None and self.worker.ready:
            log.info("the worker has nothing to do and is ended, to free its memory")
            self._resting = True
            self.worker.ask_to_end(now)

    def _watch(self, now: float) -> None:
        job = self._jobs.running
        code = self.worker.reap(now, at_work=job is not None)
        if code is not None:
            self._died(explain_exit(code))
        if self.worker.late(now) and self._resting:
            log.error("the worker does not end when asked to; it is ended")
            self.worker.kill()
        elif self.worker.late(now):
            log.error("the worker is not ready after %.0f s; it is ended", READY_S)
            words = self.worker.last_words
            self.worker.kill()
            self.worker.note_failure(now)
            said = f" Its last words: {words}" if words else ""
            self._broken = (f"The worker process was not ready after {READY_S:.0f} s.{said}", _LOGS)
        job = self._jobs.running
        if job is None:
            return
        if self._deadline is not None and now > self._deadline:
            log.warning("job %s did not stop in time; its worker is ended", job.id)
            self.worker.kill()
            self._cancelled(job)
        elif now - self.worker.last_heard > self._server.settings.stall_s:
            log.error("the worker says nothing any more; it is ended")
            self.worker.kill()
            self._died("The worker process hung and was ended.")

    def forgive(self, seconds: float) -> None:
        """Leave out of account that nothing was heard of the worker for a time."""
        self.worker.last_heard += seconds
        self._idle_since += seconds
        if self._deadline is not None:
            self._deadline += seconds

    def fault(self, error: Exception) -> None:
        """Fail the job under way for an error that nobody foresaw. Called while it is handled."""
        log.exception("a fault at work")
        job = self._jobs.running
        if job is not None:
            self.worker.kill()
            self._failed(job, f"The generation of {job.name} ended unexpectedly.", str(error),
                         f"This is a fault of GSV3D. {_LOGS}")  # fmt: skip

    def _died(self, why: str) -> None:
        words = self.worker.last_words
        log.error("%s Its last words: %s", why, words or "none")
        job = self._jobs.running
        if job is None:
            if self._broken is None:
                said = f" Its last words: {words}" if words else ""
                self._broken = (f"{why}{said}", _LOGS)
        elif self._deadline is not None:
            self._cancelled(job)
        else:
            self._server.store.save_output(job.id, self.worker.last_lines)
            self._failed(
                job,
                f"The generation of {job.name} ended unexpectedly.",
                why,
                f"Try again; should it happen again, choose fewer faces or a smaller texture. "
                f"{_LOGS}",
            )

    def _give_up(self) -> None:
        """The worker cannot be kept alive: say so to all who wait; a new job tries once more."""
        what, hint = self._broken or ("The worker process ends again and again.", _LOGS)
        for job in list(self._jobs.waiting()):
            self._failed(job, f"{job.name} cannot be generated: the model does not run.", what,
                         hint)  # fmt: skip

    # --- what the worker says --------------------------------------------------------------------

    def receive(self, now: float) -> None:
        """Act on the worker's messages."""
        for message in self.worker.receive():
            kind = message["type"]
            if kind == "ready":
                self._ready(message)
            elif kind == "models":
                self._take_models(message["models"])
            elif kind == "broken":
                self._broken = (message["what"], message["hint"])
                log.error("the worker cannot work: %s", message["what"])
            else:
                job = self._jobs.running
                if job is None or job.id != message["job"]:
                    continue  # a late word of a job that is over
                try:
                    self._report(job, message, now)
                except Exception as error:  # ends one job, not the backend
                    log.exception("a report of the worker cannot be used")
                    self.worker.kill()
                    self._failed(job, f"The results of {job.name} cannot be used.", str(error),
                                 f"This is a fault of GSV3D. {_LOGS}")  # fmt: skip

    def _ready(self, message: dict[str, Any]) -> None:
        self.device = message["device"][:128]
        self._broken = None
        log.info("worker ready on %s", self.device)
        self._take_models(message["models"])

    def _take_models(self, models: list[Any]) -> None:
        self.models = m.Welcome(PROTOCOL_VERSION, "", models).models
        log.info("models: %s", ", ".join(entry.name for entry in self.models))
        for peer in list(self._server.peers.values()):
            peer.post(self._server.welcome(peer.version))

    def _report(self, job: Job, message: dict[str, Any], now: float) -> None:
        kind = message["type"]
        if kind == "progress":
            report = self._jobs.report(job, message["phase"], message["step"], message["of"], now)
            if self._deadline is None:
                for peer in self._server.watchers(job.id):
                    peer.post(report)
        elif kind == "artefact":
            self._artefact(job, message)
        elif kind == "cancelled":
            self._cancelled(job)
        elif kind == "failed":
            self.worker.note_success()
            if self._deadline is not None:
                self._cancelled(job)
            else:
                self._failed(job, message["what"], message["why"], message["hint"])
        elif kind == "done":
            self._done(job, message["timings"], now)

    def _artefact(self, job: Job, message: dict[str, Any]) -> None:
        stored = StoredArtefact(
            message["kind"], {**message["fields"], "arrays": message["arrays"]}, message["file"]
        )
        kind = m.BY_TYPE.get(stored.kind)
        if kind is None or not issubclass(kind, m.Artefact):
            raise ValueError(f"{stored.kind} is no artefact")
        kind(job=job.id, transfer=1, **stored.fields)  # checked once, for all clients
        path = self._server.store.folder(job.id) / stored.file
        if path.name != stored.file or not path.is_file():
            raise ValueError(f"there is no result file {stored.file}")
        replaced = self._jobs.add_artefact(job, stored)
        if self._deadline is None:
            for peer in self._server.watchers(job.id):
                self._server.requests.offer(peer, job, stored)
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
        done = m.Done(job.id, timings)
        self._jobs.done(job, done.timings, now)
        log.info("job %s done in %.1f s", job.id, timings.get("total", 0.0))
        for peer in self._server.watchers(job.id):
            peer.end_job(done)

    # --- ends ------------------------------------------------------------------------------------

    def cancel(self, job: Job, now: float) -> None:
        """Ask the worker to stop the running job; it has `grace_s` to do so."""
        if self._deadline is None:
            self._deadline = now + self._server.settings.grace_s
            if not self.worker.send("cancel", job=job.id):
                self._deadline = now

    def tell_end(self, job: Job, message: m.Message) -> None:
        """Stop the transfers of a job and tell all who watch it."""
        for peer in list(self._server.watchers(job.id)):
            peer.stop_job(job.id)
            peer.watching.discard(job.id)
            peer.post(message)

    def _cancelled(self, job: Job) -> None:
        self._deadline = None
        self.tell_end(job, m.Cancelled(job.id))
        self._jobs.cancel(job)
        log.info("job %s cancelled", job.id)

    def _failed(self, job: Job, what: str, why: str, hint: str) -> None:
        self._deadline = None
        failed = m.Failed(job.id, what[:1900], why[:1900], hint[:1900])
        self.tell_end(job, failed)
        self._jobs.fail(job, failed.what, failed.why, failed.hint)

    def interrupt(self) -> None:
        """The backend ends: stop the worker; the job under way waits for the next start."""
        job = self._jobs.running
        self.worker.stop()
        if job is not None and self._deadline is not None:
            self._jobs.cancel(job)
        elif job is not None:
            self._jobs.wait_again(job)

# SPDX-License-Identifier: GPL-3.0-or-later
"""The add-on at work: its jobs, what the socket thread tells of them, one timer.

`Session.drain` is the only way from the network to Blender's data. A timer calls it with a budget
of 8 ms; where timers do not fire (background mode, Blender as a module) whoever waits calls it.
Nothing here ever waits for the network.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bpy

from . import compat, events
from .backend_link import BackendLink, BackendState
from .batch import name_of
from .delivery import Delivery
from .jobs import Job, JobBook, JobState, Request, Target, Words
from .problems import Problem

TICK_BUDGET_S = 0.008
_BUSY_S, _ACTIVE_S, _IDLE_S = 0.02, 0.1, 0.5
_log = logging.getLogger(__name__)


class Session:
    """Everything that lives as long as the add-on is on; use `get`."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.book = JobBook()
        self.delivery = Delivery(self.book, self._finish_if_delivered)
        self.backend = BackendLink(clock)
        self.sheets: dict[str, Any] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.on_job_end: Callable[[Job], None] | None = None
        self._clock = clock
        self._all_here: set[str] = set()
        self._sent: set[str] = set()

    # -- what operators ask for -------------------------------------------------------------

    def start_backend(
        self, python: str, connection_file: Path, data_dir: Path, may_start: bool = True
    ) -> None:
        """Use the backend of the connection file; start one if none is there. Returns at once.

        Raises `Problem` when none can be started.
        """
        if self.backend.start(python, connection_file, data_dir, may_start):
            self._sent.clear()
        self.ensure_timer()

    def stop_backend(self) -> None:
        """Ask the backend we started to end, and leave one that we did not. Returns at once."""
        self.backend.stop()
        self.ensure_timer()

    def submit(self, request: Request | Words, target: Target, after_mesh: str = "HIDE") -> Job:
        """Take a job on the list and send it as soon as a backend answers."""
        job = self.book.add(Job(request=request, target=target))
        self.delivery.after_mesh[job.id] = after_mesh
        self._send(job)
        self.show()
        self.ensure_timer()
        return job

    def _send(self, job: Job) -> None:
        """Hand a job to the socket thread, which sends it as often as it takes."""
        if self.backend.client is not None and job.id not in self._sent:
            self._sent.add(job.id)
            if job.earlier:
                self.backend.client.fetch(job.id)
            else:
                self.backend.client.submit(job.id, job.request)

    def cancel(self, job_id: str) -> None:
        """Cancel a job; the backend stops within one denoising step."""
        job = self.book.get(job_id)
        if job is None or not job.state.active:
            return
        if job.state is JobState.WAITING or self.backend.client is None:
            self._end(job, JobState.CANCELLED)
        else:
            job.state = JobState.CANCELLING
        if self.backend.client is not None:
            self.backend.client.cancel(job_id)
        self.show()

    def import_again(self, job_id: str, target: Target) -> None:
        """Bring the results of a job that lost its file into the present one."""
        job = self.book.get(job_id)
        held = job_id in self.delivery.arrived
        if job is None or not (held or (job.earlier and self.backend.client is not None)):
            raise Problem("The results of this job are no longer here.", "Generate it again.")
        job.target, job.detached = target, False
        if held:
            self.delivery.again(job)
        else:
            job.state = JobState.WAITING
            self._send(job)
        self.ensure_timer()

    def give_up(self, job_id: str, problem: Problem) -> None:
        """End a job that no backend will finish, for the reason given."""
        job = self.book.get(job_id)
        if job is not None and job.state.active:
            self._fail(job, problem)

    def forget_finished(self) -> None:
        for job_id in self.book.forget_finished():
            self.delivery.forget(job_id)
            self.sheets.pop(job_id, None)
            self.files.pop(job_id, None)
        self.show()

    def model_names(self) -> list[str]:
        """Names of the models that can be used; what ships, before a backend has answered."""
        connected = self.backend.connected
        if connected is None or not connected.models:
            return ["blockout"]
        return [model.name for model in connected.models if model.installed]

    # -- the one way from the network to Blender --------------------------------------------

    def drain(self, budget_s: float = TICK_BUDGET_S) -> bool:
        """Handle events and import results until nothing is left or ``budget_s`` is spent.

        Returns True if there is more to do now. At least one thing is done, so that it always
        gets on; each is short.
        """
        end = self._clock() + budget_s
        self._watch_backend()
        changed = False
        while True:
            did = self._take_event()
            if not did:
                did = self._import_step()
            changed = changed or did
            if not did or self._clock() >= end:
                break
        if changed:
            self.show()
        return did

    def _take_event(self) -> bool:
        if self.backend.client is None:
            return False
        try:
            event = self.backend.client.events.get_nowait()
        except queue.Empty:
            return False
        self.handle(event)
        return True

    def _import_step(self) -> bool:
        try:
            return self.delivery.step()
        except Exception as error:  # shown to the artist, and whole in the console
            _log.exception("GSV3D: an import failed")
            job = self.delivery.take_failed()
            if job is not None:
                self._fail(
                    job,
                    Problem(
                        f"Blender could not take the result of {job.name}: {error}.",
                        "The console has the details.",
                    ),
                )
            return True

    def _watch_backend(self) -> None:
        """If the backend died the job it was at fails with it, the others wait for the next one."""
        before = self.backend.problem
        problem = self.backend.watch()
        if problem is None:
            if self.backend.problem is not before:
                self.show()
            return
        for job in self.book.active():
            if job.state is JobState.CANCELLING:
                self._end(job, JobState.CANCELLED)
            elif job.state is JobState.RUNNING:
                self._fail(job, problem)
            else:
                job.state = JobState.WAITING
        self.show()

    def handle(self, event: events.Event) -> None:
        """Take one event from the socket thread."""
        match event:
            case events.Connected():
                self.backend.accepted(event)
                if self.backend.ready:
                    for job in self.book.active():
                        self._send(job)
            case events.Disconnected(problem=problem, lasting=lasting):
                self._disconnected(problem, lasting)
            case events.BackendComplained(problem=problem):
                self.backend.problem = problem
            case events.ResultsWaiting(jobs=waiting):
                self._offer(waiting)
            case _:
                known = self.book.get(event.job)
                if known is not None:
                    self._handle_of_job(known, event)

    def _offer(self, waiting: tuple[tuple[str, str], ...]) -> None:
        """List results of an earlier session, for the artist to import."""
        for job_id, filename in waiting:
            if self.book.get(job_id) is None:
                self.book.add(Job.of_earlier_session(job_id, filename, name_of(filename)))

    def _handle_of_job(self, job: Job, event: events.Event) -> None:
        match event:
            case events.JobAccepted(position=position):
                if job.state is JobState.WAITING:
                    job.state = JobState.QUEUED
                job.position = position
            case events.JobProgressed():
                job.progress(event.phase, event.step, event.of, event.eta_s, event.fraction)
            case events.ViewsArrived(sheet=sheet):
                self.sheets[job.id] = sheet
            case events.GaussiansArrived(arrays=arrays, final=final, box=box):
                self.delivery.gaussians(job, arrays, final, box)
            case events.MeshArrived(arrays=arrays, pose=pose, box=box):
                job.pose = pose
                self.delivery.mesh(job, arrays, box)
            case events.FileArrived(name="png", data=data):
                self.delivery.picture(job, data)
            case events.FileArrived(name=name, data=data):
                self.files.setdefault(job.id, {})[name] = data
            case events.JobDone() if not self.delivery.has_result(job.id):
                self._fail(
                    job,
                    Problem(
                        f"The backend finished {job.name} without sending its result.",
                        "Generate it again.",
                    ),
                )
            case events.JobDone(timings=timings):
                job.timings = timings
                job.state = JobState.ARRIVED
                self._all_here.add(job.id)
                self._finish_if_delivered(job)
            case events.JobFailed(problem=problem) if job.state.active:
                self._fail(job, problem)
            case events.JobCancelled() if job.state.active:
                self._end(job, JobState.CANCELLED)

    def _disconnected(self, problem: Problem, lasting: bool) -> None:
        self.backend.lost(problem, lasting)
        if self.backend.state is BackendState.STOPPING:
            return
        for job in self.book.active():
            if job.state is not JobState.CANCELLING:
                job.state = JobState.WAITING

    # -- ends --------------------------------------------------------------------------------

    def _finish_if_delivered(self, job: Job, _kind: str = "") -> None:
        if job.id in self._all_here and not job.detached and not self.delivery.pending(job.id):
            self._end(job, JobState.DONE)

    def _fail(self, job: Job, problem: Problem) -> None:
        job.fail(problem.what, problem.hint)
        self._end(job, JobState.FAILED)

    def _end(self, job: Job, state: JobState) -> None:
        job.state = state
        if state is not JobState.DONE:
            self.delivery.remove_preview(job.id)
        self.delivery.forget(job.id)
        self._all_here.discard(job.id)
        if self.backend.client is not None and state is not JobState.CANCELLED:
            self.backend.client.acknowledge(job.id)
        if self.on_job_end is not None:
            self.on_job_end(job)

    # -- Blender's own events ------------------------------------------------------------------

    def before_undo(self) -> None:
        self.delivery.interrupt()

    def before_load(self) -> None:
        """Another file comes: results of running jobs wait to be placed in it by the artist."""
        self.delivery.interrupt()
        for job in self.book:
            if job.state.active or job.state is JobState.ARRIVED:
                job.detached = True
                self.delivery.hold(job.id)

    def show(self) -> None:
        """Bring the lists of the interface up to date."""
        from . import previews, properties

        properties.show_jobs(self.book)
        previews.show(self.sheets)
        compat.redraw()

    def ensure_timer(self) -> None:
        """Run the timer while there is something to wait for; never without an interface."""
        if not bpy.app.background and not bpy.app.timers.is_registered(_tick):
            bpy.app.timers.register(_tick, first_interval=_BUSY_S, persistent=True)

    def interval(self, more: bool) -> float | None:
        """Seconds to the next tick; None ends the timer."""
        if more:
            return _BUSY_S
        if self.book.active() or not self.delivery.idle:
            return _ACTIVE_S
        at_work = self.backend.client is not None or self.backend.process.running
        return _IDLE_S if at_work else None

    def close(self) -> None:
        """End timer, thread, and the backend that was started here."""
        if bpy.app.timers.is_registered(_tick):
            bpy.app.timers.unregister(_tick)
        self.backend.close()
        self.delivery.interrupt()


_session: Session | None = None


def get() -> Session:
    """The session of this add-on, made at first use."""
    global _session
    if _session is None:
        _session = Session()
    return _session


def close() -> None:
    """End the session and everything it runs."""
    global _session
    if _session is not None:
        _session.close()
        _session = None


def _tick() -> float | None:
    session = get()
    try:
        return session.interval(session.drain())
    except Exception:  # a timer that raises is silently removed; say it and go on
        _log.exception("GSV3D: an event could not be handled")
        return _IDLE_S

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
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import bpy

from . import compat, events
from .backend_link import BackendLink, BackendState
from .batch import name_of
from .cutouts import CutOut, CutOuts
from .delivery import Delivery
from .importers import scene
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
        self.cutouts = CutOuts()
        self.sheets: dict[str, Any] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.on_job_end: Callable[[Job], None] | None = None
        self._clock = clock
        self._all_here: set[str] = set()
        self._sent: set[str] = set()
        self._wishes: dict[str, str] = {}
        self._file = ""

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
        """Ask the backend we started to end, and leave one that we did not. Returns at once.

        Jobs wait until it is started again.
        """
        self.backend.stop()
        self._all_wait()
        self.ensure_timer()

    def submit(self, request: Request | Words, target: Target, after_mesh: str = "HIDE") -> Job:
        """Take a job on the list and send it as soon as a backend answers.

        Raises `Problem` for one that is on the list already.
        """
        if self.book.equal_of(request, target) is not None:
            raise Problem(
                f"{target.name} is on the list already, with the same settings.",
                "Change the seed for another result.",
            )
        job = self.book.add(Job(request=request, target=target))
        self.delivery.after_mesh[job.id] = after_mesh
        self._send(job)
        self.show()
        self.ensure_timer()
        return job

    def _send(self, job: Job) -> None:
        """Hand a job to the socket thread, which sends it as often as it takes."""
        client = self.backend.client
        if client is None or job.id in self._sent:
            return
        self._sent.add(job.id)
        if job.again:
            client.retry(job.id, job.request)
        elif job.kept:
            client.fetch(job.id)
        else:
            client.submit(job.id, job.request)

    def _wish(self, job_id: str, wish: str) -> None:
        """Have the backend ``"cancel"`` or ``"forget"`` a job: now, or when it runs again."""
        if self.backend.client is None:
            self._wishes[job_id] = wish
        elif wish == "cancel":
            self.backend.client.cancel(job_id)
        else:
            self.backend.client.forget(job_id)

    def cut_out(self, picture: str, cutout: CutOut) -> None:
        """Ask for the cut-out of a picture, in the place of its former one."""
        for former in self.cutouts.add(picture, cutout):
            self._stop_cutting(former)
        self._send_cutouts()
        self.show()
        self.ensure_timer()

    def forget_cutout(self, picture: str) -> None:
        """Let go of a picture's cut-out."""
        cutout = self.cutouts.remove(picture)
        if cutout is not None:
            self._stop_cutting(cutout)
            self.show()

    def _send_cutouts(self) -> None:
        for cutout in self.cutouts:
            if self.backend.client is not None and not (cutout.ended or cutout.id in self._sent):
                self._sent.add(cutout.id)
                self.backend.client.submit(cutout.id, cutout.request)

    def _stop_cutting(self, cutout: CutOut) -> None:
        if cutout.id in self._sent and not cutout.ended:
            self._wish(cutout.id, "cancel")

    def cancel(self, job_id: str) -> None:
        """Cancel a job; a running one stops within one denoising step."""
        job = self.book.get(job_id)
        if job is None or not job.state.active:
            return
        self._wish(job_id, "cancel")
        if job.state is JobState.WAITING or self.backend.client is None:
            self._end(job, JobState.CANCELLED)
        else:
            job.state = JobState.CANCELLING
        self.show()

    def retry(self, job_id: str) -> None:
        """Do a job again that failed or was cancelled."""
        job = self.book.get(job_id)
        if job is None or not job.may_retry:
            return
        job.again = True
        self._begin_again(job)

    def _begin_again(self, job: Job) -> None:
        job.begin_again()
        self._wishes.pop(job.id, None)
        self._all_here.discard(job.id)
        self._sent.discard(job.id)
        self._send(job)
        self.show()
        self.ensure_timer()

    def import_again(self, job_id: str, target: Target) -> None:
        """Bring the results of a job into the scene, which the backend holds. Raises `Problem`."""
        job = self.book.get(job_id)
        if job is None or not job.may_import:
            raise Problem("The results of this job are no longer here.", "Generate it again.")
        job.target, job.detached = target, False
        self._begin_again(job)

    def move(self, job_id: str, by: int) -> None:
        """Let a queued job change places with those before (-1) or behind it (+1)."""
        job = self.book.get(job_id)
        client = self.backend.client
        if job is None or job.state is not JobState.QUEUED or client is None:
            return
        running = any(j.state in (JobState.RUNNING, JobState.CANCELLING) for j in self.book)
        client.move(job_id, max(0, job.position - running + by))

    def give_up(self, job_id: str, problem: Problem) -> None:
        """End a job that no backend will finish, for the reason given."""
        job = self.book.get(job_id)
        if job is not None and job.state.active:
            self._fail(job, problem)

    def forget(self, jobs: Iterable[Job]) -> None:
        """Take jobs that are over off the list, and their results off the backend's disk."""
        for job in jobs:
            self.book.remove(job.id)
            self.delivery.forget(job.id)
            self.sheets.pop(job.id, None)
            self.files.pop(job.id, None)
            self._wish(job.id, "forget")
        self.show()

    def describe(self, job: Job) -> str:
        """One line for the list and the progress bar; a job that waits says for what."""
        if job.state is JobState.WAITING:
            if self.backend.state is BackendState.READY:
                return "waiting to be sent"
            if self.backend.state in (BackendState.OFF, BackendState.STOPPING):
                return "waiting: the backend is stopped"
            if self.backend.state is BackendState.STARTING:
                return "starting the backend"
        if job.state is JobState.QUEUED and job.position == 0:
            device = self.backend.connected.device if self.backend.connected else ""
            return "next" if device else "starting the backend"
        if job.state is JobState.ARRIVED and not job.detached:
            return f"ready, {self.delivery.holdup or 'on its way into the scene'}"
        return job.describe()

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
        """If the backend died its jobs wait for the next one, which finds them in its journal."""
        before = self.backend.problem
        problem = self.backend.watch()
        if problem is not None:
            self._all_wait()
        if self.backend.problem is not before:
            self.show()

    def _all_wait(self) -> None:
        """Have all jobs wait for the next backend; those that are being cancelled are cancelled."""
        for job in list(self.book):
            if job.state is JobState.CANCELLING:
                self._wishes[job.id] = "cancel"
                self._end(job, JobState.CANCELLED)
        self._lose_sight()

    def _lose_sight(self) -> None:
        """Have jobs wait that nothing is heard of; others' come back with the next list."""
        for job in list(self.book):
            if job.state.active and job.state is not JobState.CANCELLING:
                if job.listed:
                    self.book.remove(job.id)
                else:
                    job.state = JobState.WAITING
        self.show()

    def handle(self, event: events.Event) -> None:
        """Take one event from the socket thread."""
        match event:
            case events.Connected():
                self.backend.accepted(event)
                if self.backend.ready:
                    wishes, self._wishes = self._wishes, {}
                    for job_id, wish in wishes.items():
                        self._wish(job_id, wish)
                    for job in self.book.active():
                        self._send(job)
                    self._send_cutouts()
            case events.Disconnected(problem=problem, lasting=lasting):
                self._disconnected(problem, lasting)
            case events.BackendComplained(problem=problem):
                self.backend.problem = problem
            case events.JobsListed(jobs=entries):
                self._listed(entries)
            case _:
                known = self.book.get(event.job)
                if known is not None:
                    self._handle_of_job(known, event)
                elif (cutout := self.cutouts.of_job(event.job)) is not None:
                    cutout.take(event)
                    if cutout.ended:
                        self._wish(cutout.id, "forget")

    def _listed(self, entries: tuple[events.ListedJob, ...]) -> None:
        """Show the backend's jobs: also those of other Blenders, and of earlier ones."""
        for entry in entries:
            known = self.book.get(entry.job)
            if known is None:
                if entry.kind == "cutout" and entry.owner == "gone" and entry.state == "done":
                    self._wish(entry.job, "forget")  # nobody will look at it
                unwanted = entry.kind == "cutout" or entry.state == "cancelled"
                if not unwanted and entry.job not in self._wishes:
                    self.book.add(Job.from_list(entry, name_of(entry.filename)))
            elif known.listed:
                known.follow(entry)
            elif known.state is JobState.QUEUED:
                known.position = entry.position
        told = {entry.job for entry in entries}
        for job in list(self.book):
            if job.listed and job.id not in told:
                self.book.remove(job.id)

    def _handle_of_job(self, job: Job, event: events.Event) -> None:
        if not job.state.active:  # cancelled, or Blender could not take a part of it
            job.kept = job.kept or isinstance(event, events.JobDone)
            return
        match event:
            case events.JobAccepted(position=position):
                if job.state is JobState.WAITING:
                    job.state = JobState.QUEUED
                job.position = position
            case events.JobProgressed():
                job.progress(event.phase, event.step, event.of, event.eta_s, event.fraction)
            case events.ViewsArrived(sheet=sheet):
                self.sheets[job.id] = sheet
            case events.GaussiansArrived(arrays=arrays, box=box):
                self.delivery.gaussians(job, arrays, box)
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
                job.state, job.kept, job.again = JobState.ARRIVED, True, False
                self._all_here.add(job.id)
                if job.detached:
                    self.delivery.forget(job.id)  # the backend keeps it
                self._finish_if_delivered(job)
            case events.JobFailed(problem=problem):
                self._fail(job, problem)
            case events.JobCancelled():
                self._end(job, JobState.CANCELLED)

    def _disconnected(self, problem: Problem, lasting: bool) -> None:
        self.backend.lost(problem, lasting)
        self._lose_sight()

    # -- ends --------------------------------------------------------------------------------

    def _finish_if_delivered(self, job: Job, _kind: str = "") -> None:
        if job.id in self._all_here and not job.detached and not self.delivery.pending(job.id):
            self._end(job, JobState.DONE)

    def _fail(self, job: Job, problem: Problem) -> None:
        job.fail(problem.what, problem.hint)
        self._end(job, JobState.FAILED)

    def _end(self, job: Job, state: JobState) -> None:
        job.state = state
        if state is JobState.DONE:
            if self.backend.client is not None:
                self.backend.client.acknowledge(job.id)
        else:
            self.delivery.remove_preview(job.id)
        self.delivery.forget(job.id)
        self._all_here.discard(job.id)
        if self.on_job_end is not None:
            self.on_job_end(job)

    # -- Blender's own events ------------------------------------------------------------------

    def before_undo(self) -> None:
        self.delivery.interrupt()
        scene.forget_places()

    def before_load(self) -> None:
        """A file is about to be opened, perhaps the same once more, perhaps in vain."""
        self.delivery.interrupt()
        scene.forget_places()
        self._file = bpy.data.filepath

    def after_load(self) -> None:
        """A file was opened. In another one the artist says where results go."""
        if not self._file or self._file != bpy.data.filepath:
            for job in self.book:
                job.detached = True
                if job.state is JobState.ARRIVED:
                    self.delivery.forget(job.id)  # the backend keeps it
        self.show()

    def show(self) -> None:
        """Bring the lists of the interface up to date."""
        from . import previews, properties

        rows = [(j.id, j.name, j.state.value, self.describe(j)) for j in self.book.in_order()]
        properties.show_jobs(rows)
        previews.show(self.sheets)
        previews.show_pictures({cutout.id: cutout.png for cutout in self.cutouts if cutout.png})
        compat.redraw_sidebars()

    def ensure_timer(self) -> None:
        """Run the timer while there is something to wait for; never without an interface."""
        if not bpy.app.background and not bpy.app.timers.is_registered(_tick):
            bpy.app.timers.register(_tick, first_interval=_BUSY_S, persistent=True)

    def interval(self, more: bool) -> float | None:
        """Seconds to the next tick; None ends the timer."""
        if more:
            return _BUSY_S
        cutting = any(not cutout.ended for cutout in self.cutouts)
        if self.book.active() or cutting or not self.delivery.idle:
            return _ACTIVE_S
        at_work = self.backend.client is not None or self.backend.process.running
        return _IDLE_S if at_work else None

    def close(self, wait: bool = False) -> None:
        """End timer and thread, and the backend as in `BackendLink.close`."""
        if bpy.app.timers.is_registered(_tick):
            bpy.app.timers.unregister(_tick)
        self.backend.close(wait)
        self.delivery.interrupt()

    def clear_away(self) -> None:
        """Take previews of jobs that are not done out of the scene, and all rows off the list."""
        for job in self.book.active():
            self.delivery.remove_preview(job.id)
        self.book = JobBook()
        self.show()


_session: Session | None = None


def get() -> Session:
    """The session of this add-on, made at first use."""
    global _session
    if _session is None:
        _session = Session()
    return _session


def close(wait: bool = False) -> None:
    """End the session and everything it runs; ``wait`` until the backend has ended."""
    global _session
    if _session is not None:
        _session.close(wait)
        _session = None


def _tick() -> float | None:
    session = get()
    try:
        return session.interval(session.drain())
    except Exception:  # a timer that raises is silently removed; say it and go on
        _log.exception("GSV3D: an event could not be handled")
        return _IDLE_S

# SPDX-License-Identifier: GPL-3.0-or-later
"""The jobs: what the artist wants of them, what the backend tells of them, and their ends.

Nothing here waits; requests go to the socket thread, or are kept until there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from . import events
from .backend_link import BackendLink, BackendState
from .batch import name_of
from .client import Client
from .cutouts import CutOut, CutOuts
from .delivery import Delivery
from .jobs import Job, JobBook, JobState
from .problems import Problem
from .requests import Request, Target, Words


class JobControl:
    """The jobs of the list, and the cut-outs.

    Args:
        backend: what they are sent to.
        on_change: called when the interface has something new to show.
    """

    def __init__(self, backend: BackendLink, on_change: Callable[[], None]) -> None:
        self.book = JobBook()
        self.cutouts = CutOuts()
        self.delivery = Delivery(self.book, self._finish_if_delivered)
        self.sheets: dict[str, Any] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.on_end: Callable[[Job], None] | None = None
        self._backend = backend
        self._on_change = on_change
        self._all_here: set[str] = set()
        self._sent: set[str] = set()
        self._served: Client | None = None
        self._wishes: dict[str, str] = {}

    @property
    def _client(self) -> Client | None:
        """Return the socket thread; a new one knows nothing of what was sent by the last."""
        if self._served is not self._backend.client:
            self._served = self._backend.client
            self._sent.clear()
        return self._served

    # -- what is asked of them --------------------------------------------------------------

    def submit(self, request: Request | Words, target: Target) -> Job:
        """Take a job on the list and send it as soon as a backend answers.

        Raises `Problem` for one that is on the list already.
        """
        if self.book.equal_of(request, target) is not None:
            raise Problem(
                f"{target.name} is on the list already, with the same settings.",
                "Change the seed for another result.",
            )
        job = self.book.add(Job(request=request, target=target))
        self._send(job)
        self._on_change()
        return job

    def _send(self, job: Job) -> None:
        """Give a job to the socket thread, which sends it until it is accepted."""
        client = self._client
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
        """Have the backend ``"cancel"`` or ``"forget"`` a job, now or when it runs again."""
        client = self._client
        if client is None:
            self._wishes[job_id] = wish
        elif wish == "cancel":
            client.cancel(job_id)
        else:
            client.forget(job_id)

    def cut_out(self, picture: str, cutout: CutOut) -> None:
        """Ask for the cut-out of a picture, in place of its former one."""
        for former in self.cutouts.add(picture, cutout):
            self._stop_cutting(former)
        self._send_cutouts()
        self._on_change()

    def forget_cutout(self, picture: str) -> None:
        """Let go of a picture's cut-out."""
        cutout = self.cutouts.remove(picture)
        if cutout is not None:
            self._stop_cutting(cutout)
            self._on_change()

    def _send_cutouts(self) -> None:
        client = self._client
        for cutout in self.cutouts:
            if client is not None and not (cutout.ended or cutout.id in self._sent):
                self._sent.add(cutout.id)
                client.submit(cutout.id, cutout.request)

    def _stop_cutting(self, cutout: CutOut) -> None:
        if cutout.id in self._sent and not cutout.ended:
            self._wish(cutout.id, "cancel")

    def cancel(self, job_id: str) -> None:
        """Cancel a job; a running one stops within one denoising step.

        Of one that is over only the import is cancelled: the backend would delete its results.
        """
        job = self.book.get(job_id)
        if job is None or not job.state.active:
            return
        if job.kept:
            job.detached = True
            self._end(job, JobState.ARRIVED)
            self._on_change()
            return
        self._wish(job_id, "cancel")
        if job.state is JobState.WAITING or self._client is None:
            self._end(job, JobState.CANCELLED)
        else:
            job.state = JobState.CANCELLING
        self._on_change()

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
        self._on_change()

    def import_again(self, job_id: str, target: Target) -> None:
        """Bring a job's results from the backend into the scene. Raises `Problem`."""
        job = self.book.get(job_id)
        if job is None or not job.may_import:
            raise Problem("The results of this job are no longer here.", "Generate it again.")
        job.target, job.detached = target, False
        self._begin_again(job)

    def move(self, job_id: str, by: int) -> None:
        """Move a queued job one place forward (-1) or back (+1)."""
        job = self.book.get(job_id)
        client = self._client
        if job is None or job.state is not JobState.QUEUED or client is None:
            return
        running = any(j.state in (JobState.RUNNING, JobState.CANCELLING) for j in self.book)
        client.move(job_id, max(0, job.position - running + by))

    def give_up(self, job_id: str, problem: Problem) -> None:
        """End a job that no backend will finish, for the reason given."""
        job = self.book.get(job_id)
        if job is not None and job.state.active:
            self.fail(job, problem)

    def forget(self, jobs: Iterable[Job]) -> None:
        """Take jobs that are over off the list, and their results off the backend's disk."""
        for job in jobs:
            self.book.remove(job.id)
            self.delivery.forget(job.id)
            self.sheets.pop(job.id, None)
            self.files.pop(job.id, None)
            self._wish(job.id, "forget")
        self._on_change()

    def describe(self, job: Job) -> str:
        """Return one line for the list and the progress bar, with what a waiting job waits for."""
        if job.state is JobState.WAITING:
            if self._backend.state is BackendState.READY:
                return "waiting to be sent"
            if self._backend.state in (BackendState.OFF, BackendState.STOPPING):
                return "waiting: the backend is stopped"
            if self._backend.state is BackendState.STARTING:
                return "starting the backend"
        if job.state is JobState.QUEUED and job.position == 0:
            device = self._backend.connected.device if self._backend.connected else ""
            return "next" if device else "starting the backend"
        if job.state is JobState.ARRIVED and not job.detached:
            return f"ready, {self.delivery.holdup or 'on its way into the scene'}"
        return job.describe()

    # -- what the backend tells of them ------------------------------------------------------

    def send_all(self) -> None:
        """Send all that waits to a backend that has answered."""
        wishes, self._wishes = self._wishes, {}
        for job_id, wish in wishes.items():
            self._wish(job_id, wish)
        for job in self.book.active():
            self._send(job)
        self._send_cutouts()

    def wait_for_next_backend(self) -> None:
        """Have all jobs wait for the next backend; those being cancelled end now."""
        for job in list(self.book):
            if job.state is JobState.CANCELLING:
                self._wishes[job.id] = "cancel"
                self._end(job, JobState.CANCELLED)
        self.lose_sight()

    def lose_sight(self) -> None:
        """Have jobs wait for news, and drop listed ones, which come back with the next list."""
        for job in list(self.book):
            if job.state.active and job.state is not JobState.CANCELLING:
                if job.listed:
                    self.book.remove(job.id)
                else:
                    job.state = JobState.WAITING
        self._on_change()

    def take(self, event: Any) -> None:
        """Take an event of a job, or of a cut-out."""
        known = self.book.get(event.job)
        if known is not None:
            self._take_event(known, event)
        elif (cutout := self.cutouts.of_job(event.job)) is not None:
            cutout.take(event)
            if cutout.ended:
                self._wish(cutout.id, "forget")

    def take_list(self, entries: tuple[events.ListedJob, ...]) -> None:
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
            else:
                known.device = entry.device
                if known.state is JobState.QUEUED:
                    known.position = entry.position
        told = {entry.job for entry in entries}
        for job in list(self.book):
            if job.listed and job.id not in told:
                self.book.remove(job.id)

    def _take_event(self, job: Job, event: events.Event) -> None:
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
                self.fail(
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
                self.fail(job, problem)
            case events.JobCancelled():
                self._end(job, JobState.CANCELLED)

    # -- how they end ------------------------------------------------------------------------

    def _finish_if_delivered(self, job: Job) -> None:
        if job.id in self._all_here and not job.detached and not self.delivery.pending(job.id):
            self._end(job, JobState.DONE)

    def fail(self, job: Job, problem: Problem) -> None:
        """End a job for the reason given."""
        job.what, job.hint = problem.what, problem.hint
        self._end(job, JobState.FAILED)

    def _end(self, job: Job, state: JobState) -> None:
        job.state = state
        if state is JobState.DONE:
            if self._client is not None:
                self._client.acknowledge(job.id)
        else:
            self.delivery.remove_preview(job.id)
        self.delivery.forget(job.id)
        self._all_here.discard(job.id)
        if self.on_end is not None:
            self.on_end(job)

    def detach_all(self) -> None:
        """Have the artist choose where results go, since another file was loaded."""
        for job in self.book:
            job.detached = True
            if job.state is JobState.ARRIVED:
                self.delivery.forget(job.id)  # the backend keeps it

    def clear_away(self) -> None:
        """Take previews of jobs that are not done out of the scene."""
        for job in self.book.active():
            self.delivery.remove_preview_now(job.id)

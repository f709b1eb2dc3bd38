# SPDX-License-Identifier: GPL-3.0-or-later
"""Turn jobs into messages to the backend, and its messages into events. No socket, no bpy."""

from __future__ import annotations

import logging
import queue
import uuid
from dataclasses import fields
from typing import Any, TypeVar

from . import events
from .importers.prepare import prepare_gaussians, prepare_mesh, prepare_sheet
from .problems import Problem
from .protocol import wire
from .requests import AnyRequest, Cutting, Request, Words, bytes_of, is_batch, is_ready

JOBS_AHEAD = 4
"""Jobs of a batch that are sent before the backend has accepted the first; of others twice that."""

_Event = TypeVar("_Event")
_log = logging.getLogger(__name__)


class Conversation:
    """Keep what was asked of the backend, and turn its messages into events.

    Attributes:
        session: the protocol's side of it, which makes and reads messages.
        events: what has happened, for the main thread.
        host: the computer the backend is on; empty for this one.
    """

    def __init__(self) -> None:
        self.session = wire.ClientSession("Blender add-on", owner=uuid.uuid4().hex)
        self.events: queue.Queue[events.Event] = queue.Queue()
        self.host = ""
        self._backlog: dict[str, AnyRequest] = {}
        self._requests: dict[str, AnyRequest] = {}
        self._told: tuple[str, str] | None = None
        self._damaged: dict[str, Problem] = {}
        self._asked_again: set[str] = set()

    def submit(self, job_id: str, request: AnyRequest) -> None:
        """Keep a job until it can be sent; a second time changes nothing."""
        self._requests[job_id] = request
        self._backlog[job_id] = request

    def submit_next(self) -> None:
        """Submit jobs whose pictures are ready, a few before the backend has answered."""
        ready = [job for job, request in self._backlog.items() if is_ready(request)]
        # A single job must not wait for a batch that waits for the full queue.
        for job_id in sorted(ready, key=lambda job: is_batch(self._backlog[job])):
            ahead = JOBS_AHEAD if is_batch(self._backlog[job_id]) else 2 * JOBS_AHEAD
            if self.session.unaccepted >= ahead:
                return
            self._hand_over(job_id, self._backlog.pop(job_id))

    def cancel(self, job_id: str) -> None:
        """Stop a job, sent or not."""
        self._requests.pop(job_id, None)
        if self._backlog.pop(job_id, None) is not None:
            self.tell(events.JobCancelled(job_id))
        else:
            self.session.cancel(job_id)

    def retry(self, job_id: str, request: Request | Words) -> None:
        """Do a job again; ``request`` is for a backend that forgot it."""
        if isinstance(request, Words) or request.image:
            self._requests[job_id] = request
        try:
            self.session.retry(job_id)
        except wire.ProtocolError as error:
            self._end(job_id, events.JobFailed(job_id, Problem(error.what, error.hint)))

    def tell(self, event: events.Event) -> None:
        """Hand an event to the main thread."""
        self.events.put(event)

    def lost(self, what: str, hint: str, lasting: bool = False) -> None:
        """Tell why there is no backend to talk to, once for each reason."""
        if self._told != (what, hint):
            self._told = (what, hint)
            self.tell(events.Disconnected(Problem(what, hint), lasting))

    def take(self, event: Any) -> None:
        """Make events of an event of the protocol's session."""
        m = wire.messages
        match event:
            case m.Welcome():
                self._told = None
                models = tuple(_copy(events.ModelChoice, model) for model in event.models)
                makes_pictures = event.version >= wire.IMAGINE_VERSION
                self.tell(
                    events.Connected(
                        event.device, models, makes_pictures, event.text_model, self.host
                    )
                )
                self.session.status(follow=True)
            case m.Queue():
                self.tell(
                    events.JobsListed(tuple(_copy(events.ListedJob, job) for job in event.jobs))
                )
            case m.Accepted():
                self.tell(_copy(events.JobAccepted, event))
            case m.Progress():
                self.tell(_copy(events.JobProgressed, event))
            case wire.Received():
                self._receive(event)
            case m.Done():
                self._done(event)
            case m.Failed():
                what = f"{event.what} {event.why}".strip()
                self._end(event.job, events.JobFailed(event.job, Problem(what, event.hint)))
            case m.Cancelled():
                self._end(event.job, events.JobCancelled(event.job))
            case m.Bye():
                self.lost(f"The backend has ended. {event.why}".strip(), "Start it again.")
            case m.Error():
                self._complaint(event)
            case wire.Violation():
                self._violation(event)

    def _hand_over(self, job_id: str, request: AnyRequest) -> None:
        try:
            if isinstance(request, Words):
                self.session.imagine(
                    request.prompt,
                    job=job_id,
                    text_model=request.text_model,
                    steps=request.steps or None,
                    guidance=request.guidance or None,
                    seed=request.seed,
                )
            elif isinstance(request, Cutting):
                image = bytes_of(request.image)
                self.session.cutout(image, job=job_id, filename=request.filename)
            else:
                self.session.submit(
                    bytes_of(request.image),
                    job=job_id,
                    filename=request.filename,
                    model=request.model,
                    steps=request.steps or None,
                    seed=request.seed,
                    faces=request.faces,
                    texture_size=request.texture_size,
                    elevation=request.elevation,
                    mirror=request.mirror,
                    plane=request.plane,
                    orbit=request.orbit,
                    frames=request.frames or None,
                    azimuths=request.azimuths,
                    elevations=request.elevations,
                    refine=request.refine,
                    files=request.files,
                    priority="batch" if request.batch else "interactive",
                )
        except wire.ProtocolError as error:
            self._end(job_id, events.JobFailed(job_id, Problem(error.what, error.hint)))
        except Problem as problem:
            self._end(job_id, events.JobFailed(job_id, problem))

    def _complaint(self, error: Any) -> None:
        problem = Problem(error.what, error.hint)
        if error.code == "version":
            self.lost(error.what, error.hint, lasting=True)
        elif error.code == "no_session":
            _log.debug("GSV3D: %s", error.what)  # the session says hello again by itself
        elif error.code == "unknown_job" and error.job in self._requests:
            # A backend that has lost its journal does not know the job.
            self.submit(error.job, self._requests[error.job])
        elif error.job is not None:
            self._end(error.job, events.JobFailed(error.job, problem))
        else:
            self.tell(events.BackendComplained(problem))

    def _violation(self, violation: Any) -> None:
        """Note that something came damaged; `_done` acts on it at the job's end."""
        problem = Problem(violation.what, violation.hint)
        if violation.job is None:
            self.tell(events.BackendComplained(problem))
        else:
            self._damaged[violation.job] = problem

    def _done(self, done: Any) -> None:
        """Ask once more for results that came damaged; give the job up if that does not help."""
        problem = self._damaged.pop(done.job, None)
        if problem is None:
            self._end(done.job, events.JobDone(done.job, dict(done.timings)))
        elif done.job in self._asked_again:
            self._end(done.job, events.JobFailed(done.job, problem))
        else:
            self._asked_again.add(done.job)
            self.session.fetch(done.job)

    def _end(self, job_id: str, event: events.Event) -> None:
        self._requests.pop(job_id, None)
        self._damaged.pop(job_id, None)
        self._asked_again.discard(job_id)
        self.tell(event)

    def _receive(self, received: Any) -> None:
        """Check and convert arrays here, off the main thread."""
        job, arrays, artifact = received.job, received.arrays, received.artifact
        try:
            if received.kind == "views":
                self.tell(events.ViewsArrived(job, prepare_sheet(arrays["images"])))
            elif received.kind == "gaussians":
                prepared = prepare_gaussians(**arrays)
                self.tell(
                    events.GaussiansArrived(
                        job, prepared, artifact.step, artifact.of, artifact.final, artifact.box
                    )
                )
            elif received.kind == "mesh":
                mesh = prepare_mesh(**arrays)
                self.tell(events.MeshArrived(job, mesh, artifact.pose, artifact.box))
            elif received.kind == "file":
                data = arrays["data"].tobytes()
                self.tell(events.FileArrived(job, artifact.name, data, artifact.certainty))
        except Problem as problem:
            if received.kind == "gaussians" and not artifact.final:
                _log.debug("GSV3D: coarse Gaussians left out: %s", problem)
                return  # early in denoising there may be nothing to see yet
            self.session.cancel(job)
            self._end(job, events.JobFailed(job, problem))


def _copy(event: type[_Event], message: Any) -> _Event:
    """Make an event of a message that has all its fields."""
    return event(**{field.name: getattr(message, field.name) for field in fields(event)})  # type: ignore[arg-type]

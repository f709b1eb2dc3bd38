# SPDX-License-Identifier: Apache-2.0
"""Act on the messages of clients."""

from __future__ import annotations

import logging

from .clients import Clients
from .errors import StorageError
from .job import Job
from .jobs import Jobs, QueueFullError
from .peers import Peer
from .protocol import ACKED_VERSION, LIST_VERSION, SUPPORTED_VERSIONS, VersionError, negotiate
from .protocol import messages as m
from .workers import Workers

log = logging.getLogger(__name__)


class Requests:
    """Acts on each message of a client, one method each."""

    def __init__(self, jobs: Jobs, clients: Clients, workers: Workers) -> None:
        self._jobs = jobs
        self._clients = clients
        self._workers = workers

    def hello(self, address: bytes, user: str, hello: m.Hello, now: float) -> None:
        try:
            version = negotiate(hello.versions, SUPPORTED_VERSIONS)
        except VersionError as error:
            log.warning("%s refused: %s", hello.client or "a client", error.what)
            self._clients.answer(address, m.Error("version", error.what, error.hint))
            return
        peer = self._clients.join(address, user, hello, version, now)
        if peer is None:
            what = "The backend has as many clients as it can take."
            self._clients.answer(address, m.Error("busy", what, "Close other Blenders first."))
        elif hello.capabilities:  # it wants results
            self._workers.wake()

    def handle(self, peer: Peer, message: m.Message, now: float) -> None:
        """Act on a message other than hello and shutdown."""
        if isinstance(message, m.JobMessage):
            self._submit(peer, message)
        elif isinstance(message, m.Fetch | m.Cancel | m.Retry | m.Move):
            self._handle_known(peer, message, now)
        elif isinstance(message, m.Ack):
            self._ack(peer, message.job)
        elif isinstance(message, m.Credit):
            peer.grant(message.transfer, message.chunks)
        elif isinstance(message, m.Forget):
            self._forget(peer, message.job)
        elif isinstance(message, m.Free):
            self._workers.free_memory(now)
        elif isinstance(message, m.Status):
            peer.follows = peer.follows or message.follow
            self._clients.tell_queue(peer)
            if peer.hello.capabilities:  # perhaps models have come or gone
                self._workers.wake()
        elif isinstance(message, m.Ping):
            peer.post(m.Pong())

    def _handle_known(
        self, peer: Peer, message: m.Fetch | m.Cancel | m.Retry | m.Move, now: float
    ) -> None:
        job = self._jobs.get(message.job)
        if job is None:
            what = f"The backend knows no job {message.job}."
            peer.post(m.Error("unknown_job", what, "Generate it again.", message.job))
        elif isinstance(message, m.Fetch):
            self._fetch(peer, job)
        elif isinstance(message, m.Cancel):
            self._cancel(peer, job, now)
        elif isinstance(message, m.Retry):
            self._retry(peer, job)
        else:
            self._move(peer, job, message.place)

    def _submit(self, peer: Peer, submit: m.JobMessage) -> None:
        job = self._jobs.get(submit.job)
        if job is not None:  # the same job once more, perhaps from a client that was cut off
            self._fetch(peer, job)
            return
        try:
            job = self._jobs.submit(submit, peer.hello.owner)
        except (QueueFullError, StorageError) as error:
            self._refuse(peer, error, submit.job)
            return
        log.info("job %s accepted: %s", job.id, job.name)
        peer.watching.add(job.id)
        peer.post(m.Accepted(job.id, self._jobs.position(job)))
        self._workers.try_again()

    def _refuse(self, peer: Peer, error: QueueFullError | StorageError, job: str) -> None:
        busy = isinstance(error, QueueFullError)
        log.log(logging.INFO if busy else logging.ERROR, "a job was refused: %s", error)
        code = "busy" if busy else "disk"
        peer.post(m.Error(code, error.what, error.hint, job))

    def _fetch(self, peer: Peer, job: Job) -> None:
        state = job.record.state
        peer.stop_job(job.id)
        if state in ("done", "fetched") and not job.artifacts:  # of another version of the backend
            what = f"The results of {job.name} are no longer kept, or cannot be understood."
            peer.post(m.Error("not_available", what, "Generate it again.", job.id))
            return
        peer.watching.add(job.id)
        peer.post(m.Accepted(job.id, self._jobs.position(job)))
        if state == "running" and job.progress is not None:
            peer.post(job.progress)
        for artifact in job.artifacts:
            self._clients.offer(peer, job, artifact)
        end = self._end_of(job)
        if end is not None:
            peer.end_job(end)

    def _end_of(self, job: Job) -> m.Message | None:
        state, outcome = job.record.state, job.record.outcome
        if state in ("done", "fetched"):
            return m.Done(job.id, outcome.get("timings", {}))
        if state == "failed":
            return m.Failed(job.id, **outcome)
        if state == "cancelled":
            return m.Cancelled(job.id)
        return None

    def _cancel(self, peer: Peer, job: Job, now: float) -> None:
        state = job.record.state
        peer.watching.add(job.id)
        if state == "fetched":
            what = f"{job.name} is finished and fetched; there is nothing to cancel."
            peer.post(m.Error("not_available", what, "", job.id))
        elif state == "running":
            self._workers.cancel(job, now)
        elif state in ("failed", "cancelled"):
            end = self._end_of(job)
            assert end is not None
            peer.post(end)
        else:  # waiting, or done with results that are no longer wanted
            self._clients.tell_end(job, m.Cancelled(job.id))
            self._jobs.cancel(job)
            log.info("job %s cancelled", job.id)

    def _ack(self, peer: Peer, name: str) -> None:
        job = self._jobs.get(name)
        peer.watching.discard(name)
        if job is None:  # repeated by a client that has not heard that it is forgotten
            if peer.version >= LIST_VERSION:
                peer.post(m.Forgotten(name))
            return
        if job.record.state == "done":
            self._jobs.fetched(job)
            log.info("job %s fetched", job.id)
        if peer.version >= ACKED_VERSION:
            peer.post(m.Acked(job.id))
        if peer.version < LIST_VERSION and job.record.over:
            self._delete(job, peer)  # what acknowledging meant to it

    def _forget(self, peer: Peer, name: str) -> None:
        job = self._jobs.get(name)
        if job is not None and not job.record.over:
            what = f"{job.name} is not over yet."
            peer.post(m.Error("not_available", what, "Cancel it first.", name))
            return
        if job is not None:
            self._delete(job, peer)
        peer.post(m.Forgotten(name))

    def _delete(self, job: Job, peer: Peer) -> None:
        """Delete a job for a client; tell others that wait for its results."""
        for other in self._clients.watchers(job.id):
            other.watching.discard(job.id)
            if other is peer:
                other.stop_job(job.id)
            elif other.version >= LIST_VERSION:
                other.stop_job(job.id, m.Forgotten(job.id))
            else:
                what = f"The results of {job.name} were deleted by another client."
                other.stop_job(job.id, m.Error("not_available", what, "Generate it again.", job.id))
        self._jobs.forget(job)
        log.info("job %s forgotten", job.id)

    def _retry(self, peer: Peer, job: Job) -> None:
        if job.record.state in ("failed", "cancelled"):
            if self._jobs.has_lost_its_picture(job):
                what = f"The picture of {job.name} is no longer kept."
                peer.post(m.Error("not_available", what, "Generate it again.", job.id))
                return
            try:
                self._jobs.retry(job)
            except (QueueFullError, StorageError) as error:
                self._refuse(peer, error, job.id)
                return
            log.info("job %s waits again", job.id)
            self._workers.try_again()
        self._fetch(peer, job)

    def _move(self, peer: Peer, job: Job, place: int) -> None:
        if not job.record.waiting:
            return  # its turn has come, or it is over: the queue tells
        try:
            self._jobs.move(job, place)
        except StorageError as error:
            self._refuse(peer, error, job.id)

# SPDX-License-Identifier: Apache-2.0
"""Keep the sessions of the connected clients and tell them what happens. Knows no socket."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import zmq

from gsv3d._version import __version__

from .job import Job, StoredArtifact
from .jobs import Jobs
from .peers import Peer, Pending
from .protocol import encode, limits
from .protocol import messages as m
from .protocol.arrays import OPTIONAL
from .store import FileSource, Store
from .zap import OWNER

log = logging.getLogger(__name__)

#: Clients at a time, and places among them that paired computers leave to this one. Commands on
#: this computer are not counted: whoever is connected, it can be asked for its state and ended.
MAX_PEERS = 32
FOR_OWNER = 8
#: Seconds in which a client that lives says something.
_HEARD_S = 2.5 * limits.HEARTBEAT_S

#: Sends frames to an address: True when sent, False when its pipe is full.
Send = Callable[[bytes, list[Any]], bool]


class Clients:
    """Keeps the sessions of all clients.

    Args:
        send: sends frames to a client; raises `zmq.ZMQError` where the client is gone.
        jobs, store: the jobs and their files, which the clients are told of.
        text_model: the text-to-image model the backend is set to.
    """

    def __init__(self, send: Send, jobs: Jobs, store: Store, text_model: str = "") -> None:
        self.peers: dict[bytes, Peer] = {}
        self._send = send
        self._jobs = jobs
        self._store = store
        self._text_model = text_model
        self._device = ""
        self._models: tuple[m.ModelEntry, ...] = ()
        self._numbers = itertools.count(1)
        self._sent = self._blocked_turns = 0

    # --- sessions --------------------------------------------------------------------------------

    def join(
        self, address: bytes, user: str, hello: m.Hello, version: int, now: float
    ) -> Peer | None:
        """Begin a client's session, in place of its earlier one; None when there are too many."""
        known = self.peers.pop(address, None)
        if known is not None:
            known.close()
        send = partial(self._send, address)
        peer = Peer(address, send, hello, now, now, version, user)
        counted = sum(not other.is_command for other in self.peers.values())
        if not peer.is_command and counted >= MAX_PEERS - FOR_OWNER * (user != OWNER):
            return None
        self.peers[address] = peer
        log.info("%s has joined", peer.name)
        peer.post(self._welcome(version))
        return peer

    def leave(self, address: bytes, why: str) -> None:
        """End a client's session; its jobs go on."""
        peer = self.peers.pop(address, None)
        if peer is not None:
            peer.close()
            log.info("%s has left: %s", peer.name, why)

    def close(self) -> None:
        """End all sessions."""
        for peer in self.peers.values():
            peer.close()
        self.peers.clear()

    def heard(self, now: float | None = None) -> bool:
        """Return whether there is a client; with `now`, whether one was heard lately."""
        return any(now is None or now - p.last_heard < _HEARD_S for p in self.peers.values())

    def forgive(self, seconds: float) -> None:
        """Do not count a time in which nothing was heard from the clients."""
        for peer in self.peers.values():
            peer.last_heard += seconds

    # --- what they are told ----------------------------------------------------------------------

    def introduce(self, device: str, models: tuple[m.ModelEntry, ...]) -> None:
        """Tell all clients which models there are and what they run on."""
        self._device, self._models = device, models
        for peer in list(self.peers.values()):
            peer.post(self._welcome(peer.version))

    def _welcome(self, version: int) -> m.Welcome:
        return m.Welcome(
            version,
            __version__,
            self._models,
            self._device,
            {
                "image_bytes": limits.IMAGE_BYTES,
                "chunk_bytes": limits.CHUNK_BYTES,
                "transfer_bytes": limits.TRANSFER_BYTES,
                "heartbeat_s": limits.HEARTBEAT_S,
                "liveness_s": limits.LIVENESS_S,
            },
            self._text_model,
        )

    def watchers(self, job: str) -> list[Peer]:
        """Return the clients that watch a job."""
        return [peer for peer in self.peers.values() if job in peer.watching]

    def offer(self, peer: Peer, job: Job, artifact: StoredArtifact) -> None:
        """Queue an artifact for a client."""
        source = FileSource(self._store.folder(job.id) / artifact.file)
        kind = m.BY_TYPE[artifact.kind]
        assert issubclass(kind, m.Artifact)
        # Arrays that older clients do not know come last; they get the bytes before those.
        arrays = artifact.fields["arrays"]
        known = [a for a in arrays if OPTIONAL.get(a["name"], 0) <= peer.version]
        fields = {**artifact.fields, "arrays": known}
        peer.offer(Pending(job.id, kind, fields, source, artifact.replaceable))

    def tell_end(self, job: Job, message: m.Message) -> None:
        """Stop the transfers of a job, and tell all who watch it that it has ended."""
        for peer in self.watchers(job.id):
            peer.stop_job(job.id)
            peer.watching.discard(job.id)
            peer.post(message)

    def tell_queue(self, peer: Peer) -> None:
        """Post the queue to a client."""
        peer.told = self._state_of_queue(peer)
        peer.post(m.Queue(self._jobs.entries(peer.version, peer.hello.owner, self._owners())))

    def _owners(self) -> frozenset[str | None]:
        return frozenset(peer.hello.owner for peer in self.peers.values())

    def _state_of_queue(self, peer: Peer) -> object:
        """Return a value that changes whenever a client must be told of the queue again."""
        # Of jobs that it watches it is told everything at once.
        under_way = [job.progress for job in self._jobs.running if job.id not in peer.watching]
        return self._jobs.changes, self._owners(), under_way

    def answer(self, address: bytes, message: m.Message) -> None:
        """Answer a client that may have no session; drop the answer if it cannot be sent now."""
        peer = self.peers.get(address)
        if peer is not None:
            peer.post(message)
            return
        try:
            self._send(address, encode(message, 0))
        except zmq.ZMQError:
            log.info("a client went before its answer")

    # --- every turn ------------------------------------------------------------------------------

    def check(self, now: float) -> None:
        """Tell clients how the queue has changed, and end the sessions of those that have gone."""
        for address, peer in list(self.peers.items()):
            if peer.follows and peer.told != self._state_of_queue(peer):
                self.tell_queue(peer)
            silent = now - peer.last_heard
            if silent > 3 * limits.LIVENESS_S:
                self.leave(address, f"silent for {silent:.0f} s")
            elif silent >= limits.HEARTBEAT_S and now - peer.last_sent >= limits.HEARTBEAT_S:
                peer.post(m.Ping())

    def pump(self, now: float) -> None:
        """Send what can be sent now without waiting."""
        for address, peer in list(self.peers.items()):
            try:
                unreadable = peer.pump(lambda: next(self._numbers), now)
                for job, error in unreadable:
                    log.error("results of job %s cannot be read: %s", job, error)
                    what = "The results on the backend's disk cannot be read any more."
                    peer.post(m.Error("not_available", what, "Generate it again.", job))
                if peer.overwhelmed:
                    self.leave(address, "it asked for more and took nothing")
            except zmq.ZMQError as error:
                if error.errno != zmq.EHOSTUNREACH:
                    raise
                self.leave(address, "its connection has ended")

    def patience_ms(self) -> int:
        """Return how long to wait for messages; only shortly while a client's pipe is full."""
        peers = self.peers.values()
        if any(peer.busy and not peer.blocked for peer in peers):
            return 0
        if not any(peer.blocked for peer in peers):
            return 100
        sent = sum(peer.chunks_sent for peer in peers)
        self._blocked_turns = self._blocked_turns + 1 if sent == self._sent else 1
        self._sent = sent
        return min(self._blocked_turns, 10)

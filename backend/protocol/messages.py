# SPDX-License-Identifier: Apache-2.0
"""Define one class for each message. docs/protocol.md describes them; a test compares the two."""

from __future__ import annotations

from .arrays import ArraySpec, check_specs, total_bytes
from .entries import JobEntry, ModelEntry
from .fields import (
    Buffer,
    Choice,
    Flag,
    Integer,
    JobId,
    Key,
    ListOf,
    Name,
    Number,
    NumbersByName,
    Record,
    Text,
    check_fields,
    wire,
)
from .limits import (
    CHUNK_BYTES,
    CREDIT_CHUNKS,
    IMAGE_BYTES,
    LABEL_CHARS,
    PATH_CHARS,
    PROMPT_CHARS,
    QUEUE_ENTRIES,
    TRANSFER_BYTES,
    VIEWS,
)
from .message import AboutJob, FromClient, FromServer, Message

#: The kinds of artifacts a client may ask for in hello.
CAPABILITIES = ("views", "gaussians", "mesh", "file")
#: Files a job may write, by their extension: of an object as wished; of words, and of what is cut
#: out, the picture.
WISHED_FILES = ("glb", "ply")
FILE_NAMES = (*WISHED_FILES, "png")
#: Whether the object's mirror plane is estimated, left alone, or given.
MIRRORS = ("auto", "off", "plane")
#: Where the model's views stand; "model": on its own orbit.
ORBITS = ("model", "static", "sine", "dynamic")
#: How soon a job is done: before the client's batches, or as one of a batch.
PRIORITIES = ("interactive", "batch")
#: Reasons of an error message.
ERROR_CODES = (
    "version",  # no common protocol version
    "no_session",  # the server does not know this client: send hello again
    "invalid",  # the message broke a rule or a limit; it was not acted on
    "busy",  # the queue is full
    "unknown_job",  # no job of that id
    "not_available",  # the results are no longer, or not yet, there
    "disk",  # the data folder cannot be written
    "internal",  # a fault of the backend
)
_BIG = 2**62


# --- from client to server -----------------------------------------------------------------------


class Hello(FromClient):
    """The first message of a client; starts its session anew."""

    versions: tuple[int, ...] = wire(ListOf(Integer(0, 65535), 32))
    client: str = wire(Text(128), default="")
    capabilities: tuple[str, ...] = wire(
        ListOf(Choice(CAPABILITIES), len(CAPABILITIES)), default=CAPABILITIES
    )
    owner: str | None = wire(JobId(optional=True), default=None)  # of the jobs it submits


class Submit(FromClient, AboutJob):
    """A job. The same id again is the same job: nothing is done twice."""

    image: bytes = wire(Buffer(1, IMAGE_BYTES))  # the bytes of a picture file
    filename: str = wire(Text(LABEL_CHARS), default="")  # shown, never opened
    model: str = wire(Name(), default="blockout")
    steps: int | None = wire(Integer(1, 200, optional=True), default=None)
    seed: int = wire(Integer(0, 2**31 - 1), default=0)
    faces: int = wire(Integer(20, 500_000), default=5000)
    texture_size: int = wire(Integer(16, 8192), default=1024)
    #: Degrees, of the reference view; None: estimated (since version 3).
    elevation: float | None = wire(Number(-90, 90, optional=True), default=10.0)
    previews: int = wire(Integer(0, 50), default=3)  # coarse Gaussians on the way
    files: tuple[str, ...] = wire(ListOf(Choice(WISHED_FILES), len(WISHED_FILES)), default=())
    mirror: str = wire(Choice(MIRRORS), default="off")
    plane: float = wire(Number(-360, 360), default=0.0)  # degrees, where mirror is "plane"
    orbit: str = wire(Choice(ORBITS), default="model")  # of the views; "model": the model's own
    frames: int | None = wire(Integer(2, VIEWS, optional=True), default=None)  # None: its own
    #: Degrees of the views, the picture's own last, instead of orbit and frames; empty: not given.
    azimuths: tuple[float, ...] = wire(ListOf(Number(0, 360), VIEWS), default=())
    elevations: tuple[float, ...] = wire(ListOf(Number(-90, 90), VIEWS), default=())
    refine: bool = wire(Flag(), default=False)  # fit the Gaussians to the model's own views
    priority: str = wire(Choice(PRIORITIES), default="interactive")


class Imagine(FromClient, AboutJob):
    """A job that makes a reference picture of words; its result is one file named "png"."""

    prompt: str = wire(Text(PROMPT_CHARS))
    text_model: str = wire(Text(PATH_CHARS), default="")  # empty: the one the backend is set to
    steps: int | None = wire(Integer(1, 200, optional=True), default=None)
    guidance: float | None = wire(Number(0, 50, optional=True), default=None)
    seed: int = wire(Integer(0, 2**31 - 1), default=0)


class Cutout(FromClient, AboutJob):
    """A job that cuts the object out of a picture; its result is one file named "png"."""

    image: bytes = wire(Buffer(1, IMAGE_BYTES))  # the bytes of a picture file
    filename: str = wire(Text(LABEL_CHARS), default="")  # shown, never opened


class Cancel(FromClient, AboutJob):
    """Stop a job, waiting or running."""


class Fetch(FromClient, AboutJob):
    """Ask for all that a job has made so far and for what happens to it from now on."""


class Status(FromClient):
    """Ask for the queue; with `follow`, for every change of it too."""

    follow: bool = wire(Flag(), default=False)


class Credit(FromClient):
    """Allow so many more chunks of a transfer."""

    transfer: int = wire(Integer(1, _BIG))
    chunks: int = wire(Integer(1, CREDIT_CHUNKS))


class Ack(FromClient, AboutJob):
    """Tell that a job's results are in use; the backend keeps its copy until forget."""


class Free(FromClient):
    """Free the memory of models that no job is using."""


class Forget(FromClient, AboutJob):
    """Delete a job that is over, and its results."""


class Retry(FromClient, AboutJob):
    """Do a failed or cancelled job again, after those that wait."""


class Move(FromClient, AboutJob):
    """Give a waiting job another place among those that wait."""

    place: int = wire(Integer(0, 1_000_000))  # 0: the next one


class Shutdown(FromClient):
    """End the backend; waiting jobs stay in the journal."""

    #: End this client's session, and the backend only if a program started it for itself and no
    #: other client is there.
    if_alone: bool = wire(Flag(), default=False)


class Invite(FromClient):
    """Make a pairing code; only from the backend's own computer."""

    address: str = wire(Text(LABEL_CHARS), default="")  # HOST or HOST:PORT; empty: as it listens


class Pair(FromClient):
    """Let the holder of a key in from now on; outside a session, by a pairing code."""

    key: str = wire(Key())
    client: str = wire(Text(128), default="")


# --- both ways -----------------------------------------------------------------------------------


class Ping(Message):
    """Ask whether the other side is there."""


class Pong(Message):
    """Answer a ping."""


# --- from server to client -----------------------------------------------------------------------


class Welcome(FromServer):
    """The answer to hello; sent again when something in it changes."""

    version: int = wire(Integer(0, 65535))  # the protocol version chosen
    backend: str = wire(Text(64))  # the backend's own version
    models: tuple[ModelEntry, ...] = wire(ListOf(Record(ModelEntry), 64), default=())
    device: str = wire(Text(128), default="")  # empty until the worker is up
    limits: dict[str, float] = wire(NumbersByName(), default_factory=dict)
    text_model: str = wire(Text(PATH_CHARS), default="")  # the one it is set to; empty: none


class Accepted(FromServer, AboutJob):
    """The job is in the journal."""

    position: int = wire(Integer(0, 1_000_000))  # jobs before it; 0: next or running


class Progress(FromServer, AboutJob):
    """Tell how far a job is; a newer message replaces an older one that is not yet sent."""

    phase: str = wire(Name())
    step: int = wire(Integer(0, 1_000_000))
    of: int = wire(Integer(0, 1_000_000))
    eta_s: float | None = wire(Number(0, 1e7, optional=True), default=None)
    fraction: float | None = wire(Number(0, 1, optional=True), default=None)  # of the whole job


class Artifact(FromServer, AboutJob):
    """Base of the announcements: arrays that follow as chunks, as credit allows."""

    transfer: int = wire(Integer(1, _BIG))
    arrays: tuple[ArraySpec, ...] = wire(ListOf(Record(ArraySpec), 16, 1))

    def __post_init__(self) -> None:
        check_fields(self)
        check_specs(self.TYPE, self.arrays)

    @property
    def nbytes(self) -> int:
        """Return the bytes of all arrays together."""
        return total_bytes(self.arrays)


class Views(Artifact):
    """Images of the orbit: images (V,H,W,3) uint8 sRGB, azimuths (V) float32 degrees."""

    final: bool = wire(Flag(), default=False)


class Gaussians(Artifact):
    """Gaussians decoded at a denoising step; a newer message supersedes an older one."""

    step: int = wire(Integer(0, 1_000_000), default=0)
    of: int = wire(Integer(0, 1_000_000), default=0)
    final: bool = wire(Flag(), default=False)
    box: dict[str, float] = wire(NumbersByName(), default_factory=dict)  # as in Mesh


class Mesh(Artifact):
    """The textured mesh: vertices (P,3), faces (F,3), corner_uvs (F,3,2), texture (T,T,3).

    And alpha (T,T) where the texture has holes: below 128 nothing of the mesh shows.
    """

    # Of the picture's cut-out; nil where the picture brought its own transparency.
    certainty: float | None = wire(Number(0, 1, optional=True), default=None)
    pose: dict[str, float] = wire(NumbersByName(), default_factory=dict)  # that it was made with
    # Of the object in the picture: left, top, right and bottom in parts of its sides.
    box: dict[str, float] = wire(NumbersByName(), default_factory=dict)


class File(Artifact):
    """A result as a file: data (B) uint8."""

    name: str = wire(Choice(FILE_NAMES))
    certainty: float | None = wire(Number(0, 1, optional=True), default=None)  # of a cut-out


class Chunk(FromServer):
    """The next bytes of a transfer."""

    transfer: int = wire(Integer(1, _BIG))
    offset: int = wire(Integer(0, TRANSFER_BYTES))
    data: bytes = wire(Buffer(1, CHUNK_BYTES))


class Dropped(FromServer, AboutJob):
    """An announced transfer will not be completed, since a newer one took its place."""

    transfer: int = wire(Integer(1, _BIG))


class Done(FromServer, AboutJob):
    """The job is done; sent after the last chunk of its results."""

    timings: dict[str, float] = wire(NumbersByName(), default_factory=dict)  # seconds by phase


class Failed(FromServer, AboutJob):
    """The job has failed: what, why, and what to do."""

    what: str = wire(Text())
    why: str = wire(Text(), default="")
    hint: str = wire(Text(), default="")


class Cancelled(FromServer, AboutJob):
    """The job was stopped; nothing more of it follows."""


class Queue(FromServer):
    """The jobs the backend knows, newest last; the answer to status."""

    jobs: tuple[JobEntry, ...] = wire(ListOf(Record(JobEntry), QUEUE_ENTRIES), default=())


class Acked(FromServer, AboutJob):
    """The job's results are noted as in use."""


class Forgotten(FromServer, AboutJob):
    """The backend no longer knows the job."""


class Invitation(FromServer):
    """A pairing code, and how long it works; the answer to invite."""

    code: str = wire(Text())
    seconds: int = wire(Integer(1, 86_400))


class Paired(FromServer):
    """The client's key is known from now on; the answer to pair."""


class Error(FromServer):
    """Something the client sent was not acted on."""

    code: str = wire(Choice(ERROR_CODES))
    what: str = wire(Text())
    hint: str = wire(Text(), default="")
    job: str | None = wire(JobId(optional=True), default=None)


class Bye(FromServer):
    """The backend is ending."""

    why: str = wire(Text(), default="")


ALL: tuple[type[Message], ...] = (
    Hello, Submit, Imagine, Cutout, Cancel, Fetch, Status, Credit, Ack, Forget, Retry, Move,
    Free, Shutdown, Invite, Pair, Ping, Pong, Welcome, Accepted, Progress, Views, Gaussians, Mesh,
    File, Chunk, Dropped, Done, Failed, Cancelled, Acked, Forgotten, Queue, Invitation, Paired,
    Error, Bye,
)  # fmt: skip
#: A message that begins a job.
JobMessage = Submit | Imagine | Cutout
BY_TYPE: dict[str, type[Message]] = {message.TYPE: message for message in ALL}

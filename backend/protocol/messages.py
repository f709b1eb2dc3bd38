# SPDX-License-Identifier: Apache-2.0
"""One frozen dataclass per message. docs/protocol.md describes each; a test compares the two.

`TYPE` is the name in the header, `SENDER` who may send it. Every field is checked when a message
is made, so a message that exists is within all limits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .arrays import ArraySpec, check_specs, total_bytes
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
    label,
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
from .versions import JOB_VERSIONS

#: The kinds of artifacts a client may ask for in hello.
CAPABILITIES = ("views", "gaussians", "mesh", "file")
#: Files a job may write, by their extension: of an object as wished; of words, and of what is cut
#: out, the picture.
WISHED_FILES = ("glb", "ply")
FILE_NAMES = (*WISHED_FILES, "png")
#: Whether the object's mirror plane is estimated, left alone, or given.
MIRRORS = ("auto", "off", "plane")
#: What `gsv3d models` can do with a model by its name.
CHANGES = ("", "add", "remove")
#: Where the model's views stand; "model": on its own orbit.
ORBITS = ("model", "static", "sine", "dynamic")
#: How soon a job is done: before the client's batches, or as one of a batch.
PRIORITIES = ("interactive", "batch")
#: The states of a job.
STATES = ("accepted", "running", "done", "fetched", "failed", "cancelled")
#: Whose a job is: this client's, that of another client which is connected, or of none that is.
OWNERS = ("you", "other", "gone")
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


@dataclass(frozen=True)
class Message:
    """Base of all messages."""

    TYPE: ClassVar[str] = ""
    SENDER: ClassVar[str] = ""  # "client", "server" or "both"

    def __post_init__(self) -> None:
        check_fields(self)


# --- from client to server -----------------------------------------------------------------------


@dataclass(frozen=True)
class Hello(Message):
    """The first message of a client; starts its session anew."""

    TYPE: ClassVar[str] = "hello"
    SENDER: ClassVar[str] = "client"
    versions: tuple[int, ...] = wire(ListOf(Integer(0, 65535), 32))
    client: str = wire(Text(128), default="")
    capabilities: tuple[str, ...] = wire(
        ListOf(Choice(CAPABILITIES), len(CAPABILITIES)), default=CAPABILITIES
    )
    owner: str | None = wire(JobId(optional=True), default=None)  # of the jobs it submits


@dataclass(frozen=True)
class Submit(Message):
    """A job. The same id again is the same job: nothing is done twice."""

    TYPE: ClassVar[str] = "submit"
    SENDER: ClassVar[str] = "client"
    job: str = wire(JobId())
    image: bytes = wire(Buffer(1, IMAGE_BYTES))  # the bytes of a picture file
    filename: str = wire(label(), default="")  # shown, never opened
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


@dataclass(frozen=True)
class Imagine(Message):
    """A job that makes a reference picture of words; its result is one file named "png"."""

    TYPE: ClassVar[str] = "imagine"
    SENDER: ClassVar[str] = "client"
    job: str = wire(JobId())
    prompt: str = wire(Text(PROMPT_CHARS))
    text_model: str = wire(Text(PATH_CHARS), default="")  # empty: the one the backend is set to
    steps: int | None = wire(Integer(1, 200, optional=True), default=None)
    guidance: float | None = wire(Number(0, 50, optional=True), default=None)
    seed: int = wire(Integer(0, 2**31 - 1), default=0)


@dataclass(frozen=True)
class Cutout(Message):
    """A job that cuts the object out of a picture; its result is one file named "png"."""

    TYPE: ClassVar[str] = "cutout"
    SENDER: ClassVar[str] = "client"
    job: str = wire(JobId())
    image: bytes = wire(Buffer(1, IMAGE_BYTES))  # the bytes of a picture file
    filename: str = wire(label(), default="")  # shown, never opened


@dataclass(frozen=True)
class Cancel(Message):
    """Stop a job, waiting or running."""

    TYPE: ClassVar[str] = "cancel"
    SENDER: ClassVar[str] = "client"
    job: str = wire(JobId())


@dataclass(frozen=True)
class Fetch(Message):
    """Send me what happens to this job, and what it has made so far, from the beginning."""

    TYPE: ClassVar[str] = "fetch"
    SENDER: ClassVar[str] = "client"
    job: str = wire(JobId())


@dataclass(frozen=True)
class Status(Message):
    """Ask for the queue; with `follow`, for every change of it too."""

    TYPE: ClassVar[str] = "status"
    SENDER: ClassVar[str] = "client"
    follow: bool = wire(Flag(), default=False)


@dataclass(frozen=True)
class Credit(Message):
    """So many more chunks of a transfer may be sent."""

    TYPE: ClassVar[str] = "credit"
    SENDER: ClassVar[str] = "client"
    transfer: int = wire(Integer(1, _BIG))
    chunks: int = wire(Integer(1, CREDIT_CHUNKS))


@dataclass(frozen=True)
class Ack(Message):
    """The results of a job are in use here; the server keeps its copy until forget."""

    TYPE: ClassVar[str] = "ack"
    SENDER: ClassVar[str] = "client"
    job: str = wire(JobId())


@dataclass(frozen=True)
class Acked(Message):
    """The job's results are noted as in use."""

    TYPE: ClassVar[str] = "acked"
    SENDER: ClassVar[str] = "server"
    job: str = wire(JobId())


@dataclass(frozen=True)
class Free(Message):
    """Free the memory of models that no job is using."""

    TYPE: ClassVar[str] = "free"
    SENDER: ClassVar[str] = "client"


@dataclass(frozen=True)
class Forget(Message):
    """Delete a job that is over, and its results."""

    TYPE: ClassVar[str] = "forget"
    SENDER: ClassVar[str] = "client"
    job: str = wire(JobId())


@dataclass(frozen=True)
class Retry(Message):
    """Do a failed or cancelled job again, after those that wait."""

    TYPE: ClassVar[str] = "retry"
    SENDER: ClassVar[str] = "client"
    job: str = wire(JobId())


@dataclass(frozen=True)
class Move(Message):
    """Give a waiting job another place among those that wait."""

    TYPE: ClassVar[str] = "move"
    SENDER: ClassVar[str] = "client"
    job: str = wire(JobId())
    place: int = wire(Integer(0, 1_000_000))  # 0: the next one


@dataclass(frozen=True)
class Shutdown(Message):
    """End the backend; waiting jobs stay in the journal."""

    TYPE: ClassVar[str] = "shutdown"
    SENDER: ClassVar[str] = "client"
    #: End this client's session, and the backend only if a program started it for itself and no
    #: other client is there.
    if_alone: bool = wire(Flag(), default=False)


@dataclass(frozen=True)
class Invite(Message):
    """Make a pairing code; only from the backend's own computer."""

    TYPE: ClassVar[str] = "invite"
    SENDER: ClassVar[str] = "client"
    address: str = wire(Text(LABEL_CHARS), default="")  # HOST or HOST:PORT; empty: as it listens


@dataclass(frozen=True)
class Pair(Message):
    """Let the holder of a key in from now on; outside a session, by a pairing code."""

    TYPE: ClassVar[str] = "pair"
    SENDER: ClassVar[str] = "client"
    key: str = wire(Key())
    client: str = wire(Text(128), default="")


# --- both ways -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ping(Message):
    """Are you there?"""

    TYPE: ClassVar[str] = "ping"
    SENDER: ClassVar[str] = "both"


@dataclass(frozen=True)
class Pong(Message):
    """Yes."""

    TYPE: ClassVar[str] = "pong"
    SENDER: ClassVar[str] = "both"


# --- from server to client -----------------------------------------------------------------------


@dataclass(frozen=True)
class ModelEntry:
    """A model the backend knows."""

    name: str = wire(Name())
    installed: bool = wire(Flag())
    description: str = wire(Text(), default="")
    how_to_get: str = wire(Text(), default="")  # empty where it is installed
    decoder: bool = wire(Flag(), default=True)  # whether it makes Gaussians, and not views alone
    license: str = wire(Text(), default="")  # in a few words; empty: not recorded
    change: str = wire(Choice(CHANGES), default="")

    def __post_init__(self) -> None:
        check_fields(self, "models.")


@dataclass(frozen=True)
class Welcome(Message):
    """The answer to hello; sent again when something in it changes."""

    TYPE: ClassVar[str] = "welcome"
    SENDER: ClassVar[str] = "server"
    version: int = wire(Integer(0, 65535))  # the protocol version chosen
    backend: str = wire(Text(64))  # the backend's own version
    models: tuple[ModelEntry, ...] = wire(ListOf(Record(ModelEntry), 64), default=())
    device: str = wire(Text(128), default="")  # empty until the worker is up
    limits: dict[str, float] = wire(NumbersByName(), default_factory=dict)
    text_model: str = wire(Text(PATH_CHARS), default="")  # the one it is set to; empty: none


@dataclass(frozen=True)
class Accepted(Message):
    """The job is in the journal."""

    TYPE: ClassVar[str] = "accepted"
    SENDER: ClassVar[str] = "server"
    job: str = wire(JobId())
    position: int = wire(Integer(0, 1_000_000))  # jobs before it; 0: next or running


@dataclass(frozen=True)
class Progress(Message):
    """Where a job is. A newer one replaces an older one that is not yet sent."""

    TYPE: ClassVar[str] = "progress"
    SENDER: ClassVar[str] = "server"
    job: str = wire(JobId())
    phase: str = wire(Name())
    step: int = wire(Integer(0, 1_000_000))
    of: int = wire(Integer(0, 1_000_000))
    eta_s: float | None = wire(Number(0, 1e7, optional=True), default=None)
    fraction: float | None = wire(Number(0, 1, optional=True), default=None)  # of the whole job


@dataclass(frozen=True)
class Artifact(Message):
    """Base of the announcements: arrays that follow as chunks, as credit allows."""

    KIND: ClassVar[str] = ""
    job: str = wire(JobId())
    transfer: int = wire(Integer(1, _BIG))
    arrays: tuple[ArraySpec, ...] = wire(ListOf(Record(ArraySpec), 16, 1))

    def __post_init__(self) -> None:
        check_fields(self)
        check_specs(self.KIND, self.arrays)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays together."""
        return total_bytes(self.arrays)


@dataclass(frozen=True)
class Views(Artifact):
    """Images of the orbit: images (V,H,W,3) uint8 sRGB, azimuths (V) float32 degrees."""

    TYPE: ClassVar[str] = "views"
    KIND: ClassVar[str] = "views"
    SENDER: ClassVar[str] = "server"
    final: bool = wire(Flag(), default=False)


@dataclass(frozen=True)
class Gaussians(Artifact):
    """Gaussians decoded at a denoising step; a newer message supersedes an older one."""

    TYPE: ClassVar[str] = "gaussians"
    KIND: ClassVar[str] = "gaussians"
    SENDER: ClassVar[str] = "server"
    step: int = wire(Integer(0, 1_000_000), default=0)
    of: int = wire(Integer(0, 1_000_000), default=0)
    final: bool = wire(Flag(), default=False)
    box: dict[str, float] = wire(NumbersByName(), default_factory=dict)  # as in Mesh


@dataclass(frozen=True)
class Mesh(Artifact):
    """The textured mesh: vertices (P,3), faces (F,3), corner_uvs (F,3,2), texture (T,T,3).

    And alpha (T,T) where the texture has holes: below 128 nothing of the mesh shows.
    """

    TYPE: ClassVar[str] = "mesh"
    KIND: ClassVar[str] = "mesh"
    SENDER: ClassVar[str] = "server"
    # Of the picture's cut-out; nil where the picture brought its own transparency.
    certainty: float | None = wire(Number(0, 1, optional=True), default=None)
    pose: dict[str, float] = wire(NumbersByName(), default_factory=dict)  # that it was made with
    # Of the object in the picture: left, top, right and bottom in parts of its sides.
    box: dict[str, float] = wire(NumbersByName(), default_factory=dict)


@dataclass(frozen=True)
class File(Artifact):
    """A result as a file: data (B) uint8."""

    TYPE: ClassVar[str] = "file"
    KIND: ClassVar[str] = "file"
    SENDER: ClassVar[str] = "server"
    name: str = wire(Choice(FILE_NAMES))
    certainty: float | None = wire(Number(0, 1, optional=True), default=None)  # of a cut-out


@dataclass(frozen=True)
class Chunk(Message):
    """The next bytes of a transfer."""

    TYPE: ClassVar[str] = "chunk"
    SENDER: ClassVar[str] = "server"
    transfer: int = wire(Integer(1, _BIG))
    offset: int = wire(Integer(0, TRANSFER_BYTES))
    data: bytes = wire(Buffer(1, CHUNK_BYTES))


@dataclass(frozen=True)
class Dropped(Message):
    """An announced transfer will not be completed: something newer took its place."""

    TYPE: ClassVar[str] = "dropped"
    SENDER: ClassVar[str] = "server"
    job: str = wire(JobId())
    transfer: int = wire(Integer(1, _BIG))


@dataclass(frozen=True)
class Done(Message):
    """The job is done; sent after the last chunk of its results."""

    TYPE: ClassVar[str] = "done"
    SENDER: ClassVar[str] = "server"
    job: str = wire(JobId())
    timings: dict[str, float] = wire(NumbersByName(), default_factory=dict)  # seconds by phase


@dataclass(frozen=True)
class Failed(Message):
    """The job has failed: what, why, and what to do."""

    TYPE: ClassVar[str] = "failed"
    SENDER: ClassVar[str] = "server"
    job: str = wire(JobId())
    what: str = wire(Text())
    why: str = wire(Text(), default="")
    hint: str = wire(Text(), default="")


@dataclass(frozen=True)
class Cancelled(Message):
    """The job was stopped; nothing more of it follows."""

    TYPE: ClassVar[str] = "cancelled"
    SENDER: ClassVar[str] = "server"
    job: str = wire(JobId())


@dataclass(frozen=True)
class JobEntry:
    """One job in the queue message."""

    job: str = wire(JobId())
    state: str = wire(Choice(STATES))
    filename: str = wire(Text(LABEL_CHARS), default="")
    model: str = wire(Text(64), default="")
    position: int = wire(Integer(0, 1_000_000), default=0)
    phase: str = wire(Text(64), default="")
    step: int = wire(Integer(0, 1_000_000), default=0)
    of: int = wire(Integer(0, 1_000_000), default=0)
    eta_s: float | None = wire(Number(0, 1e7, optional=True), default=None)
    what: str = wire(Text(300), default="")  # of a failed job: its sentence, cut to length
    kind: str = wire(Choice(tuple(JOB_VERSIONS)), default="submit")  # the message that began it
    owner: str = wire(Choice(OWNERS), default="gone")
    settings: dict[str, float] = wire(NumbersByName(), default_factory=dict)
    device: str = wire(Text(128), default="")  # of the running one: what it runs on

    def __post_init__(self) -> None:
        check_fields(self, "jobs.")


@dataclass(frozen=True)
class Queue(Message):
    """The jobs the backend knows, newest last; the answer to status."""

    TYPE: ClassVar[str] = "queue"
    SENDER: ClassVar[str] = "server"
    jobs: tuple[JobEntry, ...] = wire(ListOf(Record(JobEntry), QUEUE_ENTRIES), default=())


@dataclass(frozen=True)
class Forgotten(Message):
    """The backend no longer knows the job."""

    TYPE: ClassVar[str] = "forgotten"
    SENDER: ClassVar[str] = "server"
    job: str = wire(JobId())


@dataclass(frozen=True)
class Invitation(Message):
    """A pairing code, and how long it works; the answer to invite."""

    TYPE: ClassVar[str] = "invitation"
    SENDER: ClassVar[str] = "server"
    code: str = wire(Text())
    seconds: int = wire(Integer(1, 86_400))


@dataclass(frozen=True)
class Paired(Message):
    """The client's key is known from now on; the answer to pair."""

    TYPE: ClassVar[str] = "paired"
    SENDER: ClassVar[str] = "server"


@dataclass(frozen=True)
class Error(Message):
    """Something the client sent was not acted on."""

    TYPE: ClassVar[str] = "error"
    SENDER: ClassVar[str] = "server"
    code: str = wire(Choice(ERROR_CODES))
    what: str = wire(Text())
    hint: str = wire(Text(), default="")
    job: str | None = wire(JobId(optional=True), default=None)


@dataclass(frozen=True)
class Bye(Message):
    """The backend is ending."""

    TYPE: ClassVar[str] = "bye"
    SENDER: ClassVar[str] = "server"
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

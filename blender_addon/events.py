# SPDX-License-Identifier: GPL-3.0-or-later
"""Events of the socket thread for the main thread, with checked data. No bpy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from .importers.prepare import GaussianArrays, MeshArrays, Sheet
from .problems import Problem


@dataclass(frozen=True)
class ModelChoice:
    """A model the backend knows.

    ``how_to_get`` says what to do when it is not installed, ``decoder`` whether it makes Gaussians
    and not views alone, ``change`` what can be done with it: "add", "remove" or nothing.
    """

    name: str
    installed: bool = True
    description: str = ""
    how_to_get: str = ""
    decoder: bool = True
    license: str = ""
    change: str = ""


@dataclass(frozen=True)
class Connected:
    """The backend answered, and speaks our version of the protocol.

    ``makes_pictures`` is False for a backend too old to make pictures of words; ``text_model`` is
    the text-to-image model it is set to, empty for none; ``host`` the computer it runs on, empty
    for this one.
    """

    device: str
    models: tuple[ModelChoice, ...]
    makes_pictures: bool = False
    text_model: str = ""
    host: str = ""


@dataclass(frozen=True)
class Paired:
    """A backend on another computer knows this one; its connection file was written."""

    connection_file: Path


@dataclass(frozen=True)
class Disconnected:
    """There is no backend to talk to; the thread keeps trying.

    ``lasting`` is True when trying again cannot help, as with another version.
    """

    problem: Problem
    lasting: bool = False


@dataclass(frozen=True)
class JobAccepted:
    job: str
    position: int


@dataclass(frozen=True)
class JobProgressed:
    job: str
    phase: str
    step: int
    of: int
    eta_s: float | None
    fraction: float | None = None


@dataclass(frozen=True)
class ViewsArrived:
    job: str
    sheet: Sheet


@dataclass(frozen=True)
class GaussiansArrived:
    job: str
    arrays: GaussianArrays
    step: int
    of: int
    final: bool
    box: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class MeshArrived:
    """``box`` is where the picture shows the object: left, top, right, bottom in 0..1, or empty."""

    job: str
    arrays: MeshArrays
    pose: dict[str, float] = field(default_factory=dict)
    box: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class FileArrived:
    """``name`` is the format: ``"glb"``, ``"ply"``, or ``"png"`` for a picture.

    A picture is made of words, or is a cut-out with its ``certainty`` in 0..1, which is None where
    the original had transparency.
    """

    job: str
    name: str
    data: bytes
    certainty: float | None = None


@dataclass(frozen=True)
class JobDone:
    job: str
    timings: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class JobFailed:
    job: str
    problem: Problem


@dataclass(frozen=True)
class JobCancelled:
    job: str


@dataclass(frozen=True)
class ListedJob:
    """A job as the backend's list has it.

    ``state`` is the backend's word for it, ``kind`` the message that began it, ``owner`` "you",
    "other" (another Blender) or "gone" (one that has ended). ``settings`` are numbers by name,
    ``device`` is what a running one runs on.
    """

    job: str
    state: str
    filename: str
    kind: str = "submit"
    owner: str = "gone"
    position: int = 0
    phase: str = ""
    step: int = 0
    of: int = 0
    eta_s: float | None = None
    what: str = ""
    settings: dict[str, float] = field(default_factory=dict)
    device: str = ""


@dataclass(frozen=True)
class JobsListed:
    """The backend's list of jobs, newest last."""

    jobs: tuple[ListedJob, ...]


@dataclass(frozen=True)
class BackendComplained:
    """The backend could not make sense of something that belongs to no job."""

    problem: Problem


Event = (
    Connected
    | Disconnected
    | Paired
    | JobAccepted
    | JobProgressed
    | ViewsArrived
    | GaussiansArrived
    | MeshArrived
    | FileArrived
    | JobDone
    | JobFailed
    | JobCancelled
    | JobsListed
    | BackendComplained
)

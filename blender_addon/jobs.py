# SPDX-License-Identifier: GPL-3.0-or-later
"""The jobs that this Blender shows, their states and their progress in words. No bpy."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from .events import ListedJob
from .requests import Request, Target, Words

PHASES = (
    # name on the wire, words for the artist, share of the whole time
    ("loading", "Loading the model", 0.05),
    ("preparing", "Preparing picture", 0.03),
    ("denoising", "Making views", 0.52),
    ("decoding", "Making splats", 0.05),
    ("fitting", "Fitting splats", 0.05),
    ("fusing", "Building the surface", 0.12),
    ("simplifying", "Reducing faces", 0.03),
    ("unwrapping", "Unwrapping", 0.07),
    ("texturing", "Painting the texture", 0.08),
)
WORDS_PHASES = (
    # of a job that makes a picture of words
    ("loading", "Loading the model", 0.25),
    ("imagining", "Drawing", 0.70),
    ("cutting", "Cutting out", 0.05),
)


class JobState(Enum):
    """What a job is doing; the value is the word in the list."""

    WAITING = "waiting"  # for the backend to answer
    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    ARRIVED = "ready"  # all results are here, not (all) in the scene
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def active(self) -> bool:
        """Return True while the backend still owes something."""
        return self in (JobState.WAITING, JobState.QUEUED, JobState.RUNNING, JobState.CANCELLING)


_LISTED_STATES = {
    "accepted": JobState.QUEUED,
    "running": JobState.RUNNING,
    "done": JobState.ARRIVED,
    "fetched": JobState.DONE,
    "failed": JobState.FAILED,
    "cancelled": JobState.CANCELLED,
}
"""The backend's words for states."""


@dataclass
class Job:
    """One picture on its way to an object, or words on their way to a picture."""

    request: Request | Words
    target: Target
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    state: JobState = JobState.WAITING
    phase: str = ""
    step: int = 0
    of: int = 0
    eta_s: float | None = None
    position: int = 0
    what: str = ""
    hint: str = ""
    detached: bool = False  # its results come into the scene on request alone
    listed: bool = False  # known from the backend's list alone: nothing of it is sent by itself
    elsewhere: bool = False  # of another Blender that uses the backend too
    kept: bool = False  # the backend holds its results
    again: bool = False  # is done again, from the picture that the backend holds
    settings: dict[str, float] = field(default_factory=dict)  # by the backend's list
    started: float = 0.0
    timings: dict[str, float] = field(default_factory=dict)
    pose: dict[str, float] = field(default_factory=dict)
    device: str = ""
    footprint: tuple[float, float] | None = None  # width and depth in Blender units
    _furthest: float = 0.0

    @classmethod
    def from_list(cls, entry: ListedJob, name: str) -> Job:
        """Make a job that the backend knows and this Blender did not ask for."""
        words = entry.kind == "imagine"
        job = cls(
            Words(entry.filename) if words else Request(b"", entry.filename),
            Target(name),
            id=entry.job,
            detached=True,
            listed=True,
        )
        job.follow(entry)
        return job

    def follow(self, entry: ListedJob) -> None:
        """Take over what the backend's list tells of a job that is `listed`."""
        self.elsewhere = entry.owner == "other"
        self.settings = entry.settings
        self.kept = entry.state in ("done", "fetched")
        self.state = _LISTED_STATES[entry.state]
        self.position, self.device = entry.position, entry.device
        if self.state is JobState.RUNNING and entry.phase:
            self.progress(entry.phase, entry.step, entry.of, entry.eta_s)
        if self.state is JobState.FAILED:
            self.what = entry.what

    def begin_again(self) -> None:
        """Forget how the job ended."""
        self.state, self.what, self.hint = JobState.WAITING, "", ""
        self.started = self._furthest = 0.0
        self.timings, self.listed = {}, False

    @property
    def name(self) -> str:
        return self.target.name

    @property
    def may_import(self) -> bool:
        """Return True when its results can be brought into the scene, perhaps once more."""
        on_its_way = self.state is JobState.ARRIVED and not self.detached
        return self.kept and not self.state.active and not on_its_way

    @property
    def may_retry(self) -> bool:
        """Return True when it failed or was cancelled and can be done again."""
        return self.state in (JobState.FAILED, JobState.CANCELLED) and not self.kept

    def progress(
        self, phase: str, step: int, of: int, eta_s: float | None, fraction: float | None = None
    ) -> None:
        """Take a progress message. A cancelling job stays cancelling."""
        if not self.started:
            self.started = time.monotonic()
        if self.state in (JobState.WAITING, JobState.QUEUED):
            self.state = JobState.RUNNING
        self.phase, self.step, self.of, self.eta_s = phase, step, of, eta_s
        share = fraction if fraction is not None else _fraction(phase, step, of)
        self._furthest = max(self._furthest, min(1.0, share))

    @property
    def fraction(self) -> float:
        """Return the share that is done, 0..1; it never goes back."""
        if self.state in (JobState.ARRIVED, JobState.DONE):
            return 1.0
        return self._furthest

    def describe(self) -> str:
        """Return one line for the list and the progress bar."""
        if self.state is JobState.RUNNING:
            words = phase_words(self.phase)
            steps = f" {self.step}/{self.of}" if self.of > 1 else ""
            eta = f", {eta_text(self.eta_s)}" if self.eta_s is not None else ""
            return f"{words}{steps}{eta}"
        if self.state is JobState.QUEUED and self.position > 0:
            return f"queued, {self.position} before it"
        if self.state is JobState.WAITING:
            return "waiting for the backend"
        if self.state is JobState.FAILED:
            return f"failed: {self.what}"
        if self.state is JobState.ARRIVED and self.detached:
            return "ready: press Import to place it in this scene"
        if self.state is JobState.DONE and self.elsewhere:
            return "done, in another Blender"
        return self.state.value


def pose_words(pose: dict[str, float]) -> str:
    """Return words for the camera and the mirror plane that the backend used."""
    if "elevation" not in pose:
        return ""
    words = f"Seen from {pose['elevation']:.0f}°"
    return words + (f", mirrored at {pose['plane']:.0f}°" if "plane" in pose else ", not mirrored")


def phase_words(phase: str) -> str:
    """Return words for a phase; an unknown one (from a newer backend) stays as it is."""
    for name, words, _ in PHASES + WORDS_PHASES:
        if name == phase:
            return words
    return phase.capitalize() if phase else "Working"


def _fraction(phase: str, step: int, of: int) -> float:
    before = 0.0
    of_words = phase in ("imagining", "cutting")
    for name, _, share in WORDS_PHASES if of_words else PHASES:
        if name == phase:
            return before + share * min(1.0, max(0.0, step / of if of > 0 else 0.0))
        before += share
    return 0.0


def eta_text(seconds: float) -> str:
    """Return ``about 12 s left`` or ``about 3 min left``."""
    if not seconds >= 0:  # NaN as well
        return "no estimate yet"
    if seconds < 1.5:
        return "about 1 s left"
    if seconds < 20:
        return f"about {round(seconds)} s left"
    if seconds < 90:
        return f"about {5 * round(seconds / 5)} s left"
    if seconds < 90 * 60:
        return f"about {round(seconds / 60)} min left"
    return f"about {seconds / 3600:.1f} h left"


class JobBook:
    """All jobs of this session in the order they were made."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Job]:
        return iter(list(self._jobs.values()))

    def add(self, job: Job) -> Job:
        self._jobs[job.id] = job
        return job

    def get(self, job_id: str | None) -> Job | None:
        return self._jobs.get(job_id) if job_id else None

    def remove(self, job_id: str) -> None:
        self._jobs.pop(job_id, None)

    def active(self) -> list[Job]:
        """Return the jobs of this Blender that the backend still owes something."""
        return [job for job in self if job.state.active and not job.listed]

    def in_order(self) -> list[Job]:
        """Return all jobs as the list shows them.

        At work and waiting come first, in their order, then those that failed, then the others,
        the newest first.
        """

        def row(numbered: tuple[int, Job]) -> tuple[int, int, int]:
            number, job = numbered
            if job.state.active:
                at_work = job.state in (JobState.RUNNING, JobState.CANCELLING)
                return 0, 0 if at_work else 1 + job.position, number
            return 1 if job.state is JobState.FAILED else 2, 0, -number

        return [job for _, job in sorted(enumerate(self), key=row)]

    def equal_of(self, request: Request | Words, target: Target) -> Job | None:
        """Return a job that is not over and would make the same in the same place."""
        place = (target.location, target.plane, target.scene)
        for job in self.active():
            other = job.target
            if (other.location, other.plane, other.scene) == place and job.request == request:
                return job
        return None

    def current(self) -> Job | None:
        """Return the running job, else the first active one."""
        active = self.active()
        running = [j for j in active if j.state in (JobState.RUNNING, JobState.CANCELLING)]
        return next(iter(running or active), None)

    def of_batch(self, batch: str) -> list[Job]:
        return sorted(
            (j for j in self if batch and j.target.batch == batch), key=lambda j: j.target.slot
        )

    def batch_summary(self, batch: str) -> str:
        """Return ``3 of 5 done, 1 failed``."""
        jobs = self.of_batch(batch)
        done = sum(j.state in (JobState.DONE, JobState.ARRIVED) for j in jobs)
        failed = sum(j.state is JobState.FAILED for j in jobs)
        cancelled = sum(j.state is JobState.CANCELLED for j in jobs)
        words = f"{done} of {len(jobs)} done"
        words += f", {failed} failed" if failed else ""
        return words + (f", {cancelled} cancelled" if cancelled else "")

    def finished(self) -> list[Job]:
        """Return the jobs an artist is done with: over, and not waiting to be imported."""
        return [
            job
            for job in self
            if not job.state.active and job.state is not JobState.ARRIVED and not job.elsewhere
        ]

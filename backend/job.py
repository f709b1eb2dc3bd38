# SPDX-License-Identifier: Apache-2.0
"""A job in memory, and its entry in the queue message."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any

from .estimator import Estimator
from .journal import JobRecord
from .protocol import messages as m

#: The settings of a job that the queue message holds.
_LISTED_SETTINGS = ("steps", "seed", "faces", "texture_size", "elevation", "frames", "guidance")


@dataclass(frozen=True)
class StoredArtifact:
    """An artifact in the job's folder: its kind, its announcement's fields, its file's name."""

    kind: str
    fields: dict[str, Any]
    file: str

    @property
    def replaceable(self) -> bool:
        """Return whether a newer artifact of its kind replaces it, as for coarse Gaussians."""
        return self.kind in ("views", "gaussians") and not self.fields.get("final")

    def check(self, job: str) -> None:
        """Check that clients can be told of it. Raises ValueError or TypeError."""
        kind = m.BY_TYPE.get(self.kind)
        if kind is None or not issubclass(kind, m.Artifact):
            raise ValueError(f"{self.kind} is no artifact")
        kind(job=job, transfer=1, **self.fields)


@dataclass(eq=False)
class Job:
    """A job's record, and what is known of its run under way."""

    record: JobRecord
    artifacts: list[StoredArtifact] = field(default_factory=list)
    progress: m.Progress | None = None
    estimator: Estimator | None = None
    device: str = ""

    @property
    def id(self) -> str:
        return self.record.job

    @property
    def name(self) -> str:
        """Return the name of the job for a sentence."""
        return self.record.filename or f"the picture of job {self.id[:8]}"

    @property
    def what(self) -> str:
        """Return the sentence of a failed job, cut to the length of the queue message."""
        return str(self.record.outcome.get("what", ""))[:300]

    def entry(self, position: int, length: int, owner: str) -> m.JobEntry:
        """Return the job for the queue message.

        Args:
            position: jobs before it.
            length: most characters of a name or a sentence.
            owner: one of entries.OWNERS.
        """
        now = self.progress if self.record.state == "running" else None
        settings = self.record.settings
        numbers = {k: settings[k] for k in _LISTED_SETTINGS if settings.get(k) is not None}
        if settings.get("mirror") == "plane":
            numbers["plane"] = settings["plane"]
        return m.JobEntry(
            job=self.id,
            state=self.record.state,
            filename=self.record.filename[:length],
            model=self.record.model,
            position=position,
            phase=now.phase if now else "",
            step=now.step if now else 0,
            of=now.of if now else 0,
            eta_s=now.eta_s if now else None,
            what=self.what[:length],
            kind=self.record.kind,
            owner=owner,
            settings=numbers,
            device=self.device if self.record.state == "running" else "",
        )


def whose(job: Job, owner: str | None, connected: Container[str | None]) -> str:
    """Return whose a job is, as the queue message tells the client `owner`."""
    if job.record.owner is None:
        return "gone"
    if job.record.owner == owner:
        return "you"
    return "other" if job.record.owner in connected else "gone"

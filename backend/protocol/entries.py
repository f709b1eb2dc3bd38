# SPDX-License-Identifier: Apache-2.0
"""Entries of the lists in messages: a model in welcome, a job in queue."""

from __future__ import annotations

from dataclasses import dataclass

from .fields import (
    Choice,
    Flag,
    Integer,
    JobId,
    Name,
    Number,
    NumbersByName,
    Text,
    check_fields,
    wire,
)
from .limits import LABEL_CHARS
from .versions import JOB_VERSIONS

#: What `gsv3d models` can do with a model by its name.
CHANGES = ("", "add", "remove")
#: The states of a job.
STATES = ("accepted", "running", "done", "fetched", "failed", "cancelled")
#: Whose a job is: this client's, another connected client's, or that of a client that has gone.
OWNERS = ("you", "other", "gone")


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
class JobEntry:
    """Describe one job in the queue message."""

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

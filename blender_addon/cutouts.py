# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep the cut-outs of pictures that the artist looks at before Generate. No bpy."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

from . import events
from .problems import Problem
from .requests import Cutting

SURE = 0.9
"""The backend calls a cut-out of a lower certainty unsure."""

_MOST = 16


@dataclass
class CutOut:
    """One picture's cut-out, once it was asked for.

    Attributes:
        request: what the backend is asked for.
        chosen: True for a picture that the artist chose in place of the original.
        png: the cut-out once it is here.
        certainty: 0..1; None where the picture brought its own transparency.
        problem: why there is none.
    """

    request: Cutting
    chosen: bool = False
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    position: int | None = None
    png: bytes = b""
    certainty: float | None = None
    problem: Problem | None = None
    ended: bool = False

    @property
    def unsure(self) -> bool:
        return self.certainty is not None and self.certainty < SURE

    def take(self, event: events.Event) -> None:
        """Take an event of its job."""
        match event:
            case events.JobAccepted(position=position):
                self.position = position
            case events.FileArrived(name="png", data=data, certainty=certainty):
                self.png, self.certainty = data, certainty
            case events.JobFailed(problem=problem):
                self.problem, self.ended = problem, True
            case events.JobDone() | events.JobCancelled():
                self.ended = True

    def describe(self) -> str:
        """Return one line for the panel."""
        if self.png and self.unsure:
            return "Unsure: look whether this is the whole object"
        if self.png and self.certainty is None:
            return "By the picture's own transparency"
        if self.png:
            return "This becomes the object"
        if self.position is None:
            return "Waiting for the backend"
        return f"{self.position} jobs are before it" if self.position else "Cutting the object out"


class CutOuts:
    """The cut-outs of this session by picture, the newest few."""

    def __init__(self) -> None:
        self._cutouts: dict[str, CutOut] = {}

    def __iter__(self) -> Iterator[CutOut]:
        return iter(self._cutouts.values())

    def add(self, picture: str, cutout: CutOut) -> list[CutOut]:
        """Keep a cut-out in place of its picture's former one; return those that are dropped."""
        gone = [former] if (former := self._cutouts.pop(picture, None)) else []
        self._cutouts[picture] = cutout
        while len(self._cutouts) > _MOST:
            gone.append(self._cutouts.pop(next(iter(self._cutouts))))
        return gone

    def get(self, picture: str) -> CutOut | None:
        return self._cutouts.get(picture)

    def of_job(self, job_id: str) -> CutOut | None:
        return next((cutout for cutout in self if cutout.id == job_id), None)

    def remove(self, picture: str) -> CutOut | None:
        return self._cutouts.pop(picture, None)

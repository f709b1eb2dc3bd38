# SPDX-License-Identifier: Apache-2.0
"""Events of a client's session beside the messages of the backend."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .messages import Artifact, Message


@dataclass(frozen=True, eq=False)
class Received:
    """An artifact with all its arrays: writable numpy arrays, shapes and values checked.

    `kind` is "views", "gaussians", "mesh" or "file"; `artifact` the announcement, with `final`,
    `step`, `of` or `name`; the arrays are listed in `arrays.SCHEMAS[kind]`.
    """

    job: str
    kind: str
    artifact: Artifact
    arrays: dict[str, np.ndarray] = field(repr=False)


@dataclass(frozen=True)
class Violation:
    """Report that something received broke the rules and was ignored; the session goes on.

    `job` is the job it belonged to, where that is known: its result is then incomplete, and
    `ClientSession.fetch` asks for it once more.
    """

    what: str
    hint: str = ""
    job: str | None = None


@dataclass(frozen=True)
class Silence:
    """Nothing was heard for `seconds`. This is told once; the next message ends the silence.

    What to do: close the socket, read the connection file again, open a socket, call `hello`.
    """

    seconds: float


Event = Message | Received | Violation | Silence

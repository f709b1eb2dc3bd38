# SPDX-License-Identifier: Apache-2.0
"""The bases of the messages.

Every field is checked when a message is made, so a message that exists is within all limits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, dataclass_transform

from .fields import JobId, check_fields, wire


@dataclass_transform(frozen_default=True, field_specifiers=(wire,))
class Message:
    """Base of all messages; each is a frozen dataclass whose fields are checked when it is made.

    Attributes:
        TYPE: the name in the header, which is the class's in lower case.
        SENDER: who may send it: "client", "server" or "both".
    """

    TYPE: ClassVar[str] = ""
    SENDER: ClassVar[str] = "both"

    def __init_subclass__(cls) -> None:
        cls.TYPE = cls.__name__.lower()
        dataclass(frozen=True)(cls)

    def __post_init__(self) -> None:
        check_fields(self)


class FromClient(Message):
    """Base of the messages that a client sends."""

    SENDER = "client"


class FromServer(Message):
    """Base of the messages that the backend sends."""

    SENDER = "server"


class AboutJob(Message):
    """Base of the messages about one job."""

    job: str = wire(JobId())

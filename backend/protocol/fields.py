# SPDX-License-Identifier: Apache-2.0
"""Field kinds of the messages: each checks one value from the wire and names its bounds.

A field is declared as ``step: int = wire(Integer(0, 100000))``; `Message` checks every field when
it is made, on the sending side as on the receiving one.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .errors import ProtocolError
from .limits import NAME_CHARS, SENTENCE_CHARS

Z85_KEY = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}\Z")
"""Text of a CURVE key."""

_MAP_ENTRIES = 64
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_JOB = re.compile(r"[0-9a-f]{32}\Z")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True)
class Kind:
    """Base of the field kinds. `optional` allows None."""

    optional: bool = dataclasses.field(default=False, kw_only=True)

    def check(self, name: str, value: Any) -> Any:
        """Return the value in its canonical form, or raise ProtocolError naming the bounds."""
        if not (value is None and self.optional) and not self.fits(value):
            raise self.refuse(name, value)
        return value

    def fits(self, value: Any) -> bool:
        """Return whether a value is within the bounds."""
        raise NotImplementedError

    def pack(self, value: Any) -> Any:
        """Return what goes into the msgpack header."""
        return value

    def describe(self) -> str:
        """Return the bounds in words."""
        raise NotImplementedError

    def refuse(self, name: str, value: Any) -> ProtocolError:
        shown = repr(value) if isinstance(value, (int, float, type(None))) else ""
        if not shown or len(shown) > 40:
            shown = f"a {type(value).__name__}"
        bounds = self.describe() + " or nil" * self.optional
        return ProtocolError(f"The field {name} must be {bounds}, not {shown}.")


@dataclass(frozen=True)
class Integer(Kind):
    low: int
    high: int

    def fits(self, value: Any) -> bool:
        return type(value) is int and self.low <= value <= self.high

    def describe(self) -> str:
        return f"a whole number from {self.low} to {self.high}"


@dataclass(frozen=True)
class Number(Kind):
    low: float
    high: float

    def check(self, name: str, value: Any) -> float | None:
        value = super().check(name, value)
        return None if value is None else float(value)

    def fits(self, value: Any) -> bool:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and self.low <= value <= self.high and math.isfinite(value)

    def describe(self) -> str:
        return f"a finite number from {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Flag(Kind):
    def fits(self, value: Any) -> bool:
        return type(value) is bool

    def describe(self) -> str:
        return "true or false"


@dataclass(frozen=True)
class Text(Kind):
    """A text without control characters other than tab and newline."""

    high: int = SENTENCE_CHARS

    def fits(self, value: Any) -> bool:
        return isinstance(value, str) and len(value) <= self.high and not _CONTROL.search(value)

    def describe(self) -> str:
        return f"text of at most {self.high} printable characters"


def to_text(text: str, high: int = SENTENCE_CHARS) -> str:
    """Return what `Text` takes of a text from elsewhere: no control characters, cut to length."""
    return _CONTROL.sub(" ", text)[:high]


@dataclass(frozen=True)
class Name(Kind):
    """A name of letters, digits, dot, hyphen and underscore: never a path."""

    def fits(self, value: Any) -> bool:
        return isinstance(value, str) and len(value) <= NAME_CHARS and bool(_NAME.match(value))

    def describe(self) -> str:
        return f"a name of 1 to {NAME_CHARS} letters, digits, '.', '-' or '_'"


@dataclass(frozen=True)
class JobId(Kind):
    def fits(self, value: Any) -> bool:
        return isinstance(value, str) and bool(_JOB.match(value))

    def describe(self) -> str:
        return "32 lower-case hexadecimal digits"


@dataclass(frozen=True)
class Key(Kind):
    """A CURVE key as Z85 text."""

    def fits(self, value: Any) -> bool:
        return isinstance(value, str) and bool(Z85_KEY.match(value))

    def describe(self) -> str:
        return "a key of 40 characters"


@dataclass(frozen=True)
class Choice(Kind):
    choices: tuple[str, ...]

    def fits(self, value: Any) -> bool:
        return isinstance(value, str) and value in self.choices

    def describe(self) -> str:
        return "one of " + ", ".join(self.choices)


@dataclass(frozen=True)
class ListOf(Kind):
    """A list of another kind; becomes a tuple."""

    item: Kind
    high: int
    low: int = 0

    def check(self, name: str, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)) or not self.low <= len(value) <= self.high:
            raise self.refuse(name, value)
        return tuple(self.item.check(f"{name}[{i}]", v) for i, v in enumerate(value))

    def pack(self, value: Any) -> list[Any]:
        return [self.item.pack(v) for v in value]

    def describe(self) -> str:
        return f"a list of {self.low} to {self.high} items, each {self.item.describe()}"


@dataclass(frozen=True)
class NumbersByName(Kind):
    """A map of names to finite numbers: timings in seconds, limits."""

    def check(self, name: str, value: Any) -> dict[str, float]:
        if not isinstance(value, dict) or len(value) > _MAP_ENTRIES:
            raise self.refuse(name, value)
        number = Number(-1e15, 1e15)
        return {
            str(Name().check(f"a key of {name}", k)): number.check(f"{name}.{k}", v)  # type: ignore[misc]
            for k, v in value.items()
        }

    def describe(self) -> str:
        return f"a map of at most {_MAP_ENTRIES} names to finite numbers"


@dataclass(frozen=True)
class Record(Kind):
    """A nested dataclass with wire fields of its own, a map in the header."""

    factory: Callable[..., Any]

    def check(self, name: str, value: Any) -> Any:
        if isinstance(value, self.factory):  # type: ignore[arg-type]
            return value
        if not isinstance(value, dict):
            raise self.refuse(name, value)
        return from_map(self.factory, value, f"{name}.")

    def pack(self, value: Any) -> dict[str, Any]:
        return to_map(value)

    def describe(self) -> str:
        return f"a map with the fields of {self.factory.__name__}"


@dataclass(frozen=True)
class Buffer(Kind):
    """Raw bytes; travels as the frame after the header."""

    low: int
    high: int

    def check(self, name: str, value: Any) -> Any:
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise self.refuse(name, value)
        size = value.nbytes if isinstance(value, memoryview) else len(value)
        if not self.low <= size <= self.high:
            raise ProtocolError(
                f"The buffer {name} must be {self.describe()}, and it has {size} bytes."
            )
        return value

    def describe(self) -> str:
        return f"a buffer of {self.low} to {self.high} bytes"


def wire(kind: Kind, **options: Any) -> Any:
    """Declare a dataclass field that travels; `options` are those of dataclasses.field."""
    return dataclasses.field(metadata={"kind": kind}, **options)


def check_fields(record: Any, prefix: str = "") -> None:
    """Check every field of a frozen dataclass and store the canonical values."""
    for field in dataclasses.fields(record):
        kind: Kind = field.metadata["kind"]
        value = kind.check(prefix + field.name, getattr(record, field.name))
        object.__setattr__(record, field.name, value)


def to_map(record: Any) -> dict[str, Any]:
    """Return the fields as the header holds them, buffers left out."""
    return {
        f.name: f.metadata["kind"].pack(getattr(record, f.name))
        for f in dataclasses.fields(record)
        if not isinstance(f.metadata["kind"], Buffer)
    }


def from_map(factory: Callable[..., Any], values: dict[str, Any], prefix: str = "") -> Any:
    """Make the dataclass from a header's map; ignore unknown keys, which newer peers may add."""
    known: dict[str, Any] = {}
    for field in dataclasses.fields(factory):  # type: ignore[arg-type]
        if field.name in values:
            known[field.name] = values[field.name]
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ProtocolError(f"The field {prefix}{field.name} is missing.")
    return factory(**known)

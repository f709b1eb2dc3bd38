# SPDX-License-Identifier: Apache-2.0
"""Fields of a configuration: which are known, which must be there, and what each may hold."""

from __future__ import annotations

import collections.abc
import difflib
import math
import re
import reprlib
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gsv3d.errors import ModelError

LISTS = (list, tuple, collections.abc.Sequence)
NAMES: dict[Any, tuple[str, str]] = {
    None: ("null", "null"),
    types.NoneType: ("null", "null"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    bool: ("true or false", "true or false"),
    str: ("a word or a text", "words"),
    dict: ("a mapping of fields", "mappings of fields"),
}
"""In words, one and several."""


@dataclass(frozen=True)
class Field:
    """What a field may hold.

    Attributes:
        kind: a type as it is annotated: ``int``, ``float`` (whole numbers too), ``bool``, ``str``,
            ``dict``, a ``Literal``, a list of one of these, a union. What YAML cannot write, such
            as an array, nothing satisfies.
        required: it has no default.
        default: where it is not required.
        least, most: bounds of every number in it.
        above: every number in it is larger.
        may_be_empty: a list, that is.
    """

    kind: Any
    required: bool = True
    default: Any = None
    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    may_be_empty: bool = False

    def holds(self, value: Any) -> bool:
        """Whether a value out of YAML may stand in the field."""
        return self._holds(self.kind, value)

    def _holds(self, kind: Any, value: Any) -> bool:
        origin = typing.get_origin(kind)
        if kind is Any:
            return True
        if kind in (None, types.NoneType):
            return value is None
        if kind is bool:
            return isinstance(value, bool)
        if kind in (int, float):
            # In Python, not in YAML, true is a 1.
            known = isinstance(value, int | kind) and not isinstance(value, bool)
            # Compared, as a whole number may be too large for math.isfinite.
            finite = known and (kind is int or abs(value) <= sys.float_info.max)
            return finite and self.least <= value <= self.most and self.above < value
        if kind is str:
            return isinstance(value, str) and bool(value)
        if kind is dict:
            return isinstance(value, dict)
        if origin is typing.Literal:
            return any(type(value) is type(own) and value == own for own in typing.get_args(kind))
        if origin in (typing.Union, types.UnionType):
            return any(self._holds(own, value) for own in typing.get_args(kind))
        if origin in LISTS:
            own = typing.get_args(kind)[0]
            listed = isinstance(value, list | tuple) and (bool(value) or self.may_be_empty)
            return listed and all(self._holds(own, item) for item in value)
        return False

    def in_words(self) -> str:
        """What it may hold, as in "which must be ..."."""
        return self._in_words(self.kind)

    def _in_words(self, kind: Any, several: bool = False) -> str:
        origin = typing.get_origin(kind)
        if kind in NAMES:
            word = NAMES[kind][several]
            return word + self._bounds() if kind in (int, float) else word
        if origin is typing.Literal:
            *first, last = map(str, typing.get_args(kind))
            return f"{', '.join(first)} or {last}" if first else last
        if origin in (typing.Union, types.UnionType):
            kinds = typing.get_args(kind)
            # What may be any number may be a whole one.
            kinds = tuple(own for own in kinds if own is not int or float not in kinds)
            return " or ".join(self._in_words(own, several) for own in kinds)
        if origin in LISTS:
            return f"a list of {self._in_words(typing.get_args(kind)[0], several=True)}"
        return "left out"

    def _bounds(self) -> str:
        if self.least == self.most:
            return f" that is {self.most:,.10g}"
        if self.above > -math.inf:
            most = f" and at most {self.most:,.10g}" if self.most < math.inf else ""
            return f" above {self.above:,.10g}{most}"
        if self.most < math.inf:
            return f" from {self.least:,.10g} to {self.most:,.10g}"
        return f", at least {self.least:,.10g}" if self.least > -math.inf else ""


def check_fields(source: str, prefix: str, given: Any, known: Mapping[str, Field]) -> None:
    """Refuse fields that are unknown, missing, or hold what they may not.

    Args:
        source: file or configuration, for the sentence.
        prefix: of the fields' names, such as "components.vae.".
        given: what stands there.
        known: every field that there is.

    Raises:
        ModelError: names the source, the field, and what is known or expected.
    """
    if not isinstance(given, dict):
        raise ModelError(
            f"{source} has {shown(given)} as '{prefix.rstrip('.')}', which must be a mapping of"
            " fields.",
            f"Its fields are {', '.join(known)}.",
        )
    for name in given:
        if name not in known:
            text = name if isinstance(name, str) else shown(name)
            close = difflib.get_close_matches(text, known, n=1)
            hint = f"Perhaps '{close[0]}' is meant; known" if close else "Known"
            raise ModelError(
                f"{source} has an unknown field '{prefix}{_short(text)}'.",
                f"{hint} are {', '.join(known)}.",
            )
    for name, field in known.items():
        if name not in given:
            if field.required:
                raise ModelError(
                    f"{source} has no field '{prefix}{name}'.", f"It must be {field.in_words()}."
                )
        elif not field.holds(given[name]):
            raise wrong(source, prefix + name, given[name], field.in_words())


def wrong(source: str, name: str, value: Any, expected: str) -> ModelError:
    """The sentence for a field that holds what it may not.

    Args:
        source: file or configuration.
        name: of the field, with its prefix.
        value: what it holds.
        expected: what it must be.
    """
    hint = "Correct that field."
    if isinstance(value, str) and re.fullmatch(r"[-+]?[\d.]+[eE][-+]?\d+", value):
        hint = "Write it as 0.0001 or 1.0e-4: without point or sign YAML takes it for a word."
    return ModelError(f"{source} has {shown(value)} as '{name}', which must be {expected}.", hint)


def shown(value: Any) -> str:
    """A value as it stands in YAML or nearly so, however large it is."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    short = reprlib.Repr()
    short.maxstring = short.maxother = 60
    try:
        return short.repr(value)
    except ValueError:  # Python writes no whole number of more than some thousand digits
        return "a number of very many digits"


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."

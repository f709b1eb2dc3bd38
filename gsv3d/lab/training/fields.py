# SPDX-License-Identifier: Apache-2.0
"""Check settings from YAML with pydantic, and say what is wrong in one sentence."""

from __future__ import annotations

import difflib
import functools
import operator
import re
import reprlib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    TypeAdapter,
    ValidationError,
    create_model,
)

from gsv3d.errors import ModelError

NOTHING_ELSE = ConfigDict(extra="forbid", allow_inf_nan=False)
STRICT = NOTHING_ELSE | {"strict": True}
"""Make pydantic convert nothing: ``true`` is no number. This does not reach a dataclass within
another, whose fields are declared ``Strict`` one by one."""


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


Count = Annotated[int, Strict(), Field(ge=1)]
CountOrZero = Annotated[int, Strict(), Field(ge=0)]
Share = Annotated[float, Strict(), Field(ge=0, le=1)]
Weight = Annotated[float, Strict(), Field(ge=0, le=1_000_000)]
AtLeastZero = Annotated[float, Strict(), Field(ge=0)]
Positive = Annotated[float, Strict(), Field(gt=0)]
Views = Annotated[int, Strict(), Field(ge=0, le=1024)]
TrueOrFalse = Annotated[bool, Strict()]
# Logarithms: e^20 is above every noise level.
LogNoise = Annotated[float, Strict(), Field(ge=-20, le=20)]
Spread = Annotated[float, Strict(), Field(ge=0, le=20)]
Text = Annotated[str, Field(min_length=1)]
Words = Annotated[list[Text], BeforeValidator(_listed), Field(min_length=1)]

LISTS = (list, tuple, Sequence)
MAPPINGS = ("model_type", "dataclass_type", "dict_type")
UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument", "invalid_key")


def make_model(name: str, known: Mapping[str, tuple[Any, Any]]) -> type:
    """Return a pydantic model with the given fields.

    Args:
        name: the model's name.
        known: type and default of every field, ``...`` for one that must be given.
    """
    return create_model(name, __config__=STRICT, **known)


def make_yaml_type(kind: Any, **bounds: float) -> Any:
    """Turn an annotation into a type for pydantic that a YAML file can hold.

    Args:
        kind: the annotation: a plain type, a ``Literal``, a list, tuple or union of these.
        bounds: bounds of every number in it, as pydantic's ``Field`` takes them.
    """
    origin = typing.get_origin(kind)
    if kind in (int, float):
        return Annotated[kind, Field(**bounds)]
    if kind is str:
        return Text
    if origin in LISTS:
        item = make_yaml_type(typing.get_args(kind)[0], **bounds)
        return Annotated[list[item], BeforeValidator(_listed), Field(min_length=1)]
    if origin in (typing.Union, types.UnionType):
        kinds = [own for own in typing.get_args(kind) if own is not np.ndarray]
        # float accepts whole numbers too.
        kinds = [own for own in kinds if own is not int or float not in kinds]
        return functools.reduce(operator.or_, (make_yaml_type(own, **bounds) for own in kinds))
    return kind


def check(source: str, kind: Any, data: Any, prefix: str = "") -> Any:
    """Check settings against a pydantic model or dataclass, and return an instance of it.

    Args:
        source: name of the file or configuration, for the message.
        kind: the model or dataclass.
        data: the settings.
        prefix: names of the fields above, such as "components.vae.".

    Raises:
        ModelError: names the source, a field, its value, and what is known or expected.
    """
    try:
        return TypeAdapter(kind).validate_python(data)
    except ValidationError as error:
        raise _in_words(source, kind, data, prefix, error) from error


def _in_words(source: str, kind: Any, data: Any, prefix: str, error: ValidationError) -> ModelError:
    """Describe the first error: unknown fields come first, then missing ones, then wrong values."""
    found = error.errors(include_url=False)
    found.sort(key=lambda e: (e["type"] not in UNKNOWN, e["type"] != "missing"))
    first = found[0]
    names, value = _place(first["loc"], data, first["type"] == "missing")
    if first["type"] == "invalid_key":  # no word
        names = [*_place(first["loc"][:-1], data)[0], show_value(first["input"])]
    name = prefix + ".".join(names)
    if first["type"] in UNKNOWN:
        known = list(_fields(kind, names[:-1]))
        close = difflib.get_close_matches(names[-1], known, n=1)
        hint = f"Perhaps '{close[0]}' is meant; known" if close else "Known"
        return ModelError(
            f"{source} has an unknown field '{name}'.", f"{hint} are {', '.join(known)}."
        )
    if first["type"] == "missing":
        return ModelError(f"{source} has no field '{name}'.", "docs/training.md says what it is.")
    if first["type"] == "value_error":  # a check of ours, which names its fields
        where = f" in '{name}'" if name else ""
        reason = str(first["ctx"]["error"]).rstrip(".")
        return ModelError(f"{source} cannot be used{where}: {reason}.", "Correct these fields.")
    if first["type"] in MAPPINGS:
        return wrong_field(source, name.rstrip("."), value, "a mapping of fields")
    same = [e for e in found if _place(e["loc"], data)[0] == names]
    if all(isinstance(e["loc"][-1], int) for e in same):
        name, value = f"{name}[{first['loc'][-1]}]", first["input"]
    expected = dict.fromkeys(_expected(e["type"], e["msg"]) for e in same)
    return wrong_field(source, name, value, " or ".join(expected))


def _expected(kind: str, message: str) -> str:
    """Turn pydantic's sentence into what follows "which must be"."""
    empty = {"too_short": "a list", "string_too_short": "a text"}
    if kind in empty:
        return f"{empty[kind]} that is not empty"
    return message.removeprefix("Input should be ")


def _place(loc: Sequence[Any], data: Any, missing: bool = False) -> tuple[list[str], Any]:
    """Return the names of the fields down to an error, and the value there."""
    names = []
    for part in loc:
        if not isinstance(data, dict) or (part not in data and not missing):
            break  # pydantic goes on to the place in a list and the type in a union
        names.append(part if isinstance(part, str) and len(part) <= 60 else show_value(part))
        data = data.get(part)
    return names, data


def _fields(kind: Any, names: Sequence[str]) -> Mapping[str, Any]:
    """Return the fields of a model, or of the model nested in it under ``names``."""
    for name in names:
        kind = kind.__pydantic_fields__[name].annotation
    return kind.__pydantic_fields__


def wrong_field(source: str, name: str, value: Any, expected: str) -> ModelError:
    """Return the error for a field with a wrong value.

    Args:
        source: file or configuration.
        name: the field's name, with its prefix.
        value: the wrong value.
        expected: words for the right values, after "must be".
    """
    hint = "Correct that field."
    if isinstance(value, str) and re.fullmatch(r"[-+]?[\d.]+[eE][-+]?\d+", value):
        hint = "Write it as 0.0001 or 1.0e-4: without point or sign YAML takes it for a word."
    return ModelError(
        f"{source} has {show_value(value)} as '{name}', which must be {expected}.", hint
    )


def show_value(value: Any) -> str:
    """Return a value roughly as YAML writes it, shortened."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    short = reprlib.Repr()
    short.maxstring = short.maxother = 60
    try:
        return short.repr(value)
    except ValueError:  # Python writes no whole number of more than some thousand digits
        return "a number of very many digits"

# SPDX-License-Identifier: GPL-3.0-or-later
"""The interface in other languages, by the table in translations.toml.

Blender translates names, tooltips and texts of layouts itself once they are registered. Sentences
with values have named fields in the table: ``interface`` and ``report`` translate and fill them.
Modules without bpy make whole sentences; ``sentence`` finds the entry that they were made by.
"""

from __future__ import annotations

import functools
import re
import tomllib
from pathlib import Path
from typing import Any

import bpy

LOCALES = {"de": ("de", "de_DE"), "zh": ("zh_HANS", "zh_CN")}
"""Languages of the table, each with its names in old and new Blenders."""

CONTEXT = "GSV3D"
"""Context of texts for which Blender's own translation is too long where they stand."""

_CONTEXTS = ("*", "Operator", CONTEXT)
_FIELD = re.compile(r"\{(\w+)\}")
_NUMBERS = {"count", "number", "step", "of", "failed", "cancelled", "angle", "plane"}
_WORDS = {"what", "reason", "phase", "state", "mode", "doing", "retry"}
"""Fields whose values are words of the table; others are names and numbers, which stay."""


@functools.cache
def table() -> dict[str, dict[str, str]]:
    """Return the texts in each language, by the English text."""
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))


def register() -> None:
    """Register the table with Blender."""
    texts = {
        locale: {
            (context, english): translated[language]
            for english, translated in table().items()
            for context in _CONTEXTS
        }
        for language, locales in LOCALES.items()
        for locale in locales
    }
    bpy.app.translations.register(str(__package__), texts)


def unregister() -> None:
    """Unregister the table."""
    bpy.app.translations.unregister(str(__package__))


def interface(text: str, **values: Any) -> str:
    """Return a text of a layout in Blender's language, with its fields filled."""
    return bpy.app.translations.pgettext_iface(text).format(**values)


def report(text: str, **values: Any) -> str:
    """Return a report, or the reason for a grayed button, in Blender's language."""
    return bpy.app.translations.pgettext_rpt(text).format(**values)


def sentence(text: str) -> str:
    """Return a sentence, or several, with their values in Blender's language, else as they are."""
    translated = bpy.app.translations.pgettext_iface(text)
    if translated != text or not bpy.app.translations.locale.startswith(tuple(LOCALES)):
        return translated
    found = _taken_apart(text)
    if found is not None:
        english, values = found
        return interface(english, **{k: sentence(v) if k in _WORDS else v for k, v in values})
    first, *rest = re.split(r"(?<=\.) (?=\S)", text, maxsplit=1)
    return " ".join(map(sentence, (first, *rest))) if rest else text


@functools.lru_cache(500)
def _taken_apart(text: str) -> tuple[str, tuple[tuple[str, str], ...]] | None:
    """Find the entry by which a text was made, the longest one that fits, and its values."""
    matches = [(english, pattern.fullmatch(text)) for english, pattern in _patterns()]
    found = [(english, match) for english, match in matches if match is not None]
    if not found:
        return None
    # A sentence was made by a sentence, if by any.
    english, match = min(found, key=lambda entry: entry[0].endswith(".") != text.endswith("."))
    return english, tuple(match.groupdict().items())


@functools.cache
def _patterns() -> list[tuple[str, re.Pattern[str]]]:
    with_fields = [english for english in table() if _FIELD.search(english)]
    with_fields.sort(key=lambda english: len(_FIELD.sub("", english)), reverse=True)
    return [(english, _pattern(english)) for english in with_fields]


def _pattern(english: str) -> re.Pattern[str]:
    parts = _FIELD.split(english)  # texts, and between them names of fields
    for index in range(1, len(parts), 2):
        # Sentences are told apart; only what is quoted at the end may hold several.
        quoted = parts[index - 1].endswith(": ") and len(parts[index + 1]) < 2
        value = r"[\d.]+" if parts[index] in _NUMBERS else ".*" if quoted else r"(?:(?!\. ).)*"
        parts[index] = f"(?P<{parts[index]}>{value})"
    for index in range(0, len(parts), 2):
        parts[index] = re.escape(parts[index])
    return re.compile("".join(parts), re.DOTALL)

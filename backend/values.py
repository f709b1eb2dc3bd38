# SPDX-License-Identifier: Apache-2.0
"""Types of the command line's values; each refuses others with a sentence."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path

from .protocol import ProtocolError, limits, parse_address


def _whole(text: str, low: int, high: int, what: str) -> int:
    if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
        raise argparse.ArgumentTypeError(f"'{text}' is not {what}")
    return int(text)


def port(text: str) -> int:
    return _whole(text, 0, 65535, "a port: give a number from 1 to 65535")


def count(text: str) -> int:
    return _whole(text, 1, 1024, "a whole number from 1 to 1024")


def count_or_auto(text: str) -> int | None:
    """Return a count, or None for "auto"."""
    return None if text == "auto" else count(text)


def seconds(text: str) -> float:
    return float(_whole(text, 10, 86400, "a number of seconds from 10 to 86400"))


def pid(text: str) -> int:
    return _whole(text, 1, 2**32 - 1, "a process id")


def positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number above 0")
    return value


def address(text: str) -> tuple[str, int]:
    try:
        return parse_address(text)
    except ProtocolError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def job_id(text: str) -> str:
    """Return a job's id, or its beginning."""
    if not text or len(text) > 32 or set(text) - set("0123456789abcdef"):
        raise argparse.ArgumentTypeError(f"'{text}' is not how a job's id begins (0-9, a-f)")
    return text


def path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError(
            "the path is empty; a variable of the shell may not be set"
        )
    return Path(text)


def path_or_id(text: str) -> str:
    """Return the id of a text-to-image model, or its full path."""
    if len(text) > limits.PATH_CHARS or not text.isprintable():
        raise argparse.ArgumentTypeError(
            f"a text-to-image model is named by at most {limits.PATH_CHARS} printable characters"
        )
    text = text.strip()
    return os.path.abspath(text) if os.path.exists(text) else text  # for the worker's folder

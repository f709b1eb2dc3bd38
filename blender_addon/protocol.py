# SPDX-License-Identifier: GPL-3.0-or-later
"""Find the protocol package: the copy packed in the extension, else the repository's.

Guarded: without pyzmq or msgpack (an extension without wheels for this Python) the add-on still
registers, and its panel says what is missing.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

from .problems import Problem

PACKED = "_protocol"


def _load() -> tuple[Any, Problem | None]:
    packed = importlib.util.find_spec(f".{PACKED}", __package__) is not None
    try:
        if packed:
            return importlib.import_module(f".{PACKED}", __package__), None
        return importlib.import_module("backend.protocol"), None
    except ImportError as error:
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        missing = (error.name or str(error)).split(".")[0]
        if missing in ("zmq", "msgpack"):
            what = f"GSV3D lacks {missing} for this Blender's Python {python}."
        else:
            what = f"GSV3D lacks a part of itself: {error}."
        return None, Problem(what, "Install the GSV3D extension made for this platform again.")


wire, _problem = _load()


def protocol_problem() -> Problem | None:
    """Return why nothing can be sent; None when messages can."""
    return _problem


def require_protocol() -> None:
    """Raise the `Problem` if nothing can be sent."""
    if _problem is not None:
        raise _problem

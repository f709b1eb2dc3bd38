# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes of the models: one at a time."""

from __future__ import annotations

from collections.abc import Sequence

from . import compat, preferences, session
from .model_process import ModelProcess
from .problems import Problem
from .watching import Watch

OFFLINE = (
    "Models must be downloaded: turn on Allow Online Access in Preferences > System > Network."
)
REMOTE = "Models are added and removed on the backend's own computer"
BUSY = "A model is being added, converted or removed"
LOG = "models.log"


def _look_for_models() -> None:
    """Have the backend look for models; it tells the add-on which there are."""
    client = session.get().backend.client
    if client is not None:
        client.look_for_models()


watch = Watch(_look_for_models)


def start(arguments: Sequence[str], token: str = "") -> None:
    """Begin to run ``gsv3d models``, and return at once.

    Raises:
        Problem: another change is under way, there is no Python, or Blender may not go online.
    """
    if watch.runs:
        raise Problem(f"{BUSY}.", "Wait until it is done, or cancel it.")
    if "add" in arguments and not compat.online_access():
        raise Problem("Blender may not go online.", OFFLINE)
    place = preferences.backend_place()
    watch.start(ModelProcess(place.python, arguments, place.data_dir / LOG, token))

# SPDX-License-Identifier: GPL-3.0-or-later
"""Installation of the backend into the user's folder: one at a time."""

from __future__ import annotations

import sys

from . import compat, environments, preferences, session
from .backend_install import Installer
from .problems import Problem
from .watching import Watch

OFFLINE = (
    "Packages must be downloaded: turn on Allow Online Access in Preferences > System > Network."
)


def _use() -> None:
    """Let the preferences find the new environment, and start the backend in it."""
    preferences.use_installed()
    backend = session.get().backend
    if backend.process.running:
        backend.problem = Problem(
            "The new backend is installed, the earlier one still runs.",
            "Press Stop, then Start.",
        )
        return
    try:
        session.get().start_backend(*preferences.backend_place())
    except Problem as problem:
        backend.problem = problem


watch = Watch(_use)


def start() -> None:
    """Begin to install the packed wheel, and return at once.

    Raises:
        Problem: an installation runs, there is no wheel, or Blender may not go online.
    """
    if watch.runs:
        raise Problem("The backend is being installed.", "Wait until it is done, or cancel it.")
    wheel = environments.packed_wheel()
    if wheel is None:
        raise Problem(
            "This build of the extension does not bring the backend.",
            "Press How to Install the Backend.",
        )
    if not compat.online_access():
        raise Problem("Blender may not go online.", OFFLINE)
    place = preferences.backend_place()
    installer = Installer(
        wheel,
        environments.user_folder(),
        place.data_dir / "install.log",
        chosen=preferences.chosen_python(),
        own=sys.executable,
        torch_options=preferences.torch_options(),
    )
    watch.start(installer)

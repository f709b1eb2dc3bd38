# SPDX-License-Identifier: GPL-3.0-or-later
"""GSV3D for Blender: a reference picture becomes Gaussians and a textured mesh in the scene.

This package is a thin client. The model runs in another process, the GSV3D backend, reached over
ZeroMQ on this computer; nothing here imports the model. Importing the package imports no ``bpy``,
so that the modules without Blender in them (client, jobs, batch, importers.prepare, ...) can be
used and tested in any Python; `register` brings in the rest.
"""

from __future__ import annotations


def register() -> None:
    """Add the panels, operators and settings to Blender."""
    from . import registration

    registration.register()


def unregister() -> None:
    """Take the interface, timers and handlers out again, and end the thread and the backend."""
    from . import registration

    registration.unregister()

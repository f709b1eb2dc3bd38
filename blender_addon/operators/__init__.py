# SPDX-License-Identifier: GPL-3.0-or-later
"""The operators behind the buttons, a topic in each module; they report what goes wrong."""

from __future__ import annotations

import bpy

from . import (
    backend,
    batch,
    common,
    cutout,
    drop,
    generate,
    imagine,
    install,
    jobs,
    keep,
    models,
    view,
)

_MODULES = (generate, cutout, drop, imagine, batch, keep, jobs, backend, install, models, view)
CLASSES = tuple(cls for module in _MODULES for cls in module.CLASSES)

for _cls in CLASSES:
    if issubclass(_cls, bpy.types.Operator):
        setattr(_cls, "execute", common.reports_problems(_cls.execute))  # noqa: B010 - for mypy

# SPDX-License-Identifier: GPL-3.0-or-later
"""Hold the operators behind the buttons, a topic in each module; report what goes wrong."""

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

CLASSES = (
    *generate.CLASSES,
    *cutout.CLASSES,
    *drop.CLASSES,
    *imagine.CLASSES,
    *batch.CLASSES,
    *keep.CLASSES,
    *jobs.CLASSES,
    *backend.CLASSES,
    *install.CLASSES,
    *models.CLASSES,
    *view.CLASSES,
)

for _cls in CLASSES:
    if issubclass(_cls, bpy.types.Operator):
        setattr(_cls, "execute", common.reports_problems(_cls.execute))  # noqa: B010 - for mypy

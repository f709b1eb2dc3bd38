# SPDX-License-Identifier: GPL-3.0-or-later
"""What the buttons do, one topic a module."""

from __future__ import annotations

from . import backend, batch, cutout, drop, generate, imagine, install, jobs, keep, view

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
    *view.CLASSES,
)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Make Blender data of arrays: a mesh with its material, and a cloud of Gaussians.

``prepare`` and ``placement`` are pure numpy and may run in any thread; the others use ``bpy`` and
run on the main thread, as generators that yield between short pieces of work.
"""

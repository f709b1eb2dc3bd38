# SPDX-License-Identifier: Apache-2.0
"""Render orbits of 3D objects with Blender, the data that models are trained and measured on."""

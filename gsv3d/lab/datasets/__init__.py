# SPDX-License-Identifier: Apache-2.0
"""Orbits of 3D objects rendered with Blender: what the models are trained and measured on."""

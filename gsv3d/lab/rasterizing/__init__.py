# SPDX-License-Identifier: Apache-2.0
"""Rasterize triangle meshes in torch: training data without Blender, or faster than with it."""

from gsv3d.lab.rasterizing.props import Prop, load_prop
from gsv3d.lab.rasterizing.triangles import Fragments, rasterize

__all__ = ["Fragments", "Prop", "load_prop", "rasterize"]

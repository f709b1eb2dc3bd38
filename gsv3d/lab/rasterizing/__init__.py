# SPDX-License-Identifier: Apache-2.0
"""Triangle meshes to pictures in torch: training data where there is no Blender, or no time."""

from gsv3d.lab.rasterizing.props import Prop, load_prop
from gsv3d.lab.rasterizing.triangles import Fragments, rasterize

__all__ = ["Fragments", "Prop", "load_prop", "rasterize"]

# SPDX-License-Identifier: Apache-2.0
"""Gaussians to a textured mesh: depth fusion, surface, clean-up, budget, UVs, baked texture."""

from gsv3d.meshing.extract import extract_mesh
from gsv3d.meshing.mesh import TexturedMesh
from gsv3d.meshing.reference import Reference
from gsv3d.meshing.settings import MeshSettings

__all__ = ["MeshSettings", "Reference", "TexturedMesh", "extract_mesh"]

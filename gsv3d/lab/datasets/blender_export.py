# SPDX-License-Identifier: Apache-2.0
"""Export a 3D file as a plain GLB with Blender: rigs at rest, without animations."""

from __future__ import annotations

from pathlib import Path

import bpy

from gsv3d.lab.datasets import blender_objects


def export_plain_glb(path: Path, target: Path) -> list[str]:
    """Export a file as a GLB that trimesh reads; return the names of missing textures.

    Raises:
        RuntimeError, ValueError: Blender cannot read the file.
    """
    bpy.ops.wm.read_factory_settings(use_empty=True)
    blender_objects.import_file(path)
    missing = blender_objects.drop_missing_textures(bpy.data.materials)
    for armature in bpy.data.armatures:
        armature.pose_position = "REST"
    bpy.ops.export_scene.gltf(
        filepath=str(target), export_format="GLB", export_apply=True, export_skins=False,
        export_animations=False, export_morph=False, export_image_format="AUTO",
    )  # fmt: skip
    return missing

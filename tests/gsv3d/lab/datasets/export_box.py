# SPDX-License-Identifier: Apache-2.0
"""Run in a process of its own: write a box in the formats that only Blender writes.

Arguments: box.glb, the folder to write to.
"""

from __future__ import annotations

import sys
from pathlib import Path

import bpy


def main(source: str, folder: Path) -> None:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.import_scene.gltf(filepath=source)
    for suffix in ("usd", "usda", "usdc", "usdz"):
        bpy.ops.wm.usd_export(filepath=str(folder / f"{suffix}_box.{suffix}"))
    bpy.ops.wm.obj_export(filepath=str(folder / "obj_box.obj"))
    bpy.ops.wm.ply_export(filepath=str(folder / "ply_box.ply"))
    bpy.ops.export_scene.fbx(filepath=str(folder / "fbx_box.fbx"))
    bpy.ops.export_scene.gltf(filepath=str(folder / "gltf_box.gltf"), export_format="GLTF_SEPARATE")
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "blend_box.blend"), check_existing=False)
    # The animation: at its first frame the box is where it was.
    parts = [item for item in bpy.data.objects if item.type == "MESH"]
    for item in parts:
        item.keyframe_insert("rotation_euler", frame=7)
        item.rotation_mode = "XYZ"
        item.keyframe_insert("scale", frame=7)
        item.scale = (1.0, 1.0, 9.0)
        item.keyframe_insert("scale", frame=20)
    bpy.context.scene.frame_start, bpy.context.scene.frame_end = 7, 20
    bpy.ops.export_scene.gltf(filepath=str(folder / "moving_glb.glb"))
    bpy.ops.wm.usd_export(filepath=str(folder / "moving_usd.usdc"), export_animation=True)
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "moving_blend.blend"), check_existing=False)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

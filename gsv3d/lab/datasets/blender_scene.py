# SPDX-License-Identifier: Apache-2.0
"""Render with Blender: one scene a process, which loads one object after the other.

This runs in a process of its own: it resets Blender's file, and a broken object may crash it.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from mathutils import Matrix

from gsv3d.lab.datasets import blender_objects, mesh_files
from gsv3d.lab.datasets.light import (
    Environment,
    choose_environment,
    load_environments,
    read_exr,
)


@dataclass(frozen=True)
class View:
    """One rendered view.

    Attributes:
        rgba: (H, W, 4) float32, linear, premultiplied.
        depth: (H, W) float32 z-depth, 0 where empty.
        normals: (H, W, 3) float32 unit normals in the world, 0 where empty; or None.
    """

    rgba: np.ndarray
    depth: np.ndarray
    normals: np.ndarray | None


class BlenderScene:
    """A scene with a transparent film, one camera and one environment.

    Args:
        size: side of the square pictures in pixels.
        samples: number of samples of a pixel.
        fov_deg: field of view of the camera in degrees.
        engine: "cycles" or "eevee".
        normals: render normals too.

    Attributes:
        world: the environment that lights the scene.
        missing_textures: names of the textures that the loaded object lacks.
        frame: frame that the loaded object is shown at, None if it is not animated.
    """

    def __init__(
        self,
        size: int,
        samples: int,
        fov_deg: float,
        engine: str = "cycles",
        normals: bool = False,
    ) -> None:
        bpy.ops.wm.read_factory_settings(use_empty=True)
        self.missing_textures: list[str] = []
        self.frame: int | None = None
        self.scene = scene = bpy.context.scene
        if engine == "eevee":
            scene.render.engine = _name_eevee()
            scene.render.filter_size = 0.0
        else:
            scene.render.engine = "CYCLES"
        scene.cycles.device = "CPU"
        self.set_samples(samples)
        scene.cycles.use_adaptive_sampling = False
        scene.cycles.use_denoising = False
        scene.cycles.max_bounces = 2
        scene.cycles.diffuse_bounces = 1
        scene.cycles.caustics_reflective = scene.cycles.caustics_refractive = False
        # A box of one pixel makes alpha the pixel's coverage and depth a point inside the pixel.
        scene.cycles.pixel_filter_type = "BOX"
        scene.render.use_persistent_data = True
        scene.render.threads_mode = "FIXED"
        scene.render.threads = 1
        self.set_size(size)
        scene.render.resolution_percentage = 100
        scene.render.film_transparent = True
        scene.view_settings.view_transform = "Standard"
        scene.view_layers[0].use_pass_z = True
        scene.view_layers[0].use_pass_normal = self._with_normals = normals
        settings = scene.render.image_settings
        if hasattr(settings, "media_type"):  # Blender 5.0 and later need it first
            settings.media_type = "MULTI_LAYER_IMAGE"
        settings.file_format = "OPEN_EXR_MULTILAYER"
        settings.color_depth = "32"
        settings.exr_codec = "NONE"
        self._temporary = tempfile.TemporaryDirectory(prefix="gsv3d-render-")
        self._picture = Path(self._temporary.name) / "view.exr"
        camera = bpy.data.cameras.new("camera")
        camera.angle = np.deg2rad(fov_deg)
        camera.clip_start, camera.clip_end = 0.01, 100.0
        self._camera = bpy.data.objects.new("camera", camera)
        scene.collection.objects.link(self._camera)
        scene.camera = self._camera
        self.world = BlenderWorld(scene)
        self._kept = {(kind, block.name) for kind in _DATA_KINDS for block in _list_blocks(kind)}

    def set_size(self, size: int) -> None:
        """Set the width and height of the pictures to come, in pixels."""
        self.scene.render.resolution_x = self.scene.render.resolution_y = size

    def set_samples(self, samples: int) -> None:
        """Set the number of samples of a pixel for the pictures to come."""
        self.scene.cycles.samples = self.scene.eevee.taa_render_samples = samples

    def load(self, path: Path) -> np.ndarray:
        """Load the objects of a file into the scene, animated ones at their first frame.

        Textures without a picture are left out, see ``missing_textures``.

        Returns:
            (N, 3) world positions of the vertices that are rendered.

        Raises:
            ValueError: the file cannot be used; the text follows "FILE: ".
        """
        self.scene.frame_set(1)
        try:
            blender_objects.import_file(path)
        except RuntimeError as error:
            raise ValueError(f"Blender cannot read it: {_find_reason(str(error))}") from error
        self.missing_textures = blender_objects.drop_missing_textures(bpy.data.materials)
        self.frame = blender_objects.show_first_frame(self.scene)
        self._root = bpy.data.objects.new("root", None)
        self.scene.collection.objects.link(self._root)
        for item in list(self.scene.objects):
            if item.type in ("CAMERA", "LIGHT", "SPEAKER", "LIGHT_PROBE"):
                if item is not self._camera:
                    bpy.data.objects.remove(item)
            elif item.parent is None and item is not self._root:
                item.parent = self._root
        points, _ = self.triangles()
        if not len(points):
            raise ValueError("it has no faces to render")
        return points

    def triangles(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (N, 3) vertices in the world and (F, 3) triangles of the whole scene."""
        return blender_objects.read_triangles(bpy.context.evaluated_depsgraph_get())

    def place(self, transform: np.ndarray) -> None:
        """Apply a (4, 4) similarity to all that was loaded."""
        self._root.matrix_world = Matrix(transform.tolist())

    def color_if_plain(self, hsv: tuple[float, float, float]) -> bool:
        """Give the objects a base color if none has a color of its own; return True if so."""
        return blender_objects.color_if_plain(self.scene.objects, hsv)

    def make_matt(self) -> None:
        """Make every Principled material matt; keep its base color, alpha and bumps."""
        blender_objects.make_matt(bpy.data.materials)

    def add_textured(
        self,
        vertices: np.ndarray,
        faces: np.ndarray,
        corner_uvs: np.ndarray,
        texture: np.ndarray,
    ) -> None:
        """Add a mesh given by arrays (see ``TexturedMesh``) to the scene, unlit."""
        item = blender_objects.make_unlit_object(vertices, faces, corner_uvs, texture)
        self.scene.collection.objects.link(item)

    def render_view(self, camera_to_world: np.ndarray) -> View:
        """Render one view from a camera at the (4, 4) ``camera_to_world``, in Blender's axes."""
        self._camera.matrix_world = Matrix(camera_to_world.tolist())
        self.scene.render.filepath = str(self._picture)
        bpy.ops.render.render(write_still=True)
        channels = {name.split(".", 1)[-1]: c for name, c in read_exr(self._picture).items()}
        rgba = np.stack([channels[f"Combined.{c}"] for c in "RGBA"], axis=-1)
        depth = channels.get("Depth.Z", channels.get("Depth.V"))
        if depth is None:
            raise RuntimeError(f"Blender wrote no depth, only {sorted(channels)}")
        depth = np.where(depth < self._camera.data.clip_end, depth, np.float32(0))
        return View(rgba, depth, _scale_normals(channels) if self._with_normals else None)

    def clear(self) -> None:
        """Remove everything that was loaded, so that memory does not grow.

        Cycles' persistent data is dropped too. It knows images by their address; if the next
        object's image got the same address, that object would show the old picture.
        """
        self.scene.render.use_persistent_data = False
        bpy.data.batch_remove(
            block
            for kind in _DATA_KINDS
            for block in _list_blocks(kind)
            if (kind, block.name) not in self._kept
        )
        self.scene.render.use_persistent_data = True

    def close(self) -> None:
        self._temporary.cleanup()


class BlenderWorld:
    """The environment of a scene.

    Args:
        scene: the scene; it gets a new world.
    """

    def __init__(self, scene: bpy.types.Scene) -> None:
        world = bpy.data.worlds.new("world")
        scene.world = world
        # The maps are blurred, so sampling by the surface's reflection is less noisy than sampling
        # by the map, and it needs no importance map, which takes 2 s an object.
        world.cycles.sampling_method = "NONE"
        if world.node_tree is None:
            world.use_nodes = True
        nodes, self._links = world.node_tree.nodes, world.node_tree.links
        self._background = next(n for n in nodes if n.type == "BACKGROUND")
        coordinates = nodes.new("ShaderNodeTexCoord")
        self._mapping = nodes.new("ShaderNodeMapping")
        self._image_node = nodes.new("ShaderNodeTexEnvironment")
        self._links.new(coordinates.outputs["Generated"], self._mapping.inputs["Vector"])
        self._links.new(self._mapping.outputs["Vector"], self._image_node.inputs["Vector"])
        self._environments = _make_environments()

    def light_flat(self) -> str:
        """Light uniformly white; return the light's name for the records."""
        for link in list(self._background.inputs["Color"].links):
            self._links.remove(link)
        self._background.inputs["Color"].default_value = (1, 1, 1, 1)
        self._background.inputs["Strength"].default_value = 1.0
        return "flat"

    def light_hdri(self, choice: float, yaw_deg: float) -> str:
        """Light with one of Blender's HDRIs, ``choice`` in 0..1; return its name."""
        environment = choose_environment(self._environments, choice)
        self._image_node.image = bpy.data.images[environment.name]
        self._mapping.inputs["Rotation"].default_value = (0, 0, np.deg2rad(yaw_deg))
        self._background.inputs["Strength"].default_value = 1.0
        self._links.new(self._image_node.outputs["Color"], self._background.inputs["Color"])
        return environment.name


def _make_environments() -> list[Environment]:
    """Make images of Blender's own HDRIs.

    They are never removed: Cycles' persistent data would take a new image for a removed one.
    """
    folder = Path(bpy.utils.system_resource("DATAFILES")) / "studiolights" / "world"
    environments = load_environments(folder)
    for environment in environments:
        height, width = environment.pixels.shape[:2]
        image = bpy.data.images.new(environment.name, width, height, float_buffer=True)
        opaque = np.ones((height, width, 4), dtype=np.float32)
        opaque[..., :3] = environment.pixels[::-1]
        image.pixels.foreach_set(opaque.ravel())
        image.update()
        image.use_fake_user = True
    return environments


def _find_reason(text: str) -> str:
    """Return why an operator failed, from the text that Blender reports.

    A traceback of an importer in Python says nothing to users, and is replaced.
    """
    if "Traceback" in text:
        return f"it is damaged, or holds what its importer does not know. {mesh_files.AGAIN}"
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("Location: ")]
    reason = lines[-1] if lines else "no reason given"
    return re.sub(r"^(Error: )?", "", reason).rstrip(".")


def _list_blocks(kind: str) -> Any:
    """Return a collection of Blender's data, () in a version without it."""
    return getattr(bpy.data, kind, ())


def _name_eevee() -> str:
    """Return this Blender's name of EEVEE; Blender 4.2 to 4.5 have another."""
    named = bpy.types.RenderSettings.bl_rna.properties["engine"].enum_items.keys()
    return "BLENDER_EEVEE_NEXT" if "BLENDER_EEVEE_NEXT" in named else "BLENDER_EEVEE"


def _scale_normals(channels: dict[str, np.ndarray]) -> np.ndarray:
    """Scale the averages of a pixel's normals to unit length."""
    normals = np.stack([channels[f"Normal.{c}"] for c in "XYZ"], axis=-1)
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    return np.where(length > 1e-3, normals / np.maximum(length, 1e-3), np.float32(0))


_DATA_KINDS = (
    "objects", "collections", "meshes", "curves", "metaballs", "armatures", "cameras", "lights",
    "materials", "textures", "images", "node_groups", "actions", "worlds", "scenes",
    "texts", "fonts", "libraries", "particles", "cache_files", "lattices", "hair_curves",
    "pointclouds", "volumes", "grease_pencils", "movieclips", "sounds",
)  # fmt: skip

# SPDX-License-Identifier: Apache-2.0
"""The light in Blender: uniform, or one of Blender's own HDRIs."""

from __future__ import annotations

from pathlib import Path

import bpy
import numpy as np

from gsv3d.lab.datasets.lighting import Environment, chosen, load_environments


class BlenderWorld:
    """The environment of a scene.

    Args:
        scene: gets a world of its own.
    """

    def __init__(self, scene: bpy.types.Scene) -> None:
        world = bpy.data.worlds.new("world")
        scene.world = world
        # The maps are blurred: directions drawn from the surface's reflection are less noisy than
        # directions drawn from the map, and no importance map (2 s an object) has to be made.
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

    def light_flat(self, radiance: float = 1.0) -> str:
        """Uniform white light; returns its name for the records."""
        for link in list(self._background.inputs["Color"].links):
            self._links.remove(link)
        self._background.inputs["Color"].default_value = (1, 1, 1, 1)
        self._background.inputs["Strength"].default_value = radiance
        return "flat"

    def light_hdri(self, choice: float, yaw_deg: float) -> str:
        """Light with one of Blender's HDRIs, ``choice`` in 0..1; returns its name."""
        environment = chosen(self._environments, choice)
        self._image_node.image = bpy.data.images[environment.name]
        self._mapping.inputs["Rotation"].default_value = (0, 0, np.deg2rad(yaw_deg))
        self._background.inputs["Strength"].default_value = 1.0
        self._links.new(self._image_node.outputs["Color"], self._background.inputs["Color"])
        return environment.name


def _make_environments() -> list[Environment]:
    """Blender's own HDRIs, each an image that stays (one that came and went would be mistaken
    for its predecessor by the persistent data)."""
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

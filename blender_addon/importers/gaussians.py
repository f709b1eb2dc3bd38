# SPDX-License-Identifier: GPL-3.0-or-later
"""Gaussians in the scene: a native splat cloud where Blender has it, else points with nodes."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import bpy
import numpy as np

from .. import compat, splat_view
from ..jobs import Target
from . import scene, splat_nodes
from .layout import AttributeValues, points_layout, splat_layout
from .placement import Fit
from .prepare import GaussianArrays


def import_gaussians(
    arrays: GaussianArrays, job_id: str, target: Target, fit: Fit
) -> Generator[None, None, str]:
    """Show ``arrays`` in the job's Gaussians object, a little at each step; returns its name.

    The data is built aside and swapped in at the end, so that coarse Gaussians stay in view until
    finer ones replace them, in the same object. Closing the generator early, or an error, leaves
    the scene as it was.
    """
    name = f"{target.name} Splats"
    native = compat.has_native_splats() and compat.attribute_type_exists("FLOAT4")
    data = new_cloud(name, len(arrays)) if native else new_points(name, len(arrays))
    former = scene.find_object(job_id, scene.GAUSSIANS)
    material = former.data.materials[0] if former is not None and former.data.materials else None
    try:
        yield
        for attribute in splat_layout(arrays, fit) if native else points_layout(arrays, fit):
            write_attribute(data, attribute)
            yield
        if native:
            data.update_tag()
        else:
            if material is None:
                material = splat_nodes.gaussian_material(name)
            material.diffuse_color = (*arrays.mean_colour, 1.0)
            data.materials.append(material)
            data.color_attributes.active_color_name = "Color"
            data.update()
        placed = scene.place_object(name, data, job_id, scene.GAUSSIANS, target)
        placed.color = (*arrays.mean_colour, 1.0)
        if not native:
            splat_nodes.add_ellipsoids(placed, not splat_view.wanted(scene.scene_of(target)))
        return placed.name
    except BaseException:
        scene.remove_unused(data)
        raise


def new_points(name: str, count: int) -> bpy.types.Mesh:
    """A mesh of ``count`` vertices and nothing else: point clouds cannot be resized everywhere."""
    mesh = bpy.data.meshes.new(name)
    mesh.vertices.add(count)
    return mesh


def new_cloud(name: str, count: int) -> Any:
    """A point cloud of native splats."""
    cloud: Any = bpy.data.pointclouds.new(name)
    cloud.type = "GAUSSIAN_SPLAT"
    cloud.resize(count)
    return cloud


def write_attribute(data: Any, attribute: AttributeValues) -> None:
    """Write one attribute on the points of ``data``, made if it is not there."""
    existing = data.attributes.get(attribute.name)
    if existing is None:
        existing = data.attributes.new(attribute.name, attribute.data_type, "POINT")
    values: Any = np.ascontiguousarray(attribute.values, np.float32).reshape(-1)
    existing.data.foreach_set(attribute.key, values)

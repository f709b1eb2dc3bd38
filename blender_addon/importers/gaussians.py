# SPDX-License-Identifier: GPL-3.0-or-later
"""Gaussians in the scene, as a native splat cloud where Blender has one, else as points."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import bpy
import numpy as np

from .. import compat, splat_view
from ..requests import Target
from . import scene, splat_nodes
from .layout import AttributeValues, points_layout, splat_layout
from .placement import Fit
from .prepare import GaussianArrays

ARRAYS_TAG = "gsv3d_arrays"
"""Property that tells which arrays data was made of."""


def import_gaussians(
    arrays: GaussianArrays, job_id: str, target: Target, fit: Fit
) -> Generator[None, None, str]:
    """Show ``arrays`` in the job's Gaussians object, a little at each step; return its name.

    The last step puts the new data into the object, so that coarse Gaussians stay in view until
    finer ones replace them. Closing the generator early, or an error, leaves the scene as it was.
    """
    data = yield from build_gaussians(arrays, job_id, target.name, fit)
    try:
        return show_gaussians(data, arrays, job_id, target)
    finally:
        scene.remove_unused(data)


def build_gaussians(
    arrays: GaussianArrays, job_id: str, name: str, fit: Fit
) -> Generator[None, None, Any]:
    """Make the data of an object of Gaussians, a little at each step; return it.

    No object uses it yet, so Blender has nothing to evaluate. Where the job's object shows the same
    arrays, its data is copied and only moved and scaled.
    """
    native = compat.has_native_splats()
    attributes = splat_layout(arrays, fit) if native else points_layout(arrays, fit)
    former = scene.find_object(job_id, scene.GAUSSIANS)
    if former is not None and _shows(former.data, arrays):
        data = former.data.copy()
        attributes = [one for one in attributes if one.name in ("position", "scale")]
    else:
        data = (new_cloud if native else new_points)(f"{name} Splats", len(arrays))
        data[ARRAYS_TAG] = arrays.key
    try:
        yield
        for attribute in attributes:
            write_attribute(data, attribute)
            yield
        return data
    except BaseException:
        scene.remove_unused(data)
        raise


def show_gaussians(data: Any, arrays: GaussianArrays, job_id: str, target: Target) -> str:
    """Show data of `build_gaussians` in the job's object, made where there is none.

    Blender then evaluates the whole scene, so call it once in an arrival.

    Returns:
        The object's name.
    """
    native, name = compat.has_native_splats(), f"{target.name} Splats"
    former = scene.find_object(job_id, scene.GAUSSIANS)
    material = former.data.materials[0] if former is not None and former.data.materials else None
    if native:
        data.update_tag()
    else:
        if material is None:
            material = splat_nodes.gaussian_material(name)
        material.diffuse_color = (*arrays.mean_color, 1.0)
        if not data.materials:
            data.materials.append(material)
        data.color_attributes.active_color_name = "Color"
        data.update()
    placed = scene.place_object(name, data, job_id, scene.GAUSSIANS, target)
    placed.color = (*arrays.mean_color, 1.0)
    if not native:
        splat_nodes.add_ellipsoids(placed, not splat_view.wanted(scene.scene_of(target)))
    return placed.name


def _shows(data: Any, arrays: GaussianArrays) -> bool:
    """Return True if data was made of these arrays, and the artist deleted nothing of it."""
    known = data.get(ARRAYS_TAG) == arrays.key
    return known and len(data.attributes["position"].data) == len(arrays)


def new_points(name: str, count: int) -> bpy.types.Mesh:
    """Return a mesh of ``count`` vertices, since not all Blenders can resize point clouds."""
    mesh = bpy.data.meshes.new(name)
    mesh.vertices.add(count)
    return mesh


def new_cloud(name: str, count: int) -> Any:
    """Return a point cloud of native splats."""
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

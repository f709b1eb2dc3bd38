# SPDX-License-Identifier: GPL-3.0-or-later
"""The node group that shows points with Gaussian attributes as colored ellipsoids.

A Gaussian of opacity a has fallen to the threshold t at the distance sqrt(2 ln(a / t)) times its
scale (from a exp(-r^2 / 2) = t). That surface is drawn, so faint Gaussians are small and those
below the threshold vanish. Points are sorted, the most visible first, and the percentage shows the
first ones.

Renders always show the ellipsoids. A 3D view in which the add-on draws splats shows the points' box
instead, which can be clicked and framed and costs nothing.
"""

from __future__ import annotations

from typing import Any

import bpy

from .. import compat

GROUP_NAME = "GSV3D Ellipsoids"
VERSION_TAG = "gsv3d_version"
GROUP_VERSION = 3
_IN_VIEW = "Ellipsoids in the View"


def ellipsoid_group() -> Any:
    """Return the node group; make it when this file has none of this version."""
    for group in bpy.data.node_groups:
        ours = group.library is None and group.name.startswith(GROUP_NAME)
        if ours and group.get(VERSION_TAG) == GROUP_VERSION:
            return group
    group = bpy.data.node_groups.new(GROUP_NAME, "GeometryNodeTree")
    group[VERSION_TAG] = GROUP_VERSION
    group.is_modifier = True
    _build(group)
    return group


def add_ellipsoids(owner: Any, in_view: bool) -> None:
    """Give an object the node group, or its newest version, unless it has it.

    Args:
        owner: an object of points.
        in_view: show the ellipsoids in 3D views, not in renders alone.
    """
    modifier = _modifier_of(owner)
    if modifier is None:
        modifier = owner.modifiers.new(GROUP_NAME, "NODES")
    if modifier.node_group is None or modifier.node_group.get(VERSION_TAG) != GROUP_VERSION:
        modifier.node_group = ellipsoid_group()
    elif compat.modifier_input(modifier, _IN_VIEW) == in_view:
        return
    compat.set_modifier_input(modifier, _IN_VIEW, in_view)
    owner.update_tag()


def ellipsoids_in_view(owner: Any) -> bool:
    """Return True if 3D views show an object's ellipsoids."""
    modifier = _modifier_of(owner)
    if modifier is None or modifier.node_group is None or not modifier.show_viewport:
        return False
    known = modifier.node_group.get(VERSION_TAG) == GROUP_VERSION
    return not known or bool(compat.modifier_input(modifier, _IN_VIEW))


def _modifier_of(owner: Any) -> Any:
    named = (m for m in owner.modifiers if m.type == "NODES" and m.name.startswith("GSV3D"))
    return next(named, None)


def gaussian_material(name: str) -> Any:
    """Return the material of ellipsoids: their color, unlit, as Gaussians have no shading."""
    material = bpy.data.materials.new(name)
    tree = compat.ensure_node_tree(material)
    tree.nodes.clear()
    color: Any = tree.nodes.new("ShaderNodeAttribute")
    color.attribute_name = "Color"
    emission: Any = tree.nodes.new("ShaderNodeEmission")
    output: Any = tree.nodes.new("ShaderNodeOutputMaterial")
    color.location, emission.location, output.location = (-240, 0), (0, 0), (240, 0)
    tree.links.new(color.outputs["Color"], emission.inputs["Color"])
    tree.links.new(emission.outputs["Emission"], output.inputs["Surface"])
    return material


def _build(group: Any) -> None:
    interface = group.interface
    interface.new_socket("Geometry", in_out="INPUT", socket_type="NodeSocketGeometry")
    _number(
        interface,
        "Display",
        100.0,
        0.0,
        100.0,
        "PERCENTAGE",
        "Share of the splats that is shown, the most visible first",
    )
    _number(interface, "Size", 1.0, 0.0, 4.0, "FACTOR", "Scale of every ellipsoid")
    _number(
        interface,
        "Opacity Threshold",
        0.15,
        0.005,
        1.0,
        "FACTOR",
        "Opacity at which an ellipsoid ends; fainter splats are not shown",
    )
    interface.new_socket("Geometry", in_out="OUTPUT", socket_type="NodeSocketGeometry")
    # Last, for the identifiers of those before it are what files know.
    in_view = interface.new_socket(
        _IN_VIEW,
        in_out="INPUT",
        socket_type="NodeSocketBool",
        description="Show the ellipsoids in 3D views too; else their box, and splats over it",
    )
    in_view.default_value = True

    make = _Maker(group)
    given = make.node("NodeGroupInput", -1200, 0).outputs
    scale = make.attribute("scale", "FLOAT_VECTOR", -1200, -500)
    rotation = make.attribute("rotation", "QUATERNION", -1200, -700)
    opacity = make.attribute("opacity", "FLOAT", -1200, -300)

    # sqrt(max(2 ln(opacity / threshold), 0)) * size
    ratio = make.math("DIVIDE", opacity, given["Opacity Threshold"], -1000, -300)
    log = make.math(
        "LOGARITHM", make.math("MAXIMUM", ratio, 1.0, -840, -300), 2.718281828459045, -680, -300
    )
    radius = make.math("SQRT", make.math("MULTIPLY", log, 2.0, -520, -300), None, -360, -300)
    sized = make.math("MULTIPLY", radius, given["Size"], -200, -300)
    stretched = make.node("ShaderNodeVectorMath", -40, -400, operation="SCALE")
    make.link(scale, stretched.inputs["Vector"])
    make.link(sized, stretched.inputs["Scale"])

    count = make.node("GeometryNodeAttributeDomainSize", -1000, 200, component="MESH")
    make.link(given["Geometry"], count.inputs["Geometry"])
    share = make.math("DIVIDE", given["Display"], 100.0, -840, 100)
    shown = make.math("MULTIPLY", count.outputs["Point Count"], share, -680, 200)
    index = make.node("GeometryNodeInputIndex", -680, 60)
    in_share = make.math("LESS_THAN", index.outputs["Index"], shown, -520, 200)
    visible = make.math("GREATER_THAN", radius, 0.0, -200, 60)
    selection = make.math("MULTIPLY", in_share, visible, -40, 200)

    ball = make.node("GeometryNodeMeshIcoSphere", -200, -700)
    ball.inputs["Subdivisions"].default_value = 1
    instances = make.node("GeometryNodeInstanceOnPoints", 160, 0)
    make.link(given["Geometry"], instances.inputs["Points"])
    make.link(selection, instances.inputs["Selection"])
    make.link(ball.outputs["Mesh"], instances.inputs["Instance"])
    make.link(rotation, instances.inputs["Rotation"])
    make.link(stretched.outputs["Vector"], instances.inputs["Scale"])

    # One mesh draws far faster than thousands of instances; only the color has to come along.
    # The points join in because Blender takes the name of the active color, which the Solid
    # view's Attribute colors need, from the first mesh; bare points are not drawn.
    join = make.node("GeometryNodeJoinGeometry", 340, 0)
    make.link(instances.outputs["Instances"], join.inputs[0])
    make.link(given["Geometry"], join.inputs[0])
    flow = join.outputs[0]
    for column, name in enumerate(("scale", "rotation", "opacity", "sh_*")):
        remove = make.node("GeometryNodeRemoveAttribute", 520 + 180 * column, 0)
        if name.endswith("*"):
            compat.set_node_property(remove, {"pattern_mode": "WILDCARD"})
        remove.inputs["Name"].default_value = name
        make.link(flow, remove.inputs["Geometry"])
        flow = remove.outputs["Geometry"]
    realize = make.node("GeometryNodeRealizeInstances", 1240, 0)
    make.link(flow, realize.inputs[0])
    smooth = make.node("GeometryNodeSetShadeSmooth", 1420, 0)
    make.link(realize.outputs[0], smooth.inputs[0])
    # The balls come with an empty slot of their own: back to the first one, the points'.
    material = make.node("GeometryNodeSetMaterialIndex", 1600, 0)
    material.inputs["Material Index"].default_value = 0
    make.link(smooth.outputs[0], material.inputs["Geometry"])
    box = make.node("GeometryNodeBoundBox", 1240, -300)
    make.link(given["Geometry"], box.inputs["Geometry"])
    edges = make.node("GeometryNodeDeleteGeometry", 1420, -300, domain="FACE", mode="ONLY_FACE")
    make.link(box.outputs["Bounding Box"], edges.inputs["Geometry"])
    viewed = make.node("GeometryNodeIsViewport", 1420, 300)
    boxed = make.node("FunctionNodeBooleanMath", 1600, 300, operation="NIMPLY")
    make.link(viewed.outputs[0], boxed.inputs[0])
    make.link(given[_IN_VIEW], boxed.inputs[1])
    choice = make.node("GeometryNodeSwitch", 1780, 0, input_type="GEOMETRY")
    make.link(boxed.outputs[0], choice.inputs["Switch"])
    make.link(material.outputs["Geometry"], choice.inputs["False"])
    make.link(edges.outputs["Geometry"], choice.inputs["True"])
    output = make.node("NodeGroupOutput", 1960, 0)
    make.link(choice.outputs["Output"], output.inputs["Geometry"])


def _number(
    interface: Any, name: str, value: float, low: float, high: float, subtype: str, description: str
) -> None:
    socket = interface.new_socket(
        name, in_out="INPUT", socket_type="NodeSocketFloat", description=description
    )
    socket.subtype = subtype
    socket.default_value, socket.min_value, socket.max_value = value, low, high


class _Maker:
    """Short methods that make nodes and links in one group."""

    def __init__(self, group: Any) -> None:
        self._group = group

    def node(self, kind: str, x: float, y: float, **properties: Any) -> Any:
        node = self._group.nodes.new(kind)
        node.location = (x, y)
        compat.set_node_property(node, properties)
        return node

    def link(self, source: Any, destination: Any) -> None:
        self._group.links.new(source, destination)

    def attribute(self, name: str, data_type: str, x: float, y: float) -> Any:
        node = self.node("GeometryNodeInputNamedAttribute", x, y, data_type=data_type)
        node.inputs["Name"].default_value = name
        return next(s for s in node.outputs if s.name == "Attribute" and s.enabled)

    def math(self, operation: str, a: Any, b: Any, x: float, y: float) -> Any:
        node = self.node("ShaderNodeMath", x, y, operation=operation)
        for socket, value in zip(node.inputs, (a, b), strict=False):
            if isinstance(value, float):
                socket.default_value = value
            elif value is not None:
                self.link(value, socket)
        return node.outputs[0]

# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in Blender after an import, read back from Blender."""

from __future__ import annotations

import json
import math
import struct

import numpy as np
import pytest
from PIL import Image

from blender_addon.importers import placement, prepare
from blender_addon.requests import Target
from tests.canned_results import make_box, make_sphere

pytestmark = pytest.mark.bpy

AS_IT_IS, PLACE = placement.Fit((0, 0, 0), 1.0), Target("b")


def read_values(collection, key: str, width: int) -> np.ndarray:
    values = np.empty(len(collection) * width, np.float32)
    collection.foreach_get(key, values)
    return values.reshape(-1, width)


@pytest.fixture
def box():
    arrays = prepare.prepare_mesh(**make_box())
    return arrays, placement.fit_to_height(arrays.bounds, 2.0)


@pytest.fixture
def add_mesh(empty_blender, finish):
    """Import a mesh, and return its object."""
    from blender_addon.importers.mesh import import_mesh

    def add(arrays, fit, target=PLACE, job: str = "j"):
        return empty_blender.data.objects[finish(import_mesh(arrays, job, target, fit))]

    return add


@pytest.fixture
def add_gaussians(empty_blender, finish):
    """Import Gaussians, and return their object."""
    from blender_addon.importers.gaussians import import_gaussians

    def add(arrays, fit=AS_IT_IS, job: str = "j"):
        return empty_blender.data.objects[finish(import_gaussians(arrays, job, PLACE, fit))]

    return add


@pytest.fixture
def points(empty_blender) -> None:
    """Skip the test where Gaussians are no points."""
    from blender_addon import compat

    if compat.has_native_splats():
        pytest.skip("this Blender has native splats")


def test_mesh_geometry_uvs_and_place(empty_blender, add_mesh, box) -> None:
    arrays, fit = box
    target = Target("Faß", location=(1, 2, 3), yaw=math.pi / 2, height=2.0)
    made = add_mesh(arrays, fit, target)
    empty_blender.context.view_layer.update()
    assert made.name == "Faß" and made.data.name == "Faß"
    assert tuple(made.scale) == (1, 1, 1)
    corners = np.array([made.matrix_world @ v.co for v in made.data.vertices])
    # 0.6 x 0.4 x 1.0 at twice the size, turned a quarter: x and y change places
    np.testing.assert_allclose(corners.min(axis=0), [1 - 0.4, 2 - 0.6, 3], atol=1e-5)
    np.testing.assert_allclose(corners.max(axis=0), [1 + 0.4, 2 + 0.6, 5], atol=1e-5)
    faces = np.array([list(p.vertices) for p in made.data.polygons])
    np.testing.assert_array_equal(faces, arrays.faces)
    uvs = read_values(made.data.uv_layers.active.uv, "vector", 2)
    np.testing.assert_allclose(uvs.reshape(-1, 3, 2), arrays.corner_uvs, atol=1e-7)
    assert len(made.data.edges) == 18  # a closed box of triangles: 12 * 3 / 2
    assert made.data.validate(verbose=False) is False


def test_a_box_keeps_its_edges_and_a_ball_is_smooth(add_mesh, box) -> None:
    mesh = add_mesh(*box).data
    sharp = mesh.attributes["sharp_edge"].data
    assert sum(a.value for a in sharp) == 12  # not the six diagonals
    assert all(p.use_smooth for p in mesh.polygons)


def test_one_material_with_the_texture_in_srgb_and_packed(add_mesh, box) -> None:
    arrays, fit = box
    mesh = add_mesh(arrays, fit).data
    assert len(mesh.materials) == 1
    nodes = mesh.materials[0].node_tree.nodes
    (surface,) = [n for n in nodes if n.type == "BSDF_PRINCIPLED"]
    (link,) = surface.inputs["Base Color"].links
    image = link.from_node.image
    assert link.from_node.type == "TEX_IMAGE" and link.from_socket.name == "Color"
    assert image.colorspace_settings.name == "sRGB"
    assert bytes(image.packed_file.data) == arrays.texture_png
    assert tuple(image.size) == (64, 64)
    # the top left pixel of the array is the last row of Blender's
    pixels = read_pixels(image)
    np.testing.assert_allclose(pixels[-1, 0, :3], np.array([200, 40, 30]) / 255, atol=1 / 255)
    assert surface.inputs["Roughness"].default_value > 0.8
    output = next(n for n in nodes if n.type == "OUTPUT_MATERIAL")
    assert output.inputs["Surface"].links[0].from_node == surface


@pytest.fixture
def striped():
    """Make a square that looks along -Y, with every second eighth of its width left out."""
    alpha = np.zeros((64, 64), np.uint8)
    alpha[:, np.arange(64) // 8 % 2 == 0] = 255
    corners = np.array([[-0.5, 0, 0], [0.5, 0, 0], [0.5, 0, 1], [-0.5, 0, 1]], "f4")
    faces = np.array([[0, 1, 2], [0, 2, 3]], "i4")
    uvs = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], "f4")[faces]
    texture = np.full((64, 64, 3), (200, 40, 30), np.uint8)
    arrays = prepare.prepare_mesh(corners, faces, uvs, texture, alpha)
    return arrays, AS_IT_IS


@pytest.mark.parametrize("turn", [0.0, math.pi], ids=["front", "back"])
def test_a_clipped_texture_is_drawn_with_its_holes(
    empty_blender, add_mesh, striped, tmp_path, turn: float
) -> None:
    bpy = empty_blender
    add_mesh(*striped, Target("net", yaw=turn))
    scene = bpy.context.scene
    scene.camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    scene.collection.objects.link(scene.camera)
    scene.camera.data.type, scene.camera.data.ortho_scale = "ORTHO", 1.0
    scene.camera.location, scene.camera.rotation_euler = (0, -3, 0.5), (math.pi / 2, 0, 0)
    scene.render.engine, scene.cycles.samples, scene.cycles.device = "CYCLES", 4, "CPU"
    scene.render.resolution_x = scene.render.resolution_y = 64
    scene.render.film_transparent = True
    scene.render.filepath = str(tmp_path / "net.png")
    bpy.ops.render.render(write_still=True)
    with Image.open(tmp_path / "net.png") as picture:
        alpha = np.asarray(picture)[..., 3]
    columns = np.arange(64) if turn == 0 else 63 - np.arange(64)
    inner = np.isin(np.arange(64) % 8, (3, 4))  # the picture's own filter softens the edges
    wanted = np.where(columns // 8 % 2 == 0, 255, 0)
    np.testing.assert_allclose(alpha[8:56, inner], np.tile(wanted[inner], (48, 1)), atol=3)


def test_a_clipped_texture_is_exported_as_a_mask(
    empty_blender, add_mesh, striped, tmp_path
) -> None:
    add_mesh(*striped)
    empty_blender.ops.export_scene.gltf(filepath=str(tmp_path / "net.glb"))
    data = (tmp_path / "net.glb").read_bytes()
    (length,) = struct.unpack_from("<I", data, 12)
    (material,) = json.loads(data[20 : 20 + length])["materials"]
    assert material["alphaMode"] == "MASK" and material.get("alphaCutoff", 0.5) == 0.5
    assert material["doubleSided"] is True
    assert "baseColorTexture" in material["pbrMetallicRoughness"]


@pytest.mark.filterwarnings("ignore:Setting the shape:DeprecationWarning")  # Blender's own FBX
def test_exports_keep_the_texture(empty_blender, add_mesh, box, tmp_path) -> None:
    arrays, fit = box
    for job in "12":  # of the same name: each keeps its own
        add_mesh(arrays, fit, Target("Faß: 1"), job)
    bpy = empty_blender
    bpy.ops.export_scene.fbx(
        filepath=str(tmp_path / "b.fbx"), path_mode="COPY", embed_textures=True
    )
    embedded = (tmp_path / "b.fbx").read_bytes()
    assert embedded.count(arrays.texture_png) >= 1 and "Faß_ 1.png".encode() in embedded
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "b.blend"))
    bpy.ops.file.unpack_all(method="USE_LOCAL")
    bpy.ops.wm.obj_export(filepath=str(tmp_path / "out.obj"), path_mode="COPY")
    for name in ("Faß_ 1.png", "Faß_ 1.001.png"):
        assert (tmp_path / name).read_bytes() == arrays.texture_png
        assert f"map_Kd {name}" in (tmp_path / "out.mtl").read_text("utf-8")


def read_pixels(image) -> np.ndarray:
    values = np.empty(image.size[0] * image.size[1] * 4, np.float32)
    image.pixels.foreach_get(values)
    return values.reshape(image.size[1], image.size[0], 4)


def test_the_solid_view_has_a_color_whatever_it_shows(add_mesh, box) -> None:
    arrays, fit = box
    made = add_mesh(arrays, fit)
    mean = np.array(arrays.mean_color)
    np.testing.assert_allclose(made.color[:3], mean, atol=1e-6)
    np.testing.assert_allclose(made.data.materials[0].diffuse_color[:3], mean, atol=1e-6)
    active = made.data.color_attributes.active_color
    shown = read_values(active.data, "color_srgb", 4).reshape(-1, 3, 4)
    quarters = np.array([[40, 70, 200], [220, 200, 40], [200, 40, 30], [30, 160, 60]]) / 255
    wanted = quarters[np.arange(12) % 4][:, None].repeat(3, axis=1)
    np.testing.assert_allclose(shown[..., :3], wanted, atol=1 / 255)


def test_gaussians_have_their_mean_color_where_the_solid_view_shows_materials(
    empty_blender, points, add_gaussians
) -> None:
    canned = make_sphere(20)
    canned["sh"][:] = [[[1.0, 0.0, -1.0]]]
    for count in (10, 20):
        cloud = prepare.prepare_gaussians(**{n: v[:count] for n, v in canned.items()})
        made = add_gaussians(cloud)
    shown = made.evaluated_get(empty_blender.context.evaluated_depsgraph_get()).data
    (material,) = {shown.materials[p.material_index] for p in shown.polygons}
    srgb = 0.5 + 0.28209479 * np.array([1.0, 0.0, -1.0])
    linear = ((srgb + 0.055) / 1.055) ** 2.4
    np.testing.assert_allclose(material.diffuse_color[:3], linear, atol=1e-3)
    np.testing.assert_allclose(made.color[:3], linear, atol=1e-3)
    assert len(empty_blender.data.materials) == 1


def test_stopping_half_way_leaves_nothing(empty_blender, box) -> None:
    from blender_addon.importers.gaussians import import_gaussians
    from blender_addon.importers.mesh import import_mesh

    arrays, fit = box
    cloud = prepare.prepare_gaussians(**make_sphere(10))
    for steps in (1, 2, 3):
        for work in (
            import_mesh(arrays, "j", Target("b"), fit),
            import_gaussians(cloud, "j", Target("b"), fit),
        ):
            for _ in range(steps):
                next(work)
            work.close()
    data = empty_blender.data
    assert not (data.objects or data.meshes or data.images or data.materials)


def assert_shapes(attributes, arrays, fit) -> None:
    np.testing.assert_allclose(
        read_values(attributes["position"].data, "vector", 3), fit.apply(arrays.means), atol=1e-6
    )
    np.testing.assert_allclose(
        read_values(attributes["scale"].data, "vector", 3), arrays.scales * fit.scale, atol=1e-7
    )
    np.testing.assert_allclose(read_values(attributes["rotation"].data, "value", 4), arrays.quats)


def test_gaussians_as_points_with_attributes(points, add_gaussians) -> None:
    arrays = prepare.prepare_gaussians(**make_sphere(64))
    fit = placement.fit_to_height(arrays.bounds, 1.5)
    made = add_gaussians(arrays, fit)
    assert made.name == "b Splats"
    attributes = made.data.attributes
    assert_shapes(attributes, arrays, fit)
    np.testing.assert_allclose(
        read_values(attributes["opacity"].data, "value", 1)[:, 0], arrays.opacities
    )
    np.testing.assert_allclose(
        read_values(attributes["Color"].data, "color", 4), arrays.colors, atol=1e-6
    )
    np.testing.assert_allclose(read_values(attributes["sh_0"].data, "vector", 3), arrays.sh[:, 0])


def test_gaussians_as_native_splats(add_gaussians) -> None:
    from blender_addon import compat

    if not compat.has_native_splats():
        pytest.skip("this Blender has no native splats")
    arrays = prepare.prepare_gaussians(**make_sphere(64))
    fit = placement.fit_to_height(arrays.bounds, 1.5)
    made = add_gaussians(arrays, fit)
    assert made.type == "POINTCLOUD" and made.data.type == "GAUSSIAN_SPLAT"
    attributes = made.data.attributes
    assert_shapes(attributes, arrays, fit)
    base = read_values(attributes["radiance:base"].data, "vector", 4)
    np.testing.assert_allclose(base[:, :3], arrays.sh[:, 0])
    np.testing.assert_allclose(base[:, 3], arrays.opacities)


def list_ellipsoids(bpy, owner) -> np.ndarray:
    """Return the vertices of the ellipsoids, without the bare points, as (n, 12, 3)."""
    mesh = owner.evaluated_get(bpy.context.evaluated_depsgraph_get()).data
    used = np.unique(np.array([list(p.vertices) for p in mesh.polygons]).reshape(-1))
    return read_values(mesh.vertices, "co", 3)[used].reshape(-1, 12, 3)


def test_the_nodes_show_each_gaussian_as_its_ellipsoid(
    empty_blender, points, add_gaussians
) -> None:
    # one Gaussian, long along x, turned 90 degrees about z by its quaternion
    half = math.sqrt(0.5)
    opacity, threshold = 0.8, 0.15
    arrays = prepare.prepare_gaussians(
        means=np.array([[0.3, 0.2, 0.1]], "f4"),
        quats=np.array([[half, 0, 0, half]], "f4"),
        scales=np.array([[0.2, 0.05, 0.02]], "f4"),
        opacities=np.array([opacity], "f4"),
        sh=np.ones((1, 1, 3), "f4"),
    )
    made = add_gaussians(arrays)
    (ball,) = list_ellipsoids(empty_blender, made)
    np.testing.assert_allclose(ball.mean(axis=0), [0.3, 0.2, 0.1], atol=1e-5)
    # Undo scale and rotation by hand: all corners lie on the sphere where the alpha has
    # fallen to the threshold, opacity * exp(-r^2 / 2) = threshold.
    local = (ball - [0.3, 0.2, 0.1])[:, [1, 0, 2]] / [0.2, 0.05, 0.02]
    radius = math.sqrt(2 * math.log(opacity / threshold))
    np.testing.assert_allclose(np.linalg.norm(local, axis=1), radius, rtol=1e-4)


def test_the_percentage_shows_the_most_visible_and_faint_ones_vanish(
    empty_blender, points, add_gaussians
) -> None:
    from blender_addon import compat

    g = make_sphere(40)
    g["opacities"][:8] = 0.05
    arrays = prepare.prepare_gaussians(**g)
    made = add_gaussians(arrays)
    assert len(list_ellipsoids(empty_blender, made)) == 32
    compat.set_modifier_input(made.modifiers[0], "Display", 25.0)
    made.update_tag()
    shown = list_ellipsoids(empty_blender, made)
    np.testing.assert_allclose(shown.mean(axis=1), arrays.means[:10], atol=1e-5)


def test_finer_gaussians_replace_coarse_ones_in_the_same_object(
    empty_blender, add_gaussians
) -> None:
    from blender_addon import compat

    for count in (10, 20, 30):
        made = add_gaussians(prepare.prepare_gaussians(**make_sphere(count)))
        assert made.name == "b Splats"
        made.location.x += 1.0
    assert made.location.x == 3.0  # where the artist put it
    data = empty_blender.data
    assert len(data.objects) == 1 and len(data.meshes) + len(data.pointclouds) == 1
    assert len(made.data.attributes["position"].data) == 30
    nodes = 0 if compat.has_native_splats() else 1
    assert len(made.modifiers) == nodes and len(data.node_groups) == nodes


def test_two_results_share_nodes_and_get_names_of_their_own(
    empty_blender, add_mesh, add_gaussians, box
) -> None:
    from blender_addon import compat

    cloud = prepare.prepare_gaussians(**make_sphere(10))
    names = [add_mesh(*box, job=job).name for job in "12"]
    clouds = [add_gaussians(cloud, job=job).name for job in "12"]
    assert names == ["b", "b.001"] and clouds == ["b Splats", "b Splats.001"]
    assert len(empty_blender.data.node_groups) == (0 if compat.has_native_splats() else 1)


def test_native_splats_are_used_where_blender_can_make_one(empty_blender) -> None:
    from blender_addon import compat

    cloud = empty_blender.data.pointclouds.new("tried")
    try:
        cloud.type = "GAUSSIAN_SPLAT"
        cloud.resize(3)
        can = len(cloud.points) == 3
    except (AttributeError, TypeError):
        can = False
    assert compat.has_native_splats() == can


def test_a_users_scene_is_left_as_it_is(empty_blender, add_mesh, add_gaussians, box) -> None:
    scene = empty_blender.context.scene

    def look() -> tuple:
        return (
            scene.render.engine,
            scene.view_settings.view_transform,
            scene.camera,
            scene.world,
            scene.frame_current,
            empty_blender.context.view_layer.objects.active,
        )

    before = look()
    add_mesh(*box)
    add_gaussians(prepare.prepare_gaussians(**make_sphere(10)))
    assert look() == before

# SPDX-License-Identifier: Apache-2.0
"""Variations of props: stretched, turned, joined, painted."""

import numpy as np
import pytest
import trimesh

from gsv3d.lab.rasterizing import Prop, load_prop
from gsv3d.lab.rasterizing.variation import join, paint, put_together, recolor, stretch, turn, vary


@pytest.fixture(scope="module")
def prop(tmp_path_factory) -> Prop:
    """Return a cylinder and, apart from it, a box: two connected parts."""
    path = tmp_path_factory.mktemp("props") / "two.glb"
    box = trimesh.creation.box((0.2, 0.2, 0.2))
    box.apply_translation([1, 0, 0])
    trimesh.Scene([trimesh.creation.cylinder(0.3, 1.0, sections=16), box]).export(path)
    return load_prop(path)


def face_normals(prop: Prop) -> np.ndarray:
    corners = prop.vertices[prop.faces].astype(np.float64)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return normals / np.linalg.norm(normals, axis=1, keepdims=True)


def test_stretched_normals_stand_on_the_stretched_faces(prop):
    flat = np.repeat(face_normals(prop)[:, None], 3, axis=1).astype(np.float32)
    flattened = Prop(**(vars(prop) | {"corner_normals": flat}))
    stretched = stretch(flattened, np.array([0.5, 2.0, 1.3]))
    cosine = np.einsum("fi,fi->f", face_normals(stretched), stretched.corner_normals[:, 0])
    assert np.allclose(cosine, 1, atol=1e-4)


def test_a_turn_keeps_lengths_and_moves_x_to_y(prop):
    turned = turn(prop, 90)
    assert np.allclose(turned.vertices[:, 1], prop.vertices[:, 0], atol=1e-6)
    assert np.allclose(turned.vertices[:, 0], -prop.vertices[:, 1], atol=1e-6)
    assert np.allclose(
        np.linalg.norm(turned.vertices, axis=1), np.linalg.norm(prop.vertices, axis=1), atol=1e-6
    )


def test_joined_props_hold_both(prop):
    both = join(prop, prop)
    assert len(both.faces) == 2 * len(prop.faces)
    second = both.vertices[both.faces[len(prop.faces) :]]
    assert np.array_equal(second, prop.vertices[prop.faces])


def test_props_put_together_nearly_touch(prop):
    for seed in range(8):
        both = put_together(prop, prop, np.random.default_rng(seed))
        count = len(prop.vertices)
        first, second = both.vertices[:count], both.vertices[count:]
        gap = np.maximum(first.min(0) - second.max(0), second.min(0) - first.max(0)).max()
        assert gap < 0.06
        assert np.ptp(second, axis=0).max() < 0.81


def test_paint_colors_whole_parts(prop):
    painted = paint(prop, np.random.default_rng(1), palette=50)
    colors = {tuple(c) for c in painted.corner_colors.reshape(-1, 3).round(5).tolist()}
    assert len(colors) == 2
    assert not painted.plain and (painted.texture_index == -1).all()


def test_recolor_moves_textures_and_colors_alike(prop):
    texture = np.zeros((2, 2, 3), dtype=np.uint8)
    texture[..., 0] = 200
    red = Prop(**(vars(prop) | {"textures": (texture,)}))
    changed = recolor(red, np.random.default_rng(2))
    assert changed.textures[0].max() == 200 and changed.textures[0].any(axis=(0, 1)).sum() == 1


def test_variations_repeat_with_the_seed_and_stay_finite(prop):
    for seed in range(6):
        one, two = (vary(prop, prop, np.random.default_rng(seed)) for _ in range(2))
        assert np.array_equal(one.vertices, two.vertices)
        assert np.isfinite(one.vertices).all()
        assert np.allclose(np.linalg.norm(one.corner_normals, axis=-1), 1, atol=1e-4)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Arrays before Blender sees them: checked, sorted, converted, placed."""

from __future__ import annotations

import io
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from blender_addon.importers import layout, placement, prepare
from blender_addon.problems import Problem
from tests.canned_results import make_box, make_sphere, make_views


def test_gaussians_come_most_visible_first_with_linear_colors() -> None:
    g = make_sphere(50)
    g["opacities"] = np.linspace(0.1, 1.0, 50, dtype=np.float32)
    done = prepare.prepare_gaussians(**g)
    assert np.all(np.diff(done.opacities) <= 0)
    order = np.argsort(-g["opacities"])
    np.testing.assert_array_equal(done.means, g["means"][order])
    # by hand: sRGB 0.5 + C0 * dc, then the piecewise transfer function
    s = np.clip(0.5 + 0.28209479 * g["sh"][order, 0].astype("f8"), 0, 1)
    linear = np.where(s <= 0.04045, s / 12.92, ((s + 0.055) / 1.055) ** 2.4)
    np.testing.assert_allclose(done.colors[:, :3], linear, atol=1e-5)
    np.testing.assert_array_equal(done.colors[:, 3], done.opacities)


def test_broken_and_invisible_gaussians_are_dropped() -> None:
    g = make_sphere(20)
    g["means"][0] = np.nan
    g["scales"][1, 2] = 0
    g["quats"][2] = 0
    g["opacities"][3] = 0.001
    g["opacities"][4] = np.nan
    g["sh"][5, 0, 1] = np.inf
    g["quats"][6:] *= 3
    done = prepare.prepare_gaussians(**g)
    assert len(done) == 14
    np.testing.assert_allclose(np.linalg.norm(done.quats, axis=1), 1, atol=1e-6)


def test_the_cap_keeps_the_most_visible(monkeypatch) -> None:
    monkeypatch.setattr(prepare, "MAX_GAUSSIANS", 10)
    g = make_sphere(100)
    g["scales"] *= np.linspace(1, 2, 100, dtype=np.float32)[:, None]
    done = prepare.prepare_gaussians(**g)
    np.testing.assert_array_equal(done.scales[::-1], g["scales"][90:])


def test_nothing_to_show_is_said() -> None:
    g = make_sphere(9)
    g["opacities"][:] = 0
    with pytest.raises(Problem, match="None of the 9"):
        prepare.prepare_gaussians(**g)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["means", "quats", "scales", "opacities", "sh"]),
    st.lists(st.integers(0, 5), min_size=0, max_size=4),
)
def test_shapes_that_disagree_are_refused(name: str, shape: list[int]) -> None:
    g = make_sphere(4)
    if tuple(shape) == g[name].shape or (name == "sh" and tuple(shape) == (4, 4, 3)):
        return
    g[name] = np.zeros(shape, np.float32)
    with pytest.raises(Problem):
        prepare.prepare_gaussians(**g)


def test_a_mesh_keeps_its_texture_bit_by_bit() -> None:
    box = make_box()
    done = prepare.prepare_mesh(**box)
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(done.texture_png))), box["texture"]
    )
    assert done.bounds.height == pytest.approx(1.0)
    assert done.bounds.width == pytest.approx(0.6)
    assert not done.clipped


def test_a_texture_with_holes_keeps_its_colors_under_them() -> None:
    box = make_box()
    alpha = np.arange(64 * 64).reshape(64, 64).astype("u1")
    done = prepare.prepare_mesh(**box, alpha=alpha)
    assert done.clipped
    pixels = np.asarray(Image.open(io.BytesIO(done.texture_png)))
    np.testing.assert_array_equal(pixels, np.dstack([box["texture"], alpha]))
    with pytest.raises(Problem, match="fit together"):
        prepare.prepare_mesh(**box, alpha=alpha[:32])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda b: b["vertices"].__setitem__((0, 0), np.nan), "1 of its 8 vertices"),
        (lambda b: b["corner_uvs"].__setitem__((0, 0, 0), np.inf), "UVs"),
        (lambda b: b["faces"].__setitem__((0, 0), 8), "does not have"),
        (lambda b: b["faces"].__setitem__((0, 0), -1), "does not have"),
        (lambda b: b["faces"].__setitem__(slice(None), 2), "no face with an area"),
        (
            lambda b: b.update(faces=np.zeros((0, 3), "i4"), corner_uvs=np.zeros((0, 3, 2), "f4")),
            "empty",
        ),
        (lambda b: b.update(corner_uvs=b["corner_uvs"][:-1]), "fit together"),
        (lambda b: b.update(texture=b["texture"][..., 0]), "fit together"),
    ],
)
def test_a_damaged_mesh_never_reaches_blender(change, words: str) -> None:
    box = make_box()
    change(box)
    with pytest.raises(Problem, match=words):
        prepare.prepare_mesh(**box)


def test_faces_without_area_are_left_out() -> None:
    box = make_box()
    box["faces"][3] = (1, 1, 2)
    done = prepare.prepare_mesh(**box)
    assert len(done.faces) == len(done.corner_uvs) == 11


def test_a_face_that_is_there_twice_is_left_out_once() -> None:
    box = make_box()
    box["faces"][5] = box["faces"][2][[1, 2, 0]]
    box["faces"][9] = box["faces"][2][[2, 1, 0]]
    done = prepare.prepare_mesh(**box)
    kept = [i for i in range(12) if i not in (5, 9)]
    np.testing.assert_array_equal(done.faces, box["faces"][kept])
    np.testing.assert_array_equal(done.corner_uvs, box["corner_uvs"][kept])


def test_the_sheet_shows_the_reference_top_left() -> None:
    views = make_views(8, 16)["images"]
    sheet = prepare.prepare_sheet(views)
    pixels = sheet.pixels.view(np.uint8).reshape(sheet.size, sheet.size, 4)[::-1]
    assert tuple(pixels[0, 0]) == (*views[-1, 0, 0], 255)  # the last view
    assert tuple(pixels[0, -1]) == (*views[1, 0, 0], 255)  # a quarter turn on


# -- placement ---------------------------------------------------------------------------------


def test_the_base_stands_on_the_origin_at_the_height_asked_for() -> None:
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (100, 3)) * [1, 0.4, 0.2] + [3, 2, 1]
    fitted = placement.fit_to_height(placement.bounds_of(points), 1.8).apply(points)
    low, high = fitted.min(axis=0), fitted.max(axis=0)
    assert low[2] == pytest.approx(0, abs=1e-5)
    assert high[2] == pytest.approx(1.8, rel=1e-5)
    np.testing.assert_allclose((low + high)[:2], 0, atol=1e-4)
    with pytest.raises(ValueError, match="height"):
        placement.fit_to_height(placement.bounds_of(points), math.nan)


def test_a_flat_thing_does_not_explode() -> None:
    points = np.array([[-0.5, -0.5, 0], [0.5, 0.5, 0.0]])
    fit = placement.fit_to_height(placement.bounds_of(points), 1.0)
    assert fit.scale == pytest.approx(50.0)


def test_stray_and_faint_gaussians_do_not_stretch_the_box() -> None:
    rng = np.random.default_rng(1)
    means = rng.uniform(-0.5, 0.5, (2000, 3)).astype("f4")
    opacities = np.full(2000, 0.9, "f4")
    means[:5] = 40.0
    means[5:200] *= 10
    opacities[5:200] = 0.05
    bounds = placement.bounds_of_gaussians(means, opacities)
    assert bounds.height == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(
    ("normal", "degrees"),
    [
        ((0, -1, 0), 0),
        ((1, 0, 0), 90),
        ((0, 1, 0), 180),
        ((-1, 0, 0), -90),
        ((0, 0, 1), 0),
        ((0.1, 0, 1), 0),
        ((0, 0, 0), 0),
    ],
)
def test_a_result_faces_where_its_picture_faces(normal, degrees: float) -> None:
    yaw = placement.yaw_of_plane(normal)
    assert math.degrees(yaw) % 360 == pytest.approx(degrees % 360)
    if math.hypot(*normal[:2]) > 0.5:  # turning -Y by the yaw gives the normal
        assert (math.sin(yaw), -math.cos(yaw)) == pytest.approx(normal[:2], abs=1e-6)


@given(st.lists(st.floats(0.01, 50), min_size=1, max_size=12), st.floats(0, 3))
def test_a_row_has_its_gaps(widths: list[float], gap: float) -> None:
    xs = placement.row_positions(widths, gap)
    assert xs[0] == 0
    for i in range(1, len(xs)):
        free = (xs[i] - widths[i] / 2) - (xs[i - 1] + widths[i - 1] / 2)
        assert free == pytest.approx(gap, abs=1e-6)


@given(
    st.lists(st.tuples(st.floats(0.01, 50), st.floats(0.01, 50)), min_size=1, max_size=12),
    st.floats(0, 3),
)
def test_a_grid_keeps_objects_apart_and_fills_its_rows(sizes, gap: float) -> None:
    spots = placement.grid_positions(sizes, gap)
    assert spots[0] == (0, 0)
    for i, ((x, y), (w, d)) in enumerate(zip(spots, sizes, strict=True)):
        for (u, v), (a, b) in zip(spots[:i], sizes[:i], strict=True):
            apart = max(abs(x - u) - (w + a) / 2, abs(y - v) - (d + b) / 2)
            assert apart >= gap - 1e-6
    rows = [len(list(row)) for _, row in itertools.groupby(spots, key=lambda spot: spot[1])]
    assert set(rows[:-1]) <= {rows[0]} and rows[-1] <= rows[0]
    assert (rows[0] - 1) ** 2 < len(sizes) <= rows[0] ** 2
    assert [y for _, y in spots] == sorted((y for _, y in spots), reverse=True)


# -- layout ------------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_both_layouts_carry_the_same_facts(degree: int) -> None:
    g = make_sphere(12)
    k = (degree + 1) ** 2
    g["sh"] = np.random.default_rng(0).normal(size=(12, k, 3)).astype("f4")
    done = prepare.prepare_gaussians(**g)
    fit = placement.Fit((0.1, 0.2, -0.4), 2.5)
    points = {a.name: a for a in layout.points_layout(done, fit)}
    splats = {a.name: a for a in layout.splat_layout(done, fit)}
    assert set(splats) == {
        "position",
        "scale",
        "rotation",
        "radiance:base",
        *(f"radiance:sh_{i}" for i in range(k - 1)),
    }
    assert (splats["radiance:base"].data_type, splats["radiance:base"].key) == ("FLOAT4", "vector")
    np.testing.assert_array_equal(splats["radiance:base"].values[:, :3], points["sh_0"].values)
    np.testing.assert_array_equal(splats["radiance:base"].values[:, 3], points["opacity"].values)
    for i in range(k - 1):
        np.testing.assert_array_equal(
            splats[f"radiance:sh_{i}"].values, points[f"sh_{i + 1}"].values
        )
    for name in ("position", "scale", "rotation"):
        np.testing.assert_array_equal(points[name].values, splats[name].values)
    np.testing.assert_allclose(points["scale"].values, done.scales * 2.5, rtol=1e-6)
    np.testing.assert_allclose(
        points["position"].values, (done.means - np.float32([0.1, 0.2, -0.4])) * 2.5, atol=1e-6
    )
    for attribute in (*points.values(), *splats.values()):
        assert attribute.values.flags.c_contiguous and attribute.values.dtype == np.float32

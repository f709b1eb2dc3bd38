# SPDX-License-Identifier: Apache-2.0
"""Vary props: stretch, recolor, paint and join them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from gsv3d.lab.datasets.light import decode_srgb
from gsv3d.lab.rasterizing.props import Prop


def stretch(prop: Prop, factors: np.ndarray) -> Prop:
    """Scale a prop along the axes, and its normals by the inverse factors."""
    factors = np.asarray(factors, dtype=np.float32)
    normals = prop.corner_normals / factors
    normals = normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    return replace(prop, vertices=prop.vertices * factors, corner_normals=normals)


def turn(prop: Prop, yaw_deg: float) -> Prop:
    """Rotate a prop about +Z."""
    c, s = np.cos(np.deg2rad(yaw_deg)), np.sin(np.deg2rad(yaw_deg))
    rotation = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]], dtype=np.float32)
    return replace(
        prop, vertices=prop.vertices @ rotation, corner_normals=prop.corner_normals @ rotation
    )


def unit(prop: Prop) -> Prop:
    """Center a prop and scale it to a largest extent of 1."""
    low, high = prop.vertices.min(axis=0), prop.vertices.max(axis=0)
    extent = max(float((high - low).max()), 1e-12)
    return replace(prop, vertices=((prop.vertices - (low + high) / 2) / extent).astype(np.float32))


def join(first: Prop, second: Prop) -> Prop:
    """Join two props to one."""
    shifted = np.where(
        second.texture_index >= 0, second.texture_index + len(first.textures), second.texture_index
    )
    pairs = {
        name: np.concatenate([getattr(first, name), getattr(second, name)])
        for name in ("vertices", "corner_normals", "corner_uvs", "corner_colors")
    }
    return Prop(
        faces=np.concatenate([first.faces, second.faces + len(first.vertices)]).astype(np.int32),
        texture_index=np.concatenate([first.texture_index, shifted.astype(np.int32)]),
        textures=first.textures + second.textures,
        plain=first.plain and second.plain,
        **pairs,
    )


def put_together(first: Prop, second: Prop, rng: np.random.Generator) -> Prop:
    """Put a smaller copy of the second prop on top of or beside the first."""
    first, second = unit(first), turn(unit(second), float(rng.uniform(0, 360)))
    second = replace(second, vertices=second.vertices * np.float32(rng.uniform(0.35, 0.8)))
    (low_a, high_a), (low_b, high_b) = (
        (p.vertices.min(axis=0), p.vertices.max(axis=0)) for p in (first, second)
    )
    shift = -(low_b + high_b) / 2
    if rng.random() < 0.5:
        shift[2] = high_a[2] - low_b[2] - 0.02
        shift[:2] += rng.uniform(-0.2, 0.2, 2) * (high_a - low_a)[:2]
    else:
        axis, side = int(rng.integers(2)), float(rng.choice([-1.0, 1.0]))
        reach = (high_a - low_a)[axis] / 2 + (high_b - low_b)[axis] / 2
        shift[axis] += side * reach * rng.uniform(0.7, 1.05)
        shift[2] = low_a[2] - low_b[2]
    moved = replace(second, vertices=(second.vertices + shift).astype(np.float32))
    return join(first, moved)


def draw_color(rng: np.random.Generator) -> np.ndarray:
    """Draw a (3,) linear color; saturation and value as ``plan_orbit`` draws them."""
    import colorsys

    srgb = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.0, 0.85), rng.uniform(0.25, 0.9))
    return decode_srgb(np.array(srgb)).astype(np.float32)


def paint(prop: Prop, rng: np.random.Generator, palette: int) -> Prop:
    """Replace the prop's colors: each connected part gets one of a random palette."""
    count = len(prop.vertices)
    # Join vertices that coincide: files split them at seams.
    span = max(float(np.ptp(prop.vertices, axis=0).max()), 1e-12)
    _, merged = np.unique(np.round(prop.vertices / span, 5), axis=0, return_inverse=True)
    a, b, c = merged.reshape(-1)[prop.faces].T
    rows, columns = np.concatenate([a, b]), np.concatenate([b, c])
    graph = sparse.coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(count, count))
    part = connected_components(graph, directed=False)[1][a]
    colors = np.stack([draw_color(rng) for _ in range(palette)])
    chosen = rng.integers(palette, size=part.max() + 1)[part]
    return replace(
        prop,
        corner_colors=np.repeat(colors[chosen][:, None], 3, axis=1),
        texture_index=np.full(len(prop.faces), -1, dtype=np.int32),
        plain=False,
    )


def recolor(prop: Prop, rng: np.random.Generator) -> Prop:
    """Exchange and weight the color channels, the same in textures and colors."""
    order, gain = rng.permutation(3), np.exp(0.2 * rng.standard_normal(3))
    colors = np.clip(prop.corner_colors[..., order] * gain, 0, 1).astype(np.float32)
    textures = tuple(np.ascontiguousarray(t[..., order]) for t in prop.textures)
    return replace(prop, corner_colors=colors, textures=textures)


def vary(prop: Prop, other: Prop | None, rng: np.random.Generator) -> Prop:
    """Vary a prop at random: it may be joined with another, stretched, recolored or painted.

    Args:
        prop: the prop to vary.
        other: a prop that it may be joined with, or None.
        rng: random generator.
    """
    if prop.plain and rng.random() < 0.7:
        prop = paint(prop, rng, int(rng.integers(1, 4)))
    elif rng.random() < 0.5:
        prop = recolor(prop, rng)
    if other is not None:
        prop = put_together(prop, other, rng)
    factors = np.exp(np.clip(0.2 * rng.standard_normal(3), -0.4, 0.4))
    return turn(
        stretch(turn(prop, float(rng.choice([0, 45]))), factors), float(rng.uniform(0, 360))
    )

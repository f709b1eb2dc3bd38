# SPDX-License-Identifier: Apache-2.0
"""A surface within a face budget, still closed."""

from __future__ import annotations

from collections.abc import Callable

import fast_simplification
import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from gsv3d.errors import GSV3DError
from gsv3d.meshing.decimate import decimate
from gsv3d.meshing.mesh import signed_volumes
from gsv3d.meshing.settings import MeshSettings
from gsv3d.meshing.surface import drop_unused, keep_parts, label_parts

AGGRESSIONS = (5, 7, 9)
"""Aggressiveness, tried in turn: a higher one is rougher and more likely to reach the budget."""


def count_bad_edges(faces: np.ndarray) -> int:
    """Count the edges that do not join exactly two faces running in opposite directions."""
    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    there, there_counts = _count_rows(directed)
    back, back_counts = _count_rows(directed[:, ::-1])
    if len(there) == len(back) and np.array_equal(there, back):
        return int(((there_counts != 1) | (back_counts != 1)).sum())
    both = np.intersect1d(there, back)
    lonely = len(np.setdiff1d(there, both)) + len(np.setdiff1d(back, both))
    return int((there_counts != 1).sum() + (back_counts != 1).sum() + lonely)


def simplify(
    vertices: np.ndarray,
    faces: np.ndarray,
    budget: int,
    faces_per_part: int = MeshSettings.faces_per_part,
) -> tuple[np.ndarray, np.ndarray]:
    """Decimate by quadric error (Garland and Heckbert 1997) to at most ``budget`` faces.

    The topology is kept if the budget allows. If not, the surface is decimated further regardless:
    thin parts may fold onto themselves, folds without volume are taken out, and sheets that touch
    are separated.

    Args:
        vertices: (V, 3) in the world.
        faces: (F, 3) outward, closed.
        budget: most faces of the result, at least 4.
        faces_per_part: at most one part is kept for each so many faces of the budget.

    Raises:
        ValueError: the budget is below 4.
        GSV3DError: nothing is left of the surface within the budget.
    """
    if budget < 4:
        raise ValueError(f"budget must be at least 4 faces, not {budget}.")
    most = max(1, budget // faces_per_part)
    vertices, faces = keep_parts(vertices, faces, share=0.0, most=most)
    if len(faces) <= budget:
        return vertices, faces
    small = separate_edges(*decimate(vertices, faces, budget))
    if len(small[1]) <= budget:
        return small
    for aggression in AGGRESSIONS:
        small = separate_edges(
            *_drop_folds(*_decimate_regardless(vertices, faces, budget, aggression))
        )
        if 4 <= len(small[1]) <= budget:
            return small
    raise GSV3DError(f"The surface could not be reduced to {budget} faces.", "Allow more faces.")


def _decimate_regardless(
    vertices: np.ndarray, faces: np.ndarray, target: int, aggression: int
) -> tuple[np.ndarray, np.ndarray]:
    points = np.ascontiguousarray(vertices, dtype=np.float64)
    triangles = np.ascontiguousarray(faces, dtype=np.int32)
    for _ in range(4):  # the library may stop short of the target: go on from there
        points, triangles = fast_simplification.simplify(
            points, triangles, target_count=target, agg=aggression
        )
        if len(triangles) <= target:
            break
    return np.asarray(points, dtype=np.float64), np.asarray(triangles, dtype=np.int64)


def _drop_folds(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drop faces that have no area or come twice, pairs of opposite faces, and crumbs."""
    if len(faces) == 0:
        return vertices, faces
    distinct = (
        (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    )
    faces = faces[distinct]
    # Opposite faces over the same three vertices are a fold without volume: they go in pairs.
    _, triple = np.unique(np.sort(faces, axis=1), axis=0, return_inverse=True)
    triple = triple.ravel()
    cycle = np.take_along_axis(faces, (faces.argmin(axis=1)[:, None] + [0, 1, 2]) % 3, axis=1)
    turn = np.where(cycle[:, 1] < cycle[:, 2], 1, -1)
    surplus = np.bincount(triple, turn).astype(np.int64)
    order = np.lexsort((-turn * np.sign(surplus[triple]), triple))
    rank = np.empty(len(faces), dtype=np.int64)
    rank[order] = np.arange(len(faces)) - np.searchsorted(triple[order], triple[order])
    faces = faces[rank < np.abs(surplus)[triple]]
    if len(faces) == 0:
        return vertices, faces
    parts = label_parts(faces, len(vertices))
    faces = faces[np.bincount(parts)[parts] >= 4]
    if len(faces) == 0:
        return vertices, faces
    vertices, faces = drop_unused(vertices, faces)
    if signed_volumes(vertices, faces).sum() < 0:
        faces = faces[:, ::-1].copy()
    return vertices, faces


def separate_edges(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Part sheets of a closed surface that touch in an edge or a vertex.

    Each fan of faces around a vertex gets a vertex of its own, at the same place. At an edge of
    four faces the two that bound the same gap stay together or, where that parts nothing, the two
    that bound the same piece of solid.

    Args:
        vertices: (V, 3).
        faces: (F, 3) outward.
    """
    for nearest in (max, min) * 3:  # what is parted at one edge may meet again at another
        edges = _HalfEdges(faces, len(vertices))
        pairs = [edges.pairs]
        for around in edges.crowded:
            pairs.append(_pair_by_angle(vertices, faces, around, nearest))
        one, other = np.concatenate(pairs).T
        following = np.arange(3 * len(faces)).reshape(-1, 3)[:, [1, 2, 0]].ravel()
        links = (np.concatenate([one, following[one]]), np.concatenate([following[other], other]))
        graph = sparse.coo_matrix((np.ones(2 * len(one), np.int8), links), (faces.size, faces.size))
        count, labels = connected_components(graph, directed=False)
        kept = np.empty(count, dtype=np.int64)
        kept[labels] = faces.ravel()
        vertices, faces = vertices[kept], labels.reshape(-1, 3).astype(np.int64)
        if not edges.crowded:
            break
    return vertices, faces


class _HalfEdges:
    """The half-edges of faces, numbered as their corners: where each starts.

    Attributes:
        pairs: (P, 2) those of the edges that join two faces running in opposite directions.
        crowded: the half-edges of every edge that more than two faces share.
    """

    def __init__(self, faces: np.ndarray, vertex_count: int) -> None:
        start, end = faces.ravel(), faces[:, [1, 2, 0]].ravel()
        codes = np.minimum(start, end) * vertex_count + np.maximum(start, end)
        order = np.argsort(codes, kind="stable")
        _, first, counts = np.unique(codes[order], return_index=True, return_counts=True)
        double = first[counts == 2]
        pairs = np.stack([order[double], order[double + 1]], axis=1)
        self.pairs = pairs[start[pairs[:, 0]] == end[pairs[:, 1]]]
        many = np.flatnonzero(counts > 2)
        self.crowded = [order[i : i + n] for i, n in zip(first[many], counts[many], strict=True)]


def _pair_by_angle(
    vertices: np.ndarray, faces: np.ndarray, around: np.ndarray, nearest: Callable[..., int]
) -> np.ndarray:
    """Pair forward and backward half-edges of one edge by the angle of their faces; return (P, 2).

    ``nearest`` is ``min`` for the angle through the solid, ``max`` for the one through the gap.
    """
    start, end, tip = (faces[around // 3, (around + i) % 3] for i in range(3))
    low, high = min(start[0], end[0]), max(start[0], end[0])
    axis = vertices[high] - vertices[low]
    right = np.cross(axis, np.eye(3)[np.abs(axis).argmin()])
    up = np.cross(axis, right) / max(np.linalg.norm(axis), 1e-12)
    angle = np.arctan2(
        (vertices[tip] - vertices[low]) @ up, (vertices[tip] - vertices[low]) @ right
    )
    back = list(np.flatnonzero(start == high))
    pairs = []
    # A forward face's normal points to larger angles: its solid lies at smaller ones.
    for face in np.flatnonzero(start == low)[: len(back)]:
        chosen = nearest(back, key=lambda b, f=face: (angle[f] - angle[b]) % (2 * np.pi))
        back.remove(chosen)
        pairs.append((around[face], around[chosen]))
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _count_rows(edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    codes = edges[:, 0].astype(np.int64) * (int(edges.max(initial=0)) + 1) + edges[:, 1]
    values, counts = np.unique(codes, return_counts=True)
    return values, counts

# SPDX-License-Identifier: Apache-2.0
"""A surface within a face budget, still closed."""

from __future__ import annotations

import fast_simplification
import numpy as np
import trimesh

from gsv3d.errors import GSV3DError
from gsv3d.meshing.mesh import face_crosses, signed_volumes
from gsv3d.meshing.surface import compact, face_parts, keep_parts

FACES_PER_PART = 24
"""With fewer faces than this a part is hardly a shape: then rather fewer parts."""


def bad_edges(faces: np.ndarray) -> int:
    """Number of edges that don't join exactly two faces running in opposite directions."""
    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    there, there_counts = _count_rows(directed)
    back, back_counts = _count_rows(directed[:, ::-1])
    if len(there) == len(back) and np.array_equal(there, back):
        return int(((there_counts != 1) | (back_counts != 1)).sum())
    both = np.intersect1d(there, back)
    lonely = len(np.setdiff1d(there, both)) + len(np.setdiff1d(back, both))
    return int((there_counts != 1).sum() + (back_counts != 1).sum() + lonely)


def simplify(vertices: np.ndarray, faces: np.ndarray, budget: int) -> tuple[np.ndarray, np.ndarray]:
    """Decimates by quadric error (Garland and Heckbert 1997) to at most ``budget`` faces.

    Decimation can fold a thin part onto itself; a result with broken edges is tried again with a
    slower, more careful schedule or a little lower target, and the best one is taken.

    Args:
        vertices: (V, 3) in the world.
        faces: (F, 3) outward, closed.
        budget: most faces of the result, at least 4.

    Raises:
        ValueError: the budget is below 4.
        GSV3DError: nothing is left of the surface within the budget.
    """
    if budget < 4:
        raise ValueError(f"budget must be at least 4 faces, not {budget}.")
    vertices, faces = keep_parts(vertices, faces, most=max(1, budget // FACES_PER_PART))
    if len(faces) <= budget:
        return vertices, faces
    best: tuple[int, np.ndarray, np.ndarray] | None = None
    for share, aggression in ((1.0, 7), (1.0, 4), (0.97, 7), (0.97, 3), (0.93, 5), (0.85, 7)):
        target = max(4, int(budget * share))
        tried = _decimate(vertices, faces, target, aggression)
        tried = _clean(*tried)
        if len(tried[1]) > budget or len(tried[1]) < 4:
            continue
        broken = bad_edges(tried[1])
        if best is None or broken < best[0]:
            best = (broken, *tried)
        if broken == 0:
            break
    if best is None:
        raise GSV3DError(
            f"The surface could not be reduced to {budget} faces.",
            "Allow more faces.",
        )
    broken, vertices, faces = best
    if broken:
        vertices, faces = _repair(vertices, faces, budget)
    return vertices, faces


def _decimate(
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


def _clean(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Without faces that have no area or come twice, pairs of opposite faces, and crumbs."""
    if len(faces) == 0:
        return vertices, faces
    distinct = (
        (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    )
    faces = faces[distinct]
    # Two faces over the same three vertices are a fold without volume, or one face twice.
    _, inverse, counts = np.unique(
        np.sort(faces, axis=1), axis=0, return_inverse=True, return_counts=True
    )
    faces = faces[counts[inverse.ravel()] == 1]
    if len(faces) == 0:
        return vertices, faces
    parts = face_parts(faces, len(vertices))
    faces = faces[np.bincount(parts)[parts] >= 4]
    if len(faces) == 0:
        return vertices, faces
    vertices, faces = compact(vertices, faces)
    if signed_volumes(vertices, faces).sum() < 0:
        faces = faces[:, ::-1].copy()
    return vertices, faces


def _repair(vertices: np.ndarray, faces: np.ndarray, budget: int) -> tuple[np.ndarray, np.ndarray]:
    """Fills what holes can be filled; keeps the input where that would break the budget."""
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    mesh.fill_holes()
    filled = np.asarray(mesh.faces, dtype=np.int64)
    areas = np.linalg.norm(face_crosses(np.asarray(mesh.vertices), filled), axis=1)
    filled = filled[areas > 0]
    if len(filled) <= budget and bad_edges(filled) < bad_edges(faces):
        return compact(np.asarray(mesh.vertices), filled)
    return vertices, faces


def _count_rows(edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    codes = edges[:, 0].astype(np.int64) * (int(edges.max(initial=0)) + 1) + edges[:, 1]
    values, counts = np.unique(codes, return_counts=True)
    return values, counts

# SPDX-License-Identifier: Apache-2.0
"""The textured triangle mesh that meshing ends with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ALPHA_CUTOFF = 0.5
"""Alpha in 0..1 from which on a surface with an alpha channel is there."""


@dataclass(frozen=True)
class TexturedMesh:
    """A triangle mesh with one texture.

    Attributes:
        vertices: (V, 3) float32, in the world (+Z up, input view on the -Y side).
        faces: (F, 3) int32, counter-clockwise seen from outside.
        corner_uvs: (F, 3, 2) float32 in 0..1, origin at the bottom left of the texture.
        texture: (T, T, 3) uint8 sRGB, row 0 at the top; or (T, T, 4): the surface is there where
            the alpha is at least ``ALPHA_CUTOFF``, and both its sides show.

    Raises:
        ValueError: a field has another shape, an index is out of range or a number is not finite.
    """

    vertices: np.ndarray
    faces: np.ndarray
    corner_uvs: np.ndarray
    texture: np.ndarray

    def __post_init__(self) -> None:
        convert = {
            "vertices": np.float32,
            "faces": np.int32,
            "corner_uvs": np.float32,
            "texture": np.uint8,
        }
        for name, dtype in convert.items():
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype=dtype))
        if self.vertices.ndim != 2 or self.vertices.shape[1] != 3:
            raise ValueError(f"vertices must be (V, 3), not {self.vertices.shape}.")
        if self.faces.ndim != 2 or self.faces.shape[1] != 3:
            raise ValueError(f"faces must be (F, 3), not {self.faces.shape}.")
        if self.corner_uvs.shape != (len(self.faces), 3, 2):
            raise ValueError(
                f"corner_uvs must be ({len(self.faces)}, 3, 2), not {self.corner_uvs.shape}."
            )
        shape = self.texture.shape
        if len(shape) != 3 or shape[0] != shape[1] or shape[2] not in (3, 4) or shape[0] < 1:
            raise ValueError(f"texture must be (T, T, 3 or 4), not {shape}.")
        if len(self.faces) and (
            int(self.faces.min()) < 0 or int(self.faces.max()) >= len(self.vertices)
        ):
            raise ValueError(f"faces name vertices outside 0..{len(self.vertices) - 1}.")
        if not (np.isfinite(self.vertices).all() and np.isfinite(self.corner_uvs).all()):
            raise ValueError("vertices and corner_uvs must be finite.")

    @property
    def clipped(self) -> bool:
        """Return whether the texture has holes, that is, an alpha channel."""
        return self.texture.shape[2] == 4

    def face_normals(self) -> np.ndarray:
        """Return (F, 3) float32 unit normals; zero for a face without area."""
        return face_normals(self.vertices, self.faces)

    def vertex_normals(self) -> np.ndarray:
        """Return (V, 3) float32 unit normals, the faces weighted by area."""
        return vertex_normals(self.vertices, self.faces)


def face_crosses(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return (F, 3) float64 cross products of two edges: normals of twice the area's length."""
    a, b, c = (vertices[faces[:, i]].astype(np.float64) for i in range(3))
    return np.cross(b - a, c - a)


def face_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return (F, 3) float32 unit normals; zero for a face without area."""
    return _normalize(face_crosses(vertices, faces))


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return (V, 3) float32 unit normals, the faces weighted by area."""
    crosses = face_crosses(vertices, faces)
    total = np.zeros((len(vertices), 3))
    for corner in range(3):
        for axis in range(3):
            total[:, axis] += np.bincount(
                faces[:, corner], weights=crosses[:, axis], minlength=len(vertices)
            )
    return _normalize(total)


def smooth_normals(normals: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return (V, 3) float32 unit normals, each averaged 12 times with its neighbors'."""
    result = normals.astype(np.float64)
    for _ in range(12):
        around = result[faces].sum(axis=1)
        total = np.empty_like(result)
        for axis in range(3):
            total[:, axis] = np.bincount(
                faces.reshape(-1), np.repeat(around[:, axis], 3), minlength=len(normals)
            )
        result = _normalize(total).astype(np.float64)
    return result.astype(np.float32)


def signed_volumes(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return (F,) float64 volumes of the tetrahedra (origin, a, b, c): a closed mesh's in all."""
    a, b, c = (vertices[faces[:, i]].astype(np.float64) for i in range(3))
    return np.einsum("fi,fi->f", a, np.cross(b, c)) / 6.0


def _normalize(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)

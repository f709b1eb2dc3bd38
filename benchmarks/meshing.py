# SPDX-License-Identifier: Apache-2.0
"""How near ``gsv3d.meshing`` comes to the true objects, apart from the model before it.

Run: ``python benchmarks/meshing.py INDEX ORBITS --cache DIR [--source model|truth] ...`` with a
folder of GLBs and their ``index.json``, and orbits of the same objects that ``gsv3d render`` made.

- model: Gaussians as a model makes them of the orbit's view at azimuth 0.
- truth: Gaussians on the true surface (points drawn from it, its normals and colors, flat and
  opaque). What is lost then is lost by meshing: an upper bound for any model.

Each mesh is centered, scaled to extent 1 and compared with the object: mask IoU and PSNR at the
orbit's views at least 30 degrees from the reference, F-scores, Chamfer and volume IoU as
``gsv3d.lab.evaluation`` measures them. Volume IoU is also shown for closed objects alone: what has
no inside has no volume. Gaussians and truths are kept in the cache folder.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import trimesh
from PIL import Image, ImageDraw

from gsv3d.cameras import Cameras, orbit
from gsv3d.errors import GSV3DError
from gsv3d.gaussians import Gaussians
from gsv3d.lab.datasets.plans import object_rng
from gsv3d.lab.datasets.records import OrbitRecord
from gsv3d.lab.datasets.shards import index_shards
from gsv3d.lab.evaluation import image_metrics, shape_metrics
from gsv3d.lab.evaluation.protocol import UNSEEN_DEG, find_direction
from gsv3d.meshing import Reference, TexturedMesh, extract_mesh
from gsv3d.meshing.preview import render_mesh
from gsv3d.meshing.simplify import bad_edges
from gsv3d.preprocessing import prepare

COLUMNS = ("mask", "psnr", "f02", "f05", "cd", "viou", "viou_closed", "open", "s")
SURFELS = 24_000
TILE = 128


@dataclass(frozen=True)
class Truth:
    """One object in the orbit's world: its triangles, their colors, whether it is closed."""

    vertices: np.ndarray
    faces: np.ndarray
    closed: bool
    colors: np.ndarray
    orbit: OrbitRecord

    @property
    def scale(self) -> float:
        """Its largest extent."""
        return float(np.ptp(self.vertices, axis=0).max())


def load_truth(objects: Path, seen: OrbitRecord, record: dict) -> Truth:
    scene = trimesh.load(objects / "glb" / record["file"], process=False)
    parts = scene.dump() if isinstance(scene, trimesh.Scene) else [scene]
    vertices, faces, colors, count = [], [], [], 0
    for part in parts:
        rgba = np.asarray(part.visual.to_color().vertex_colors)
        rgba = np.broadcast_to(rgba, (len(part.vertices), 4))
        colors.append(rgba[:, :3][part.faces].mean(axis=1) / 255.0)
        vertices.append(part.vertices)
        faces.append(part.faces + count)
        count += len(part.vertices)
    y_up = np.concatenate(vertices)
    own = np.stack([y_up[:, 0], -y_up[:, 2], y_up[:, 1]], axis=1)
    world = own @ seen.transform[:3, :3].T + seen.transform[:3, 3]
    return Truth(
        world, np.concatenate(faces), bool(record["watertight"]), np.concatenate(colors), seen
    )


def surfels(truth: Truth, name: str) -> Gaussians:
    """Flat Gaussians on the true surface."""
    rng = object_rng(0, f"meshing/{name}")
    a, b, c = (truth.vertices[truth.faces[:, i]] for i in range(3))
    crosses = np.cross(b - a, c - a)
    areas = np.linalg.norm(crosses, axis=1)
    chosen = rng.choice(len(areas), SURFELS, p=areas / areas.sum())
    root, v = np.sqrt(rng.random(SURFELS))[:, None], rng.random(SURFELS)[:, None]
    points = (1 - root) * a[chosen] + root * (1 - v) * b[chosen] + root * v * c[chosen]
    normals = crosses[chosen] / areas[chosen, None]
    spread = float(np.clip(np.sqrt(areas.sum() / 2 / SURFELS), 0.0015, 0.008))
    # The rotation that takes +z to the normal: halfway between the two.
    half = normals + [0, 0, 1.0]
    flipped = np.linalg.norm(half, axis=1) < 1e-6
    half[flipped] = [1.0, 0, 0]
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    quats = np.stack([half[:, 2], -half[:, 1], half[:, 0], np.zeros(SURFELS)], axis=1)
    quats[flipped] = [0.0, 1.0, 0, 0]
    return Gaussians.from_rgb(
        means=torch.from_numpy(points).float(),
        quats=torch.from_numpy(quats).float(),
        scales=torch.tensor([spread, spread, spread / 5]).expand(SURFELS, 3).contiguous(),
        opacities=torch.full((SURFELS,), 0.95),
        rgb=torch.from_numpy(truth.colors[chosen]).float(),
    )


class Model:
    """Gaussians of a model, made once an object."""

    def __init__(self, name: str, cache: Path) -> None:
        self._name, self._cache, self._pipeline = name, cache, None

    def __call__(self, truth: Truth, name: str) -> Gaussians:
        path = self._cache / f"{name}.ply"
        if not path.exists():
            if self._pipeline is None:
                from gsv3d.models import load_pipeline

                self._pipeline = load_pipeline(self._name)
                self._pipeline.set_progress_bar_config(disable=True)
            picture = reference(truth, self._pipeline.image_size)
            out = self._pipeline(
                picture,
                elevation=float(truth.orbit.elevations_deg[0]),
                generator=torch.Generator().manual_seed(0),
                output_type="latent",
            )
            self._cache.mkdir(parents=True, exist_ok=True)
            out.gaussians.save_ply(path)
        return Gaussians.load_ply(path)


def reference(truth: Truth, size: int) -> np.ndarray:
    return prepare(Image.fromarray(truth.orbit.rgba[0]), size).rgba


def as_reference(truth: Truth) -> Reference:
    rgba = reference(truth, truth.orbit.rgba.shape[1])
    return Reference(rgba, orbit([0.0], [float(truth.orbit.elevations_deg[0])], size=len(rgba)))


def normalized(mesh: TexturedMesh) -> TexturedMesh:
    return TexturedMesh(
        shape_metrics.normalized(mesh.vertices), mesh.faces, mesh.corner_uvs, mesh.texture
    )


def unseen(truth: Truth) -> tuple[Cameras, np.ndarray]:
    seen = truth.orbit
    first = find_direction(float(seen.azimuths_deg[0]), float(seen.elevations_deg[0]))
    pairs = zip(seen.azimuths_deg.tolist(), seen.elevations_deg.tolist(), strict=True)
    far = [
        i
        for i, p in enumerate(pairs)
        if find_direction(*p) @ first < np.cos(np.deg2rad(UNSEEN_DEG))
    ]
    cameras = orbit(
        seen.azimuths_deg[far].tolist(),
        seen.elevations_deg[far].tolist(),
        size=seen.rgba.shape[1],
        distance=float(seen.distance),
        fov_deg=float(seen.fov_deg),
    )
    return cameras, seen.rgba[far]


def measure(mesh: TexturedMesh | None, truth: Truth, name: str) -> dict[str, float]:
    cameras, pictures = unseen(truth)
    if mesh is None:
        drawn = np.zeros_like(pictures)
    else:
        mesh = normalized(mesh)
        scaled = TexturedMesh(
            mesh.vertices * truth.scale, mesh.faces, mesh.corner_uvs, mesh.texture
        )
        drawn = render_mesh(scaled, cameras)
    white = image_metrics.on_white
    pairs = list(zip(drawn, pictures, strict=True))
    row = {
        "mask": np.mean(
            [image_metrics.mask_iou(a[..., 3] > 127, b[..., 3] > 127) for a, b in pairs]
        ),
        "psnr": np.mean([image_metrics.psnr(white(a), white(b)) for a, b in pairs]),
        "f02": 0.0,
        "f05": 0.0,
        "cd": np.nan,
        "viou": 0.0,
        "open": np.nan,
    }
    if mesh is not None:
        rng = object_rng(0, f"measure/{name}")
        true_vertices = shape_metrics.normalized(truth.vertices)
        points = shape_metrics.sample_surface(
            true_vertices, truth.faces, shape_metrics.SURFACE_SAMPLES, rng
        )
        solid = shape_metrics.occupancy(true_vertices, truth.faces, rng)
        ours = shape_metrics.sample_surface(
            mesh.vertices, mesh.faces, shape_metrics.SURFACE_SAMPLES, rng
        )
        distance = shape_metrics.surface_distance(ours, points)
        inside = shape_metrics.occupancy(mesh.vertices, mesh.faces, rng)
        row |= {
            "f02": distance.f_score(0.02),
            "f05": distance.f_score(0.05),
            "cd": distance.chamfer,
            "viou": shape_metrics.volume_iou(inside, solid),
            "open": float(bad_edges(mesh.faces) > 0),
        }
    row["viou_closed"] = row["viou"] if truth.closed else np.nan
    return {key: float(value) for key, value in row.items()}


def sheet_row(mesh: TexturedMesh | None, truth: Truth, label: str) -> Image.Image:
    """Reference, three true views, three of the mesh, textured and as clay."""
    seen = truth.orbit
    picks = [2, 8, 13, 16]
    cameras = orbit(
        seen.azimuths_deg[picks].tolist(),
        seen.elevations_deg[picks].tolist(),
        size=TILE,
        distance=float(seen.distance),
        fov_deg=float(seen.fov_deg),
    )
    tiles = [seen.rgba[0], *seen.rgba[picks]]
    if mesh is not None:
        mesh = normalized(mesh)
        mesh = TexturedMesh(mesh.vertices * truth.scale, mesh.faces, mesh.corner_uvs, mesh.texture)
        tiles += [*render_mesh(mesh, cameras), *render_mesh(mesh, cameras, shading=1.0, clay=True)]
    row = Image.new("RGBA", (TILE * 13, TILE), (255, 255, 255, 255))
    for column, tile in enumerate(tiles):
        picture = Image.fromarray(tile).resize((TILE, TILE), Image.Resampling.BOX)
        row.alpha_composite(picture, (column * TILE, 0))
    ImageDraw.Draw(row).text((2, 2), label, fill=(60, 60, 60, 255))
    return row.convert("RGB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("index", type=Path, help="index.json beside the folder glb/")
    parser.add_argument("orbits", type=Path, help="what 'gsv3d render' made of the same objects")
    parser.add_argument("--cache", type=Path, required=True, help="for Gaussians")
    parser.add_argument("--source", choices=("model", "truth"), default="model")
    parser.add_argument("--model", default="blockout")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--skip", type=int, default=0, help="objects of the seeded draw to skip")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--faces", type=int, default=5000)
    parser.add_argument("--texture-size", type=int, default=512)
    parser.add_argument("--sheet", type=Path, help="write a contact sheet here")
    parser.add_argument("--rows", type=Path, help="write each object's numbers here (JSON)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    records = json.loads(arguments.index.read_text(encoding="utf-8"))["objects"]
    records = sorted((r for r in records if r["split"] == arguments.split), key=lambda r: r["file"])
    order = np.random.default_rng(0).permutation(len(records))
    chosen = [records[i] for i in order[arguments.skip : arguments.skip + arguments.count]]
    make = Model(arguments.model, arguments.cache) if arguments.source == "model" else surfels

    orbits = {entry.key: entry for entry in index_shards(arguments.orbits)}
    rows, pictures = {}, []
    for record in chosen:
        name = Path(record["file"]).stem
        truth = load_truth(arguments.index.parent, orbits[name].read(), record)
        gaussians = make(truth, name)
        picture = as_reference(truth) if arguments.source == "model" else None
        start = time.process_time()
        try:
            mesh = extract_mesh(
                gaussians,
                arguments.faces,
                arguments.texture_size,
                references=[picture] if picture else (),
            )
        except GSV3DError as error:
            print(f"{name}: {error}")
            mesh = None
        seconds = time.process_time() - start
        rows[name] = measure(mesh, truth, name) | {"s": seconds}
        print(f"{name:44}" + " ".join(f"{c} {rows[name][c]:.3f}" for c in COLUMNS), flush=True)
        if arguments.sheet:
            pictures.append(sheet_row(mesh, truth, name))
    means = {c: float(np.nanmean([row[c] for row in rows.values()])) for c in COLUMNS}
    print("mean".ljust(44) + " ".join(f"{c} {means[c]:.4f}" for c in COLUMNS))
    if arguments.rows:
        arguments.rows.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    if arguments.sheet:
        sheet = Image.new("RGB", (pictures[0].width, TILE * len(pictures)))
        for i, picture in enumerate(pictures):
            sheet.paste(picture, (0, i * TILE))
        sheet.save(arguments.sheet)


if __name__ == "__main__":
    main()

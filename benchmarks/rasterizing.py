# SPDX-License-Identifier: Apache-2.0
"""Compare times and pictures of the rasterizer and Blender for the same objects and light.

    python benchmarks/rasterizing.py OBJECTS… --count 12

OBJECTS are files, folders or an index.json, as for ``gsv3d render``; GLB alone is read here.
"""

from __future__ import annotations

import argparse
import io
import tarfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from gsv3d.cameras import orbit
from gsv3d.errors import GSV3DError
from gsv3d.lab.datasets.objects import find_objects
from gsv3d.lab.datasets.orbits import OrbitRecord, OrbitSettings, plan_orbit
from gsv3d.lab.datasets.rendering import ObjectRenderer, shuffle
from gsv3d.lab.processes import run_in_processes
from gsv3d.lab.rasterizing import load_prop
from gsv3d.lab.rasterizing.lighting import Lights, load_baked_environments, make_lights
from gsv3d.lab.rasterizing.orbits import Surface, draw


def read_record(tar_bytes: bytes) -> OrbitRecord:
    with tarfile.open(fileobj=io.BytesIO(tar_bytes)) as tar:
        members = {m.name.rsplit("/")[-1]: tar.extractfile(m).read() for m in tar.getmembers()}
    # Members are "<name>.<suffix>", and names may hold points; the JSON tells the name.
    stem = next(name for name in members if name.endswith(".json"))[: -len("json")]
    return OrbitRecord.from_members({name[len(stem) :]: data for name, data in members.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("objects", nargs="+")
    parser.add_argument("--split")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--samples", type=int, default=8, help="Cycles samples a pixel")
    parser.add_argument("--device", default="cpu", help="of the rasterizer")
    args = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(args.device)
    settings = OrbitSettings(size=args.size, novel_views=8, samples=args.samples)
    found = [o for o in find_objects(args.objects, args.split) if o.path.suffix == ".glb"]
    chosen = shuffle(found, 0)[: args.count]
    environments = {e.name: e for e in load_baked_environments()}

    factory = partial(ObjectRenderer, settings)
    list(run_in_processes(factory, chosen[:1], 1))  # Blender's start is not an object's time
    started = time.perf_counter()
    outcomes = list(run_in_processes(factory, chosen, 1))
    blender_seconds = time.perf_counter() - started
    ours_seconds, iou, color, depth = [], [], [], []
    for outcome in outcomes:
        item = chosen[outcome.index]
        if outcome.error is not None:
            print(f"left out: {outcome.error}")
            continue
        record = read_record(outcome.value.tar)
        plan = plan_orbit(settings, item.name)
        cameras = orbit(
            record.azimuths_deg.tolist(), record.elevations_deg.tolist(), size=args.size
        )
        started = time.perf_counter()
        try:
            prop = load_prop(Path(item.path))
        except GSV3DError as error:
            print(f"left out: {error}")
            continue
        with torch.inference_mode():
            lights = make_lights(environments[record.render["light"]], plan.light_yaw_deg)
            lights = Lights(lights.directions.to(device), lights.radiance.to(device))
            surface = Surface(prop, record.transform, device)
            views = draw(surface, cameras.to(device), lights)
        ours, zs = views.rgba.cpu().numpy().astype(float), views.depth.cpu().numpy()
        ours_seconds.append(time.perf_counter() - started)
        theirs = record.rgba.astype(float)
        a, b = ours[..., 3] > 127, theirs[..., 3] > 127
        iou.append((a & b).sum() / (a | b).sum())
        solid = (ours[..., 3] > 250) & (theirs[..., 3] > 250)
        color.append(np.abs(ours - theirs)[solid][:, :3].mean())
        both = solid & (zs > 0) & (record.depth > 0)
        depth.append(np.median(np.abs(zs - record.depth)[both]))
    print(f"{len(ours_seconds)} objects, {settings.orbit_views + 8} views of {args.size} px each")
    print(f"Blender (Cycles, {args.samples} samples, one process): "
          f"{blender_seconds / len(outcomes):.2f} s an object, its start included")  # fmt: skip
    print(f"rasterizer ({args.device}): {np.mean(ours_seconds):.2f} s an object")
    print(f"mask IoU {np.mean(iou):.3f} (least {np.min(iou):.3f}), color off by "
          f"{np.mean(color):.1f} of 255, depth by {np.median(depth):.4f} extents")  # fmt: skip


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Measure how well objects of known alpha are cut out of photographs and plain backgrounds.

    python benchmarks/cutout.py OBJECTS… --split dev
    python benchmarks/cutout.py --stamps /usr/share/tuxpaint/stamps

OBJECTS are files, folders or an index.json, as for ``gsv3d render``; GLB alone is read here. They
are rendered over scikit-image's photographs of ground and sky. Stamps are PNG files with alpha:
those that look like photographs are put on white, gray and black. Prints, by background, the mean
intersection over union with the true mask, the mean absolute error of alpha over the whole picture,
how many have an intersection over union below 0.9, how many of those the program calls unsure, how
many it calls unsure in all, and the median seconds of CPU time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage import data

from gsv3d.cameras import FOV_DEG, orbit
from gsv3d.errors import GSV3DError
from gsv3d.lab.datasets.objects import find_objects
from gsv3d.lab.datasets.orbits import normalizing_transform
from gsv3d.lab.datasets.rendering import shuffle
from gsv3d.lab.rasterizing import load_prop
from gsv3d.lab.rasterizing.lighting import Environment, load_baked_environments, make_lights
from gsv3d.lab.rasterizing.orbits import Surface, draw
from gsv3d.preprocessing import cut_out, is_unsure

PHOTOGRAPHS = ("brick", "grass", "gravel", "moon", "hubble_deep_field")
PLAIN = {"white": 255, "gray": 128, "black": 0}


def render(
    path: Path, size: int, rng: np.random.Generator, lights: list[Environment]
) -> np.ndarray:
    """Return (size, size, 4) uint8 of an object, seen from slightly above."""
    prop = load_prop(path)
    camera = orbit([0.0], [float(rng.uniform(5, 25))], size=size)
    turn = float(rng.uniform(0, 360))
    transform, _ = normalizing_transform(prop.vertices, turn, camera.viewmats.numpy(), FOV_DEG)
    light = make_lights(lights[rng.integers(len(lights))], float(rng.uniform(0, 360)))
    with torch.inference_mode():
        return draw(Surface(prop, transform, torch.device("cpu")), camera, light).rgba[0].numpy()


def load_photograph(name: str, size: int) -> np.ndarray:
    """Return (size, size, 3) uint8 of one of scikit-image's photographs."""
    picture = Image.fromarray(getattr(data, name)()).convert("RGB")
    side = min(picture.size)
    return np.asarray(picture.crop((0, 0, side, side)).resize((size, size)))


def draw_composites(
    objects: list[str], split: str | None, count: int, size: int
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield the photograph's name, the object's RGBA and the background."""
    rng, lights, made = np.random.default_rng(0), load_baked_environments(), 0
    for item in shuffle(find_objects(objects, split), 0):
        if made == count:
            return
        try:
            rgba = render(Path(item.path), size, rng, lights)
        except (GSV3DError, ValueError) as error:
            print(f"left out: {error}")
            continue
        name = PHOTOGRAPHS[made % len(PHOTOGRAPHS)]
        made += 1
        yield name, rgba, load_photograph(name, size)


def load_stamps(folder: Path, step: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield the color's name, a photograph's RGBA and the background."""
    chosen = [path for path in sorted(folder.rglob("*.png")) if is_photograph(path)]
    print(f"{len(chosen)} photographs among the stamps, every {step}. of them")
    for name, value in PLAIN.items():
        for path in chosen[::step]:
            rgba = np.asarray(Image.open(path).convert("RGBA"))
            margin = max(rgba.shape) // 10
            rgba = np.pad(rgba, ((margin, margin), (margin, margin), (0, 0)))
            yield name, rgba, np.full_like(rgba[..., :3], value)


def is_photograph(path: Path) -> bool:
    """Return True for a PNG with alpha and many colors, whose neighboring pixels mostly differ."""
    image = Image.open(path)
    if image.mode != "RGBA" or max(image.size) < 100:
        return False
    values = np.asarray(image).astype(int)
    solid = values[..., 3] > 250
    if (values[..., 3] < 10).mean() < 0.03 or solid.sum() < 1000:
        return False
    pairs = solid[:, 1:] & solid[:, :-1]
    flat = (values[:, 1:, :3] == values[:, :-1, :3]).all(axis=-1)[pairs].mean()
    return flat < 0.12 and len(np.unique(values[solid][:, :3] // 8, axis=0)) > 250


def measure(rgba: np.ndarray, background: np.ndarray) -> tuple[float, float, float, float]:
    """Return intersection over union, error of alpha, certainty and seconds."""
    truth = rgba[..., 3] / 255
    picture = rgba[..., :3] * truth[..., None] + background * (1 - truth[..., None])
    started = time.process_time()
    try:
        found = cut_out(Image.fromarray(np.round(picture).astype(np.uint8)))
    except GSV3DError:
        return 0.0, float(truth.mean()), 0.0, time.process_time() - started
    seconds = time.process_time() - started
    left, top, right, bottom = (round(x) for x in found.box)
    alpha = np.zeros_like(truth)
    part = Image.fromarray(found.alpha).resize((right - left, bottom - top))
    alpha[top:bottom, left:right] = np.clip(np.asarray(part), 0, 1)
    mine, wanted = alpha > 0.5, truth > 0.5
    overlap = float((mine & wanted).sum() / (mine | wanted).sum())
    return overlap, float(np.abs(alpha - truth).mean()), found.certainty or 1.0, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("objects", nargs="*")
    parser.add_argument("--split")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--stamps", type=Path, help="folder of PNG files with alpha")
    parser.add_argument("--step", type=int, default=2, help="take every so-many-th stamp")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cases: Iterator[tuple[str, np.ndarray, np.ndarray]]
    if args.stamps:
        cases = load_stamps(args.stamps, args.step)
    else:
        cases = draw_composites(args.objects, args.split, args.count, args.size)
    rows: dict[str, list[tuple[float, float, float, float]]] = {}
    for name, rgba, background in cases:
        rows.setdefault(name, []).append(measure(rgba, background))
    if not args.stamps:
        rows["all"] = [row for found in rows.values() for row in found]
    print(
        "| background | pictures | IoU | error of alpha | IoU < 0.9 | of them unsure | unsure | s |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, found in rows.items():
        values = np.array(found)
        poor, unsure = values[:, 0] < 0.9, [is_unsure(c) for c in values[:, 2]]
        print(
            f"| {name} | {len(values)} | {values[:, 0].mean():.3f} | {values[:, 1].mean():.4f}"
            f" | {poor.sum()} | {(poor & unsure).sum()} | {sum(unsure)}"
            f" | {np.median(values[:, 3]):.2f} |"
        )


if __name__ == "__main__":
    main()

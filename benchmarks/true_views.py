# SPDX-License-Identifier: Apache-2.0
"""Compare a model's meshes from its own views with those from the true views.

    python benchmarks/true_views.py blockout --report report --count 24

The latents of the true orbit take the place of the denoised ones after the last step; decoder and
meshing are the same. The objects, their true orbits and surfaces are those of a folder of
``gsv3d evaluate`` in which the model was measured.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from refining import measure_mesh

from gsv3d.cameras import orbit
from gsv3d.lab.evaluation.store import load_arrays
from gsv3d.meshing import extract_mesh
from gsv3d.meshing.reference import Reference
from gsv3d.models import load_pipeline
from gsv3d.multiview.conditioning import encode_reference, picture_tensor
from gsv3d.preprocessing import prepare_sizes

COLUMNS = ("CD", "F@.02", "F@.05", "volume IoU")
DETAIL = 256


@torch.no_grad()
def encode_views(pipe: Any, views: np.ndarray) -> torch.Tensor:
    """Return (1, V, L, h, w) scaled latents of (V, S, S, 4) uint8 pictures."""
    size = (pipe.image_size, pipe.image_size)
    small = [
        np.asarray(Image.fromarray(v).convert("RGBa").resize(size, Image.Resampling.BOX)
                   .convert("RGBA"))
        for v in views
    ]  # fmt: skip
    rgba = torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float() / 255
    pictures = picture_tensor(rgba, pipe.vae.config.in_channels).to(pipe.vae.dtype)
    return encode_reference(pipe.vae, pictures)[None] * pipe.vae.config.scaling_factor


def measure_object(
    pipe: Any, truth: dict[str, np.ndarray], views: np.ndarray | None, steps: int
) -> list[float]:
    """Return one object's numbers, in the order of ``COLUMNS``, from true views or the model's."""
    elevation = float(truth["elevation_deg"])
    small, detailed = (
        prepared.rgba
        for prepared in prepare_sizes(
            Image.fromarray(truth["reference"]), (pipe.image_size, DETAIL)
        )
    )
    true = None if views is None else encode_views(pipe, views)
    out = pipe(
        small,
        elevation=elevation,
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
        callback_on_step_end=lambda pipe, step, timestep, kwargs: (
            {} if true is None else {"latents": true}
        ),
    )
    reference = Reference(detailed, orbit([0.0], [elevation], size=DETAIL))
    mesh = extract_mesh(out.gaussians.visible(), texture_size=256, references=[reference])
    return measure_mesh(mesh, truth)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="name or folder")
    parser.add_argument("--report", type=Path, required=True, help="of gsv3d evaluate")
    parser.add_argument("--count", type=int, default=24, help="objects, by name, evenly spaced")
    parser.add_argument("--steps", type=int, default=2)
    args = parser.parse_args()
    pipe = load_pipeline(args.model, "cpu")
    files = sorted((args.report / "truth").glob(f"*--orbit{pipe.num_frames}.npz"))
    files = files[:: max(1, len(files) // args.count)][: args.count]
    rows: dict[str, list[list[float]]] = {"its own views": [], "the true views": []}
    for path in files:
        truth = load_arrays(path.with_name(path.name.rsplit("--", 1)[0] + ".npz"))
        true = load_arrays(path)["views"]
        for kind, views in zip(rows, (None, true), strict=True):
            rows[kind].append(measure_object(pipe, truth, views, args.steps))
    print(f"| mean over {len(files)} | " + " | ".join(COLUMNS) + " |")
    print("| --- |" + " ---: |" * len(COLUMNS))
    for kind, values in rows.items():
        print(f"| {kind} | " + " | ".join(f"{x:.3f}" for x in np.mean(values, axis=0)) + " |")


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Measure what hints are worth to multi-view models: the error of latents made from pure noise.

    python benchmarks/hints.py MODEL... --objects props/index.json --packs PACK... --output runs

Each object is drawn once and seen from one side; every model is told nothing, the truth with the
errors of training (``gsv3d.lab.training.hints``), and the truth. The error is the mean square of
one estimate at the largest noise level, over all views but the reference.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sizes import draw_bank

from gsv3d.lab.datasets.objects import find_objects
from gsv3d.lab.training.bank import OrbitBank
from gsv3d.lab.training.edm import denoise, estimate
from gsv3d.lab.training.hints import UNKNOWN, Hint, blur_hint, find_hint, make_hints
from gsv3d.lab.training.samples import Change, choose_views
from gsv3d.lab.training.sources import OrbitBatch, OrbitSource
from gsv3d.models import load_pipeline
from gsv3d.multiview.conditioning import Condition, embed_for_cross_attention, encode_reference

AT_ONCE = 16
TOLD = ("nothing", "with errors", "the truth")


def draw_batch(source: OrbitSource, indices: range, told: str) -> OrbitBatch:
    """Return orbits framed as their references, the same for all that is told of them."""
    bank, rng = source.orbits, np.random.default_rng(indices.start)
    chosen = [choose_views(bank[i], source.num_frames, 0, rng, False) for i in indices]
    changes = [
        Change().framed(bank[i].rgba[views.frames[-1], ..., 3])
        for i, views in zip(indices, chosen, strict=True)
    ]
    hints: list[Hint] = [UNKNOWN] * len(indices)
    if told != "nothing":
        views = [own.frames[-1] for own in chosen]
        hints = [find_hint(bank, i, view, False) for i, view in zip(indices, views, strict=True)]
    if told == "with errors":
        hints = [blur_hint(hint, rng) for hint in hints]
    return source.draft(list(indices), chosen, changes, hints=hints).made()


@torch.no_grad()
def measure(pipe: Any, bank: OrbitBank, told: str) -> np.ndarray:
    """Return each object's error."""
    source = OrbitSource(bank, pipe.num_frames, pipe.vae.config.in_channels)
    sigma = float(pipe.scheduler.config.sigma_max)
    errors = []
    for start in range(0, len(bank), AT_ONCE):
        batch = draw_batch(source, range(start, min(start + AT_ONCE, len(bank))), told)
        assert batch.pictures is not None and batch.reference is not None
        modes = encode_reference(pipe.vae, batch.pictures.flatten(0, 1))
        latents = modes.unflatten(0, batch.pictures.shape[:2]) * pipe.vae.config.scaling_factor
        reference = encode_reference(pipe.vae, batch.reference)
        hints = make_hints(pipe.unet, pipe.vae, batch, batch.reference, reference)
        context = embed_for_cross_attention(pipe.image_encoder, batch.reference)
        torch.manual_seed(start)
        noisy = latents + sigma * torch.randn_like(latents)
        sigmas = torch.full((len(latents),), sigma)
        condition = Condition(reference, context, hints)
        v = denoise(pipe.unet, noisy, sigmas, batch.pose, condition)
        off = (estimate(noisy, v, sigmas) - latents)[:, :-1]
        errors.append(off.square().mean(dim=(1, 2, 3, 4)).numpy())
    return np.concatenate(errors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", help="names or folders")
    parser.add_argument("--objects", type=Path, required=True, help="index.json")
    parser.add_argument("--split", default="train")
    parser.add_argument("--packs", nargs="+", required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder of the drawn orbits")
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    objects = [o for o in find_objects([args.objects], args.split) if o.pack in args.packs]
    size = load_pipeline(args.models[0]).image_size
    bank = draw_bank(tuple(objects), size, args.output, args.workers)
    print(f"\n| {len(bank)} objects | " + " | ".join(TOLD) + " |")
    print("| --- |" + " ---: |" * len(TOLD))
    for model in args.models:
        pipe = load_pipeline(model)
        errors = [measure(pipe, bank, told) for told in TOLD]
        print(f"| {model} | " + " | ".join(f"{e.mean():.4f}" for e in errors) + " |", flush=True)


if __name__ == "__main__":
    main()
